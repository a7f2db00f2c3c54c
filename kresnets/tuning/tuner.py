"""A Keras Tuner tuner that does nothing twice: frozen features, common first stages and equal trials are shared."""

import contextlib
import copy
import errno
import logging
import os
import pathlib
import shutil
import statistics
import time

import keras
import keras_tuner

from kresnets._util import files
from kresnets._util.checks import is_number, is_whole
from kresnets._util.store import SharedStore
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
from kresnets.tuning.training import Training


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
        splits = [(train, validation)] if splits is None else list(splits)
        has_data = all(part is not None for split in splits for part in split)
        if not has_data and not is_chief():
            raise ValueError("A search needs training and validation data: give both, or `splits` of both.")
        unresolved = self.hypermodel.plan is None and self.hypermodel.leaves_out
        if has_data and (unresolved or train is not None and self.hypermodel.leaves_out):
            self.hypermodel.resolve(*splits[0])
        if unresolved:  # a chief without data declares what does not depend on them; its workers know the rest
            self._declare()
        busy = f"Another search is running in {self.project_dir}: wait for it, or give another folder."
        alone = contextlib.nullcontext() if is_worker() else files.alone_in(self.project_dir, busy, seconds=5)
        with alone, _quiet():
            if not is_worker():
                self.oracle.verbose = verbose
            if is_chief():
                self.save()
                serve(self.oracle)
                self.finished = True
                return
            if not is_worker():
                check_same_search(pathlib.Path(self.project_dir), self.hypermodel, self.oracle.objective, splits)
            try:
                super().search(splits, callbacks=list(callbacks), epoch=epoch)
                self.finished = True
                if verbose != 0 and (reason := getattr(self.oracle, "stopped_because", None)):
                    print(reason, flush=True)
            except _Leave:
                pass
            except keras_tuner.errors.FatalError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise

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
        self._splits_done(trial).unlink(missing_ok=True)

    def _run(self, trial, splits, callbacks, epoch):
        """Return what `run_trial` returns, and the entries of the record."""
        values, budget = (
            self._values(trial),
            trial.hyperparameters.values.get("tuner/epochs"),
        )  # Hyperband's: train to it
        records = [record for record in read_records(self.project_dir) if record["trial_id"] != trial.trial_id]
        equal = next(
            (one for one in records if self._share and budget is None and self._has_score_of(values, one)), None
        )
        if equal:
            metrics = self.oracle.get_trial(equal["trial_id"]).metrics.metrics
            reason = f"Equal to trial {equal['trial_id']}, whose score it has."
            same = {name: equal[name] for name in ("scores", "measures", "whole")}
            best = {name: history.get_best_value() for name, history in metrics.items()}
            return best, {"status": REPEATED, "reason": reason, **same}
        curves = [
            best_so_far(record["history"], self.oracle.objective)
            for record in records
            if record["status"] in (COMPLETED, PRUNED)
        ]
        path, total = self._splits_done(trial), len(splits) * self.executions_per_trial
        results, behind = files.read_json(path) or [], None
        found = len(results)
        while len(results) < total:
            behind = self._behind(trial, [result["best_value"] for result in results], records, total)
            if behind or results and results[-1]["pruned"]:
                break
            if len(results) > found and self._leave is not None and not is_worker() and self._leave():
                raise _Leave
            prunable = not results and not is_default(trial)
            run = self._train(
                trial, values, budget, splits, len(results), callbacks, epoch, curves if prunable else None
            )
            if all(self.oracle.objective.better_than(run.best_value, result["best_value"]) for result in results):
                stages.write_state(self._checkpoint(trial), {}, [], run.best)
            results.append(run.result(with_rows=not results))
            if total > 1:  # a killed trial goes on at its next split
                files.write_json(path, results)
        first, histories = results[0], [keras.callbacks.History() for _ in results]
        for history, result in zip(histories, results):
            history.history = result["history"]
        return histories, {
            "status": PRUNED if first["pruned"] or behind else COMPLETED,
            "reason": first["pruned"] or behind,
            "epochs": sum(result["trained"] for result in results),
            "scores": [result["best_value"] for result in results],
            "measures": [result["kept"] for result in results],
            "whole": len(results) == total and all(result["whole"] and not result["pruned"] for result in results),
            "history": first["rows"],
        }

    def _splits_done(self, trial):
        return pathlib.Path(self.get_trial_dir(trial.trial_id)) / "splits.json"

    def _behind(self, trial, scores, records, total):
        """Return why a trial with these scores is not to go on to its next split, or None."""
        done = len(scores)
        if self._race is None or is_default(trial) or not self._race <= done < total:
            return None
        whole = [record for record in records if record["whole"] and len(record["scores"]) == total]
        default = next((record for record in whole if record["default"]), None)
        if default is None:
            return None
        better_than, best = self.oracle.objective.better_than, default
        for record in whole:
            fair = statistics.mean(accuracy_gains(record, default) or [0]) >= 0
            if fair and better_than(statistics.mean(record["scores"]), statistics.mean(best["scores"])):
                best = record
        mine, others = statistics.mean(scores), statistics.mean(best["scores"][:done])
        if better_than(mine, others):
            return None
        return (
            f"Given up after {done} of {total} splits: its mean {self.oracle.objective.name} of {mine:.4g} was no "
            f"better than the {others:.4g} of trial {best['trial_id']} on the same."
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
        shared = stages.SharedStages(self, trial, recipe, model, number, split, budget, self._share)
        pruning = None
        if self._prune is not None and curves is not None and budget is None:
            first, *others = shared.ends  # a trial trains its first stage at the least, or half of its only one
            pruning = Pruning(self.oracle.objective, curves, self._prune, first if others else max(1, first // 2))
        run = Training(self.oracle.objective, recipe, hypermodel.names, pruning, shared, budget)
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
