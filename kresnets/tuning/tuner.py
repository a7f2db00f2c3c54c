"""A Keras Tuner tuner that does nothing twice: frozen features, common first stages and equal trials are shared."""

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import logging
import math
import os
import pathlib
import statistics
import time

import keras
import keras_tuner

from kresnets._util import files
from kresnets._util.checks import is_number, is_whole
from kresnets._util.files import read_json, write_json
from kresnets._util.store import SharedStore
from kresnets.callbacks import Progress
from kresnets.tuning import keras_tuner_hooks as hooks
from kresnets.tuning import shared_stages as stages
from kresnets.tuning.chief import Worker, heartbeat, serve
from kresnets.tuning.choice import accuracy_gains, choose
from kresnets.tuning.folder import check_same_search
from kresnets.tuning.hypermodel import RecipeHyperModel
from kresnets.tuning.oracle import sound
from kresnets.tuning.oracle_storage import is_chief, is_default, is_worker
from kresnets.tuning.prune import Pruning, best_so_far
from kresnets.tuning.records import COMPLETED, FAILED, PRUNED, REPEATED, chosen, read_records, write_record
from kresnets.tuning.space import THAW

_BUDGET = "tuner/epochs"  # Hyperband's: train up to this epoch
_TOLD = {"epoch", "stage", "seconds"}  # of a row of a history, what is no measurement


class RecipeTuner(hooks.Tuner):
    """Search over recipes with any oracle of Keras Tuner, each trial for what is new in it alone.

    What frozen layers give is computed once for all trials (files in the project's folder, mapped by all processes). A
    trial whose first stages another one had already takes them over; one that is equal to another takes its score;
    one that Hyperband promotes goes on where it was. The results are those of a plain tuner with `RecipeHyperModel`,
    up to rounding, but for trials that are pruned, and where the recipe keeps the last epoch: a trial is scored by the
    epoch that its recipe keeps.

    The oracle is made sound (`kresnets.tuning.sound`): a search that was killed goes on with the same script.
    TensorFlow keeps some memory of every function that it traced (5 to 20 MB a small trial), whatever Keras clears: a
    long search runs best under `kresnets search`, whose trials are in a process that is replaced when it has grown.

    Args:
        hypermodel: a `RecipeHyperModel`.
        oracle: any `keras_tuner.Oracle`.
        directory: as of `keras_tuner.Tuner`. Defaults to None, the current one.
        project_name: as of `keras_tuner.Tuner`. Defaults to `"search"`.
        overwrite: as of `keras_tuner.Tuner`. Defaults to False.
        executions_per_trial: repeats with other seeds; the score is their mean. Defaults to 1.
        prune: share of the other trials that may be better before one is given up, 0..1: 0.5 is the median rule; None
            gives up none. The stage of the head is always trained. Defaults to None.
        share: whether features and stages are shared. Defaults to True.
        failures: so many failed trials of the same kind in a row end the search. Defaults to 3.
        deadline: seconds without a sign of life after which a worker on another machine counts as dead. Defaults to 60.
        seed: of the oracle; None for its own. Defaults to None.
        on_change: function of the oracle, called after each trial. Defaults to None.
        leave: function without arguments, asked before each trial, and in one before each split, whether to return from
            `search` although it is not over; `finished` is then False. Defaults to None.
        begins: whether the first trial is `base` itself, one of the oracle's `max_trials`: what all others are compared
            with, split by split, see `choice`. None: where `base` leaves something to the rule. Defaults to None.
        race: number of splits, from 1, after which a trial is given up that is, on these, no better than the best so
            far; None gives up none. Defaults to None.

    Raises:
        ValueError: for arguments out of their range.

    Example:
        >>> import keras_tuner, kresnets, numpy as np
        >>> from kresnets.tuning import RecipeHyperModel, RecipeTuner
        >>> x, y = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)), np.arange(8) % 2
        >>> build = lambda: kresnets.CifarResNet20(classes=2, input_shape=(16, 16, 3))
        >>> base = kresnets.Recipe(augment="none")
        >>> hypermodel = RecipeHyperModel(build, {"thaw": "head", "learning_rate": [1e-3, 1e-2]}, base, epochs=2)
        >>> oracle = keras_tuner.oracles.GridSearchOracle("val_loss", max_trials=4)
        >>> tuner = RecipeTuner(hypermodel, oracle, directory="/tmp/kresnets_search", overwrite=True)
        >>> tuner.search((x, y), (x, y), verbose=0)
        >>> len(tuner.oracle.trials)  # the default, and one for each rate
        3
    """

    def __init__(
        self,
        hypermodel,
        oracle,
        directory=None,
        project_name="search",
        overwrite=False,
        executions_per_trial=1,
        prune=None,
        share=True,
        failures=3,
        deadline=60.0,
        seed=None,
        on_change=None,
        leave=None,
        begins=None,
        race=None,
    ):
        if not isinstance(hypermodel, RecipeHyperModel):
            raise ValueError(f"RecipeTuner takes a RecipeHyperModel. Received: {hypermodel!r}")
        if prune is not None and not (is_number(prune) and 0 < prune <= 1):
            raise ValueError(f"`prune` must be a share above 0 and up to 1, or None. Received: {prune!r}")
        if race is not None and not is_whole(race, 1):
            raise ValueError(f"`race` must be a whole number from 1, or None. Received: {race!r}")
        begins = hypermodel.leaves_out if begins is None else begins
        sound(oracle, failures, deadline, seed=seed, on_change=on_change, begins=begins)
        self._prune, self._leave, self._share, self._race = prune, leave, share, race
        self._store, self.finished = None, False
        super().__init__(
            oracle, hypermodel, directory=directory, project_name=project_name, overwrite=overwrite,
            executions_per_trial=executions_per_trial,
        )  # fmt: skip
        if is_worker():
            self.oracle = Worker(oracle)

    def begin_space(self):
        if self.hypermodel.plan is not None or not self.hypermodel.leaves_out:  # else when the data have come
            self._declare()

    def _declare(self):
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def search(self, train=None, validation=None, *, splits=None, callbacks=(), epoch=None, verbose="auto"):
        """Run trials until the oracle has enough.

        What the hypermodel's `base` leaves out is resolved first, by these data; of `splits`, by the first pair, unless
        `RecipeHyperModel.resolve` has been called.

        Args:
            train: as of `kresnets.fine_tune`. The chief of several processes needs none.
            validation: likewise; part of what may be learned from, never of the test data. Defaults to None.
            splits: list of pairs `(train, validation)` in place of both: each trial trains on each of them (k folds, or
                several random splits), and its score is the mean. Defaults to None.
            callbacks: Keras callbacks for each training, copied for each. Defaults to ().
            epoch: as of `RecipeHyperModel.train`. Defaults to None.
            verbose: as of `keras_tuner.Tuner.search`: 0 prints nothing. Defaults to `"auto"`.

        Raises:
            ValueError: where another process searches in the same folder, there are no data to train on, or the folder
                has the trials of a search with another objective, space, base or other data.
        """
        unknown = self.hypermodel.plan is None and self.hypermodel.leaves_out
        if is_chief():
            with self._alone():
                self.oracle.verbose = verbose
                if unknown and train is not None:
                    self.hypermodel.resolve(train, validation)
                if unknown:  # without data in the words that do not hang on them; the workers know the rest
                    self._declare()
                self.save()
                serve(self.oracle)
            self.finished = True
            return
        splits = [(train, validation)] if splits is None else list(splits)
        if any(part is None for split in splits for part in split):
            raise ValueError("A search needs training and validation data: give both, or `splits` of both.")
        if unknown or train is not None and self.hypermodel.leaves_out:
            self.hypermodel.resolve(*splits[0])
        if unknown:
            self._declare()
        if not is_worker():
            self.oracle.verbose = verbose
        with contextlib.nullcontext() if is_worker() else self._alone(), _quiet():
            if not is_worker():
                check_same_search(pathlib.Path(self.project_dir), self.hypermodel, self.oracle.objective, splits)
            try:
                super().search(splits, callbacks=list(callbacks), epoch=epoch)
                self.finished = True
                if verbose != 0 and (stopped := getattr(self.oracle, "stopped_because", None)):
                    print(stopped, flush=True)
            except _Leave:
                pass
            except keras_tuner.errors.FatalError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise

    def _alone(self):
        """Hold a lock on the project's folder."""
        busy = f"Another search is running in {self.project_dir}: wait for it, or give another folder."
        return files.alone_in(self.project_dir, busy, seconds=5)

    def pre_create_trial(self):
        if self._leave is not None and self._leave():
            raise _Leave

    def run_trial(self, trial, splits, callbacks=(), epoch=None):
        """Train one trial, on each split and with each seed; see `keras_tuner.Tuner.run_trial`."""
        began = time.time()
        try:
            with heartbeat(self.oracle, trial.trial_id):
                metrics, record = self._run(trial, splits, list(callbacks), epoch)
        except (KeyboardInterrupt, _Leave):
            self._give_back(trial)
            raise
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and _is_full(error):
                # What the machine lacks is not the recipe's fault: the trial is to come again once there is room.
                self._give_back(trial)
                raise keras_tuner.errors.FatalError(str(error)) from error
            # Whatever one recipe does to a training, the others are to be tried.
            self._write_record(trial, began, {"status": FAILED, "reason": _reason(error)})
            raise keras_tuner.errors.FailedTrialError(_reason(error)) from error
        self._write_record(trial, began, record)
        return metrics

    def _give_back(self, trial):
        if not is_worker():  # whose chief gives the trial to another one
            self.oracle.give_back(trial.trial_id)

    def _write_record(self, trial, began, record):
        write_record(self.get_trial_dir(trial.trial_id), started=began, seconds=round(time.time() - began, 3), **record)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._splits_done(trial))

    def _run(self, trial, splits, callbacks, epoch):
        values, budget = self._values(trial), trial.hyperparameters.values.get(_BUDGET)
        records = read_records(self.project_dir)
        for other in records if self._share else ():
            if other["trial_id"] != trial.trial_id and budget is None and self._has_score_of(values, other):
                reason = f"Equal to trial {other['trial_id']}, whose score it has."
                told = self.oracle.get_trial(other["trial_id"]).metrics.metrics
                metrics = {name: history.get_best_value() for name, history in told.items()}
                same = {name: other[name] for name in ("scores", "measures", "whole")}
                return metrics, {"status": REPEATED, "reason": reason, **same}
        curves = [
            best_so_far(record["history"], self.oracle.objective)
            for record in records
            if record["status"] in (COMPLETED, PRUNED) and record["trial_id"] != trial.trial_id
        ]
        path, total = self._splits_done(trial), len(splits) * self.executions_per_trial
        results, behind = [_Result(**told) for told in read_json(path) or ()], None
        found = len(results)
        while len(results) < total:
            behind = self._behind(trial, [one.best_value for one in results], records, total)
            if behind or results and results[-1].pruned:
                break
            if len(results) > found and self._leave is not None and not is_worker() and self._leave():
                raise _Leave
            hopeful = curves if not results and not is_default(trial) else None
            run = self._train(trial, values, budget, splits, len(results), callbacks, epoch, hopeful)
            if all(self.oracle.objective.better_than(run.best_value, one.best_value) for one in results):
                stages.write_state(self._checkpoint(trial), {}, [], run.best)
            results.append(run.result(with_rows=not results))
            if total > 1:  # a killed trial goes on at its next split
                write_json(path, [dataclasses.asdict(one) for one in results])
        first = results[0]
        record = {
            "status": PRUNED if first.pruned or behind else COMPLETED,
            "reason": first.pruned or behind,
            "epochs": sum(one.trained for one in results),
            "scores": [one.best_value for one in results],
            "measures": [one.kept for one in results],
            "whole": len(results) == total and all(one.whole and not one.pruned for one in results),
            "history": first.rows,
        }
        return [one.measured for one in results], record

    def _splits_done(self, trial):
        return os.path.join(self.get_trial_dir(trial.trial_id), "splits.json")

    def _behind(self, trial, scores, records, total):
        """Return why a trial with these scores is not to go on to its next split, or None."""
        done = len(scores)
        if self._race is None or is_default(trial) or not self._race <= done < total:
            return None
        whole = [one for one in records if one["whole"] and len(one["scores"]) == total]
        default = next((one for one in whole if one["default"]), None)
        if default is None:
            return None
        better, name = self.oracle.objective.better_than, self.oracle.objective.name
        best = default
        for one in whole:
            fair = statistics.mean(accuracy_gains(one, default) or [0]) >= 0
            best = one if fair and _better_mean(better, one["scores"], best["scores"]) else best
        if _better_mean(better, scores, best["scores"][:done]):
            return None
        told = [statistics.mean(one) for one in (scores, best["scores"][:done])]
        return (
            f"Given up after {done} of {total} splits: its mean {name} of {told[0]:.4g} was no better than the "
            f"{told[1]:.4g} of trial {best['trial_id']} on the same."
        )

    def _values(self, trial):
        return self.hypermodel.space.active(chosen(trial.hyperparameters.values))

    def _has_score_of(self, values, other):
        return other["status"] in (COMPLETED, PRUNED) and self.hypermodel.space.same(other["values"], values)

    def _checkpoint(self, trial):
        return pathlib.Path(self.get_trial_dir(trial.trial_id)) / "checkpoint.npz"

    def _train(self, trial, values, budget, splits, number, callbacks, epoch, curves):
        split, execution = number % len(splits), number // len(splits)
        hypermodel = self.hypermodel
        seed = hypermodel.space.base.seed + execution
        recipe = hypermodel.space.recipe(values, seed)
        keras.backend.clear_session()
        model = hypermodel.make(seed)
        pruning = None
        if self._prune is not None and curves is not None and budget is None:
            pruning = Pruning(self.oracle.objective, curves, self._prune, _first_epochs(recipe, hypermodel.names))
        keep = _SharedStage(self, trial, recipe, model, number, split, budget) if stages.shares(recipe) else None
        run = _Run(self.oracle.objective, recipe, model, hypermodel, pruning, keep, budget)
        try:
            callbacks = copy.deepcopy(callbacks)
        except Exception as error:
            raise keras_tuner.errors.FatalValueError(f"Callbacks are copied for each training: {error}.") from error
        hooks.log_to_tensorboard(self, callbacks, trial, number)
        if run.initial_epoch < run.epochs:
            train, validation = splits[split]
            hypermodel.train(
                model, recipe, train, validation, cache=self._features() if self._share else False,
                callbacks=[run, *callbacks], epoch=epoch, initial_epoch=run.initial_epoch,
            )  # fmt: skip
        return run

    def _features(self):
        if self._store is None:
            self._store = SharedStore(os.path.join(self.project_dir, "features"))
        return self._store

    def load_model(self, trial):
        # The default has no values, without which Keras Tuner builds nothing.
        model = self.hypermodel.ready() if is_default(trial) else self.hypermodel.build(trial.hyperparameters)
        found = stages.read_state(self._checkpoint(trial))
        if found is None:  # a trial that took the score of an equal one
            values = self._values(trial)
            for other in read_records(self.project_dir):
                if self._has_score_of(values, other):
                    found = stages.read_state(self._checkpoint(self.oracle.get_trial(other["trial_id"])))
        if found is None:
            why = f" ({trial.message})" if trial.message else ""
            raise ValueError(f"Trial {trial.trial_id} left no weights: its status is {trial.status}{why}.")
        stages.assign(model, found[2][1])
        return model

    def choice(self):
        """Return what `kresnets.tuning.choose` says of the trials so far: whether any is better than what the search
        began with, by more than noise."""
        plan = self.hypermodel.plan
        return choose(
            read_records(self.project_dir), self.oracle.objective, validation=plan.facts.validation if plan else None
        )

    def best_recipe(self):
        """Return the `Recipe` of the best trial; where the search began with `base`, that of `choice`: `base` as it was
        resolved, unless a trial gained more than noise.

        Raises:
            ValueError: where no trial has been completed.
        """
        chosen = self.choice()
        if chosen.compared and chosen.record is not None:
            if chosen.record["default"]:
                return self.hypermodel.space.recipe({}) if self.hypermodel.plan is None else self.hypermodel.plan.recipe
            return self.hypermodel.space.recipe(chosen.record["values"])
        trial = self.oracle.get_best_trials(1)
        if not trial or trial[0].status != "COMPLETED":
            reasons = [record["reason"] for record in read_records(self.project_dir) if record["status"] == FAILED]
            raise ValueError(
                f"No trial has been completed; {len(reasons)} failed, the last one so: {reasons[-1]}"
                if reasons
                else "No trial has been completed yet: search first."
            )
        return self.hypermodel.recipe(trial[0].hyperparameters)

    def clear(self):
        """Remove what trials share: features and stages. Scores, records and the best weights of each trial stay."""
        import shutil

        for name in ("features", "stages"):
            shutil.rmtree(os.path.join(self.project_dir, name), ignore_errors=True)


class _Leave(keras_tuner.errors.FatalError):
    """Leave the search between two trials, or two splits of one: Keras Tuner lets nothing else through."""


@contextlib.contextmanager
def _quiet():
    """Keep to oneself what `fine_tune` remarks on a training: it is said of a recipe that one means to use."""
    log, errors = logging.getLogger("kresnets"), lambda record: record.levelno >= logging.ERROR
    log.addFilter(errors)  # of this logger alone, not of those below it
    try:
        yield
    finally:
        log.removeFilter(errors)


def _better_mean(better_than, scores, others):
    """Return whether the mean of scores is better than that of others, in the objective's sense."""
    return better_than(statistics.mean(scores), statistics.mean(others))


def _first_epochs(recipe, names):
    """Return how many epochs a trial trains at the least: its first stage, or half of its only one."""
    ends = list(stages.ends(recipe, names))
    return ends[0] if len(ends) > 1 else max(1, ends[0] // 2)


def _is_full(error):
    codes = {getattr(one, "errno", None) for one in (error, error.__cause__)}
    return bool(codes & {errno.ENOSPC, errno.EDQUOT})


def _reason(error):
    name = type(error).__name__
    if isinstance(error, FloatingPointError):
        name = "NaN"
    elif isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        name = "OutOfMemory"
    return f"{name}: {' '.join(str(error).split())[:500] or 'no more was said'}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Result:
    """What came of one training of a trial.

    Args:
        best_value: the objective in the epoch that the recipe keeps.
        kept: what was measured in that epoch.
        history: metric -> its values, epochs that another trial trained included.
        rows: the history, a dict an epoch.
        pruned: why it was given up, or None.
        trained: epochs that it trained itself.
        whole: whether it trained to the recipe's end.
    """

    best_value: float
    kept: dict
    history: dict
    rows: list
    pruned: str | None
    trained: int
    whole: bool

    @property
    def measured(self):
        """The Keras `History` that Keras Tuner reads."""
        found = keras.callbacks.History()
        found.history = self.history
        return found


class _SharedStage:
    """Find where a training may begin, and leave its states for others.

    States lie in `stages/`, named by all that led to them; the state that a promoted trial goes on from lies with the
    trial that was promoted.
    """

    def __init__(self, tuner, trial, recipe, model, number, split, budget):
        self._tuner, self._trial, self._recipe, self._number = tuner, trial, recipe, number
        self._split, self._budget, self._share = split, budget, tuner._share
        self._ends = stages.ends(recipe, tuner.hypermodel.names)
        self.learnt = stages.Learnt(model, tuner.hypermodel.groups)

    def _path(self, epochs):
        """Return where the state after so many epochs lies, or None where no other trial can meet it."""
        told = self._ends.get(epochs)
        if not self._share or told is None or not stages.can_meet(self._tuner.hypermodel.space, told):
            return None
        text = json.dumps([told, self._split], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:24]
        return pathlib.Path(self._tuner.project_dir) / "stages" / f"{name}.npz"

    def _of_trial(self, trial_id):
        return pathlib.Path(self._tuner.get_trial_dir(trial_id)) / f"state-{self._number}.npz"

    def found(self, most):
        """Return the longest way that was gone already, of `most` epochs at the most, or None."""
        values = self._trial.hyperparameters.values
        if "tuner/trial_id" in values:
            promoted = stages.read_state(self._of_trial(values["tuner/trial_id"]))
            if promoted is not None:
                return promoted
        for epochs in sorted(self._ends, reverse=True):
            path = self._path(epochs) if epochs < most else None
            if path is not None and (state := stages.read_state(path)) is not None:
                return state
        return None

    def leave(self, epochs, most, stage, rows, best):
        """Write the state after so many epochs, if somebody may want it."""
        paths = [self._path(epochs) if epochs < max(self._ends) or self._is_a_part() else None]
        if epochs == most and self._budget is not None:
            paths.append(self._of_trial(self._trial.trial_id))
        for path in paths:
            if path is not None and not path.exists():
                stages.write_state(path, self.learnt.state(stage), rows, best)

    def _is_a_part(self):
        """Whether another trial can begin with all that this one trains, and thaw more."""
        space, mine = self._tuner.hypermodel.space, self._recipe.stages
        deeper = [space.stages(thaw) for thaw in space.fields.get(THAW, ())]
        return space.epochs is None and any(more[: len(mine)] == mine != more for more in deeper)


class _Run(keras.callbacks.Callback):
    """Follow one training of a trial: begin it where another one got to, note it, keep its best weights, end it."""

    def __init__(self, objective, recipe, model, hypermodel, pruning, keep, budget):
        super().__init__()
        self._objective, self._pruning, self._keep = objective, pruning, keep
        self._stages = [(end, told["stages"][-1][0]) for end, told in stages.ends(recipe, hypermodel.names).items()]
        self._progress = Progress(dataclasses.replace(recipe.staging(hypermodel.names), undo=True))
        self._keeps_last = recipe.keep == "last"
        self.epochs = min(self._stages[-1][0], budget or math.inf)
        self.whole = self.epochs == self._stages[-1][0]
        self._learnt = keep.learnt if keep else stages.Learnt(model, hypermodel.groups)
        self.rows, self.best, self.pruned, self.trained, self._state = [], (None, {}), None, 0, None
        found = keep.found(self.epochs) if keep else None
        if found is not None:
            self._state, self.rows, self.best = found
        self._lowest = best_so_far(self.rows, objective)[-1] if self.rows else None
        self._progress = Progress.replay(self._progress.schedule, self.rows)
        self.initial_epoch = len(self.rows)

    @property
    def best_value(self):
        """The objective in the epoch that the recipe keeps."""
        return self._objective.get_value(self.rows[self.best[0]])

    def result(self, with_rows):
        """Return what the trial needs to know of it, with its history if asked for."""
        names = set.intersection(*map(set, self.rows)) - _TOLD
        # What only some epochs have (rates of groups that thaw later) would stand beside others' epochs there. Of a
        # history
        # Keras Tuner takes the best epoch.
        rows = [self.rows[self.best[0]]] if self._keeps_last else self.rows
        return _Result(
            best_value=self.best_value,
            kept={name: value for name, value in self.rows[self.best[0]].items() if name not in _TOLD},
            history={name: [row[name] for row in rows] for name in self.rows[-1] if name in names},
            rows=self.rows if with_rows else [],
            pruned=self.pruned,
            trained=self.trained,
            whole=self.whole,
        )

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        if self._state is not None:  # by now the optimizer is built on what this epoch trains
            stages.surgery.put_back(self.model, self._state, clock_too=True)
            self._state = None

    def on_epoch_end(self, epoch, logs=None):
        stage = next(group for end, group in self._stages if epoch < end)
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        if not self._objective.has_value(numbers):
            raise ValueError(
                f"The objective {self._objective.name!r} is none of what is measured: {', '.join(numbers)}."
            )
        self.rows.append(
            {"epoch": epoch, "stage": stage, "seconds": round(time.perf_counter() - self._began, 3), **numbers}
        )
        self.trained += 1
        value = self._objective.get_value(numbers)
        if self._lowest is None or self._objective.better_than(value, self._lowest):
            self._lowest = value
        self._progress = self._progress.after(self.rows[-1])
        ends, last = self._progress.finished or self._progress.starts[-1] == epoch + 1, epoch + 1 >= self.epochs
        if self._pruning and not last:
            self.pruned = self._pruning.verdict(self._lowest, epoch + 1)
        if self._keeps_last:
            kept = (ends or last or self.pruned) and not (ends and self._progress.undoes)
        else:
            kept = self.best[0] is not None and self._objective.better_than(value, self.best_value)
        if kept or self.best[0] is None:
            self.best = (epoch, self._learnt.weights(stage))
        # Where a stage is undone, the next one begins otherwise than this one has ended.
        if self._keep and not self._progress.undone:
            self._keep.leave(epoch + 1, self.epochs, stage, self.rows, self.best)
        if last or self.pruned:
            self.model.stop_training = True
