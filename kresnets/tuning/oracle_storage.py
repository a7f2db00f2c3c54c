"""What a sound oracle keeps on disk, and how: each call is a transaction that a kill at any moment leaves whole.

See `kresnets.tuning.oracle` for what is mended, and why.
"""

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
from kresnets.tuning import keras_tuner_hooks as hooks

# The name under which the additions lie in oracle.json, which plain Keras Tuner passes over.
KEY = "kresnets"
# Stands in the name of a worker that gives signs of life (kresnets.tuning.chief): no other one is ever thought dead.
WORKER_MARK = "#"
# A value of the trial that the search begins with, which no oracle has chosen: what all others are variations of.
DEFAULT = "tuner/default"
# Arguments of Keras Tuner's oracles that its state overrides: those that may change between two runs, and the others.
_FREE = ("num_initial_points", "alpha", "beta", "hyperband_iterations")
_BOUND = ("max_epochs", "factor")
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Memory:
    """What a sound oracle keeps beside what Keras Tuner's keeps."""

    given: dict  # what `overridden` returned
    # As `sound` takes them.
    failures: int = 3
    deadline: float = 60.0
    kills: int = 3
    on_change: Callable | None = None
    begins: bool = False
    # In oracle.json: how often each trial was handed out since it last ended, why the search stopped, whether the chief
    # is through.
    handed: dict = dataclasses.field(default_factory=dict)
    stopped_because: str | None = None
    finished: bool = False
    # Of this process alone.
    heard: dict = dataclasses.field(default_factory=dict)  # worker -> when it was last heard, time.monotonic()
    count_from: int = 0  # failures count from this place of end_order on
    announced: bool = False  # some worker knows that the search is over
    changed: bool = False  # a trial ended since the hook was last called
    owner: bool = False  # this process has begun to write
    differs: str | None = None
    depth: int = 0  # of transactions within one another
    unsaved: dict = dataclasses.field(default_factory=dict)
    dirty: bool = False


def overridden(oracle):
    """Return the arguments of an oracle that the state in a folder would override, as it was made with them."""
    state = oracle.get_state()
    return {name: getattr(oracle, name) for name in (*_FREE, *_BOUND) if name in state and hasattr(oracle, name)}


def is_default(trial):
    """Return whether a trial is the one that the search begins with."""
    return DEFAULT in trial.hyperparameters.values


def is_chief():
    """Return whether Keras Tuner's variables make this process the chief of several."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker():
    """Return whether Keras Tuner's variables make this process one that runs trials of a chief."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def state_path(oracle):
    """Return the path of an oracle's own file."""
    return os.path.join(hooks.folder(oracle), "oracle.json")


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
            self.call_hook()
        return result

    return outer


class OracleStorage(hooks.Oracle):
    """The part of a sound oracle that writes, reads, and brings into line what it reads."""

    # Writing.

    @whole
    def save(self):
        self._own()
        self._kresnets.dirty = True

    @whole
    def keep_trial(self, trial):
        self._kresnets.unsaved[trial.trial_id] = trial

    def _trial_path(self, trial_id, name="trial.json"):
        return os.path.join(hooks.folder(self), f"trial_{trial_id}", name)

    def _commit(self):
        memory = self._kresnets
        for trial_id, trial in list(memory.unsaved.items()):
            write_json(self._trial_path(trial_id), trial.get_state())
            del memory.unsaved[trial_id]
        if memory.dirty:
            write_json(state_path(self), self.get_state())
            memory.dirty = False

    def _own(self):
        """Before the first write: read what is in the folder, and take away what a kill left half done."""
        memory = self._kresnets
        if memory.owner:
            return
        if os.path.exists(state_path(self)):
            space = self.hyperparameters
            self.reload()
            self.hyperparameters.merge(space, overwrite=False)
            memory.dirty = True  # what the reading set right
        if memory.differs:
            raise ValueError(memory.differs)
        memory.owner, memory.finished = True, False
        # A search that had stopped tries again: whoever gives the command a second time has mended something.
        memory.stopped_because, memory.count_from = None, len(self.end_order)
        folder = glob.escape(hooks.folder(self))
        for path in (*glob.glob(f"{folder}/.tmp-*"), *glob.glob(f"{folder}/trial_*/.tmp-*")):
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
        memory, path, kind = self._kresnets, state_path(self), type(self).__name__
        state = read_json(path)
        try:
            begun_by = state.get(KEY, {}).get("oracle", kind)
            if begun_by != kind:
                raise ValueError(
                    f"The search in {hooks.folder(self)} was begun with {begun_by}, not with {kind}: take that one, or "
                    "another folder."
                )
            self.trials = {trial_id: self._read_trial(trial_id) for trial_id in state["start_order"]}
            ongoing = state["ongoing_trials"].items()
            state["ongoing_trials"] = {tuner_id: key for tuner_id, key in ongoing if key in self.trials}
            self.set_state(state)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read as the state of a {kind} ({error}): take another folder, or overwrite this one."
            ) from error
        owner, memory.owner = memory.owner, True  # else what ends here would begin to write
        try:
            self._settle()
        finally:
            memory.owner = owner
            memory.dirty = memory.changed = False
            memory.unsaved.clear()
        # A plain tuner's own file, which it reads next, was not written beside: half of one is none.
        path = os.path.join(hooks.folder(self), os.environ.get("KERASTUNER_TUNER_ID", "tuner0") + ".json")
        if os.path.exists(path) and read_json(path) is None:
            write_json(path, {})

    def _read_trial(self, trial_id):
        """Return a trial as its file says; one whose file is lost counts as failed, else its id would come again."""
        state = read_json(self._trial_path(trial_id))
        if state is not None:
            return Trial.from_state(state)
        message = "Lost: the trial.json of this trial is missing or broken."
        return Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED, message)

    def _settle(self):
        """Bring the trials, each as its own file says, and the oracle's lists of them into line."""
        ongoing, self.ongoing_trials, queue = self.ongoing_trials, {}, hooks.waiting(self)
        open_ones = {
            trial_id: trial
            for trial_id, trial in self.trials.items()
            if trial_id not in self.end_order and trial.status not in _ENDED
        }
        queue[:] = dict.fromkeys(trial_id for trial_id in queue if trial_id in open_ones)
        if is_chief():  # its workers live on, and have a deadline from now on
            for tuner_id, trial in ongoing.items():
                if WORKER_MARK in tuner_id and trial.trial_id in open_ones and trial.trial_id not in queue:
                    self.ongoing_trials[tuner_id] = trial
                    self.tuner_ids.add(tuner_id)
        running = {trial.trial_id for trial in self.ongoing_trials.values()}
        queue.extend(trial_id for trial_id in open_ones if trial_id not in queue and trial_id not in running)
        verbose, self.verbose = self.verbose, 0
        for trial_id, trial in list(self.trials.items()):
            if trial_id not in open_ones and trial_id not in self.end_order:
                self._finish(trial)
        self.verbose = verbose

    # What oracle.json holds more.

    def get_state(self):
        memory, numbers = self._kresnets, hooks.random_state(self)
        more = {
            "oracle": type(self).__name__,
            "handed": memory.handed,
            "stopped_because": memory.stopped_because,
            "finished": memory.finished,
        }
        if numbers is not None:
            name, key, *rest = numbers.get_state()
            more["random_state"] = [name, key.tolist(), *rest]
        return super().get_state() | {KEY: more}

    def set_state(self, state):
        memory, more = self._kresnets, state.get(KEY, {})
        super().set_state(state | {name: value for name, value in memory.given.items() if name in _FREE})
        for name, value in memory.given.items():
            if name in _BOUND and value != state[name]:
                memory.differs = (
                    f"The search in {hooks.folder(self)} was begun with {name}={state[name]}, not {value}, which its "
                    "brackets depend on: give that, or take another folder."
                )
        memory.handed = dict(more.get("handed", {}))
        memory.stopped_because, memory.finished = more.get("stopped_because"), more.get("finished", False)
        memory.count_from = len(self.end_order)
        if more.get("random_state"):
            name, key, *rest = more["random_state"]
            hooks.random_state(self).set_state((name, np.array(key, "uint32"), *rest))
