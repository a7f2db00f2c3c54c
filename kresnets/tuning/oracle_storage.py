"""What a sound oracle keeps on disk, and how: each call is a transaction that a kill at any moment leaves whole.

See `kresnets.tuning.oracle` for what is mended, and why.
"""

import copy
import dataclasses
import functools
import glob
import logging
import os
from collections.abc import Callable

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from kresnets._util.files import read_json, write_json

# The name under which the additions lie in oracle.json, which plain Keras Tuner passes over.
KEY = "kresnets"
# Stands in the name of a worker that gives signs of life (kresnets.tuning.chief): no other one is ever thought dead.
WORKER_MARK = "#"
# A value of the trial that the search begins with, which no oracle has chosen: what all others are variations of.
DEFAULT = "tuner/default"
# Arguments of Keras Tuner's oracles that its state overrides: those that may change between two runs, and the others.
_FREE = ("num_initial_points", "alpha", "beta", "hyperband_iterations")
_BOUND = ("max_epochs", "factor")
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Memory:
    """What a sound oracle keeps beside what Keras Tuner's keeps."""

    failures: int
    deadline: float
    kills: int
    on_change: Callable | None
    begins: bool
    # In oracle.json: how often each trial was handed out, why the search stopped, whether the chief is through.
    handed: dict = dataclasses.field(default_factory=dict)
    stopped_because: str | None = None
    finished: bool = False
    # Of this process alone.
    heard: dict = dataclasses.field(default_factory=dict)  # worker -> when it was last heard, time.monotonic()
    put_back: set = dataclasses.field(default_factory=set)  # trials in the queue whose worker may still end them
    lost: set = dataclasses.field(default_factory=set)  # trials whose trial.json is missing or broken
    count_from: int = 0  # failures count from this place of end_order on
    told_stop: bool = False
    changed: bool = False
    loaded: bool = False
    reading: bool = False
    owner: bool = False
    depth: int = 0
    unsaved: dict = dataclasses.field(default_factory=dict)
    dirty: bool = False
    beside: str | None = None
    differs: str | None = None


def is_default(trial):
    """Return whether a trial is the one that the search begins with."""
    return DEFAULT in trial.hyperparameters.values


def is_chief():
    """Return whether Keras Tuner's variables make this process the chief of several."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def whole(method):
    """Make a method of an oracle a transaction: alone, written to disk at its end and only then, or not at all.

    Keras Tuner's own lock is taken, by its own decorator, which leaves it locked for ever when an exception passes
    through: therefore exceptions leave it as values.
    """

    @keras_tuner.synchronized
    def locked(self, *args, **kwargs):
        memory = self._kresnets
        memory.depth += 1
        try:
            result = method(self, *args, **kwargs)
            if memory.depth == 1:
                self._commit()
            return result, None
        except BaseException as error:  # any at all, Ctrl-C too: each is raised again below, with the lock open
            return None, error
        finally:
            memory.depth -= 1

    @functools.wraps(method)
    def outer(self, *args, **kwargs):
        result, error = locked(self, *args, **kwargs)
        if error is not None:
            raise error
        # A chief's server has one thread, which all workers wait for: there `serve` calls the hook.
        if self._kresnets.changed and not self._kresnets.depth and not is_chief():
            self.tell()
        return result

    return outer


class OracleStorage:
    """The part of a sound oracle that writes, reads, and brings into line what it reads."""

    # Writing.

    @whole
    def save(self):
        if not self._kresnets.reading:
            self._own()
        self._kresnets.dirty = True

    @whole
    def _save_trial(self, trial):
        self._kresnets.unsaved[trial.trial_id] = trial

    def _get_oracle_fname(self):
        return self._kresnets.beside or super()._get_oracle_fname()

    def _commit(self):
        memory = self._kresnets
        for trial_id, trial in list(memory.unsaved.items()):
            write_json(os.path.join(self._get_trial_dir(trial_id), "trial.json"), trial.get_state())
            del memory.unsaved[trial_id]
        if memory.dirty:
            path = self._get_oracle_fname()
            memory.beside = f"{path}.new"
            try:
                super().save()
            finally:
                memory.beside = None
            os.replace(f"{path}.new", path)
            memory.dirty = False

    def _own(self):
        """Before the first write: read what is in the folder, and take away what a kill left half done."""
        memory = self._kresnets
        if memory.owner:
            return
        if not memory.loaded and os.path.exists(self._get_oracle_fname()):
            space = self.hyperparameters
            self.reload()
            self.hyperparameters.merge(space, overwrite=False)
        if memory.differs:
            raise ValueError(memory.differs)
        memory.dirty = memory.loaded  # what the reading set right
        memory.owner, memory.finished = True, False
        # A search that had stopped tries again: whoever gives the command a second time has mended something.
        memory.stopped_because, memory.count_from = None, len(self.end_order)
        folder = glob.escape(self._project_dir)
        for path in [*glob.glob(f"{folder}/*.json.new"), *glob.glob(f"{folder}/trial_*/.tmp-*")]:
            os.remove(path)
        for path in glob.glob(f"{folder}/trial_*/trial.json"):
            trial = read_json(path)
            if trial is None or trial["trial_id"] in self.trials:
                continue
            if trial["status"] == TrialStatus.RUNNING:  # never handed out
                os.remove(path)
            else:
                _log.warning("%s is of a trial that oracle.json does not know: renamed to trial.json.unknown.", path)
                os.replace(path, f"{path}.unknown")

    # Reading. Nothing here writes: a process that only looks must not disturb the one that searches.

    @whole
    def reload(self):
        memory, path = self._kresnets, self._get_oracle_fname()
        memory.loaded = True
        state, kind = read_json(path), type(self).__name__
        try:
            begun_by = state.get(KEY, {}).get("oracle", kind)
            if begun_by != kind:
                raise ValueError(
                    f"The search in {self._project_dir} was begun with {begun_by}, not with {kind}: take that one, or "
                    "another folder."
                )
            # `from_config` eats its argument, which `set_state` needs below.
            space = keras_tuner.HyperParameters.from_config(copy.deepcopy(state["hyperparameters"]))
            self._load_trials(state["start_order"], space)
            ongoing = state["ongoing_trials"].items()
            state["ongoing_trials"] = {tuner_id: key for tuner_id, key in ongoing if key in self.trials}
            self.set_state(state)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read as the state of a {kind} ({error}): take another folder, or overwrite this one."
            ) from error
        memory.reading = True
        try:
            self._settle()
        finally:
            memory.reading = memory.dirty = memory.changed = False
            memory.unsaved.clear()
        # A plain tuner's own file, which it reads next, was not written beside: half of one is none.
        path = os.path.join(self._project_dir, os.environ.get("KERASTUNER_TUNER_ID", "tuner0") + ".json")
        if os.path.exists(path) and read_json(path) is None:
            write_json(path, {})

    def _load_trials(self, start_order, space):
        """Fill `trials` in their order; those whose file is lost count as failed.

        Without them the next trial's id, which is their number, would be one that is taken.
        """
        self.trials, self._kresnets.lost = {}, set()
        for trial_id in start_order:
            state = read_json(os.path.join(self._project_dir, f"trial_{trial_id}", "trial.json"))
            if state is None:
                self._kresnets.lost.add(trial_id)
                blank = space.copy()
                blank.values = {}
                trial = Trial(blank, trial_id=trial_id, status=TrialStatus.FAILED)
                trial.message = "Lost: the trial.json of this trial is missing or broken."
            else:
                trial = Trial.from_state(state)
            self.trials[trial_id] = trial

    def _settle(self):
        """Bring the trials, each as its own file says, and the oracle's lists of them into line."""
        memory, ended, lost = self._kresnets, set(self.end_order), self._kresnets.lost
        ongoing, self.ongoing_trials, verbose, self.verbose = self.ongoing_trials, {}, self.verbose, 0
        queue = dict.fromkeys(key for key in self._retry_queue if key in self.trials and key not in ended | lost)
        if is_chief():  # its workers live on, and have a deadline from now on
            for tuner_id, trial in ongoing.items():
                if WORKER_MARK in tuner_id and trial.trial_id not in ended | lost | set(queue):
                    self.ongoing_trials[tuner_id] = trial
                    self.tuner_ids.add(tuner_id)
        running = {trial.trial_id for trial in self.ongoing_trials.values()}
        self._retry_queue = list(queue)
        for trial_id, trial in list(self.trials.items()):
            if trial_id in ended:
                continue
            if trial_id in lost:
                self.end_order.append(trial_id)
                self._tried_so_far.discard(self._id_to_hash.pop(trial_id, None))
            elif trial.status in (TrialStatus.COMPLETED, TrialStatus.FAILED):
                self._finish(trial)
            elif trial_id not in queue and trial_id not in running:
                self._retry_queue.append(trial_id)
        memory.put_back = {key for key in self._retry_queue if self.trials[key].status == TrialStatus.RUNNING}
        self.verbose = verbose

    # What oracle.json holds more.

    def get_state(self):
        memory = self._kresnets
        more = {
            "oracle": type(self).__name__,
            "handed": memory.handed,
            "stopped_because": memory.stopped_because,
            "finished": memory.finished,
        }
        if isinstance(getattr(self, "_random_state", None), np.random.RandomState):
            name, key, *rest = self._random_state.get_state()
            more["random_state"] = [name, key.tolist(), *rest]
        if isinstance(self, keras_tuner.oracles.GridSearchOracle):
            more |= {"order": _in_order(self._ordered_ids), "populate_next": self._populate_next}
        return super().get_state() | {KEY: more}

    def set_state(self, state):
        given = {name: getattr(self, name) for name in (*_FREE, *_BOUND) if hasattr(self, name)}
        super().set_state(state)
        memory, more = self._kresnets, state.get(KEY, {})
        memory.differs = None
        for name, value in given.items():
            begun_with = getattr(self, name)
            setattr(self, name, value if name in _FREE else begun_with)
            if name in _BOUND and value != begun_with:
                memory.differs = (
                    f"The search in {self._project_dir} was begun with {name}={begun_with}, not {value}, which its "
                    "brackets depend on: give that, or take another folder."
                )
        if hasattr(self, "_make_gpr"):
            self.gpr = self._make_gpr()  # of which alpha and the seed are part
        memory.handed = dict(more.get("handed", {}))
        memory.stopped_because, memory.finished = more.get("stopped_because"), more.get("finished", False)
        memory.count_from = len(self.end_order)
        if more.get("random_state"):
            name, key, *rest = more["random_state"]
            self._random_state.set_state((name, np.array(key, "uint32"), *rest))
        if isinstance(self, keras_tuner.oracles.GridSearchOracle):
            self._restore_grid(more)

    def _restore_grid(self, more):
        """Restore where a grid search is; for a folder of plain Keras Tuner's, from the values of its trials."""
        values = {key: trial.hyperparameters.values for key, trial in self.trials.items() if not is_default(trial)}
        usable = [key for key in values if key not in self._kresnets.lost]
        order, following = more.get("order"), more.get("populate_next")
        if order is None or set(order) != set(usable):
            order = sorted(usable, key=functools.cmp_to_key(lambda a, b: self._compare(values[a], values[b])))
            following = usable
        self._ordered_ids, self._populate_next = type(self._ordered_ids)(), list(following)
        for trial_id in order:
            self._ordered_ids.insert(trial_id)


def _in_order(linked):
    """Return what Keras Tuner's linked list holds, in order: it begins with what was first put in."""
    order = linked._memory[:1]
    while order and (following := linked.next(order[-1])) is not None:
        order.append(following)
    return order
