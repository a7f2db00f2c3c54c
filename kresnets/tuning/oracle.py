"""Keras Tuner's oracles, with what Keras Tuner gets wrong mended in this one place.

All of it fails in Keras Tuner 1.4.8, the newest one: tests/tuning/test_keras_tuner_hooks.py shows each fault. Numbers
are issues of https://github.com/keras-team/keras-tuner. What is mended, for any oracle:

- A kill at any moment (#987, #835, #439): files are written beside and renamed, and a call of the oracle is a
  transaction. `trial.json` is written first, then `oracle.json`: that renaming is the moment from which the call has
  happened. A new trial that `oracle.json` does not know was never handed out and is forgotten (the oracle's own state,
  be it Hyperband's brackets or a seed, is the one before it, so that it comes again); a trial that ended without
  `oracle.json` knowing ends again at the reload, from its own file.
- A search begun under another tuner's name, or killed within its first trial, began anew and wrote over the old one
  (#976): any state in the folder is read before the first write.
- GridSearch forgot where it was (#1055), which its trials tell; BayesianOptimization its random numbers; a retried
  trial kept the results of the run that failed; an id came twice where a trial's folder had been deleted.
- An exception left the oracle locked for ever; three failures of any kinds in a row raised in the middle of
  `end_trial` (#764, #927); now failures of one kind in a row end the search with a sentence.
- RandomSearch and Hyperband gave up a small space after 20 collisions, before all of it was tried (#596).
- What the command says of an oracle (`beta`, `hyperband_iterations`) was overridden by what the search was begun with
  (#803, #234): now it holds from the next trial on, or is refused where it cannot.
- Lost trials with many machines (#915, #596): see `kresnets.tuning.chief`.
"""

import logging
import math
import time

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from kresnets._util.checks import is_whole
from kresnets._util.files import read_json
from kresnets.tuning import keras_tuner_hooks as hooks
from kresnets.tuning.oracle_storage import (
    DEFAULT,
    WORKER_MARK,
    Memory,
    OracleStorage,
    is_chief,
    is_default,
    overridden,
    whole,
)

_log = logging.getLogger(__name__)


def sound(oracle, failures=3, deadline=60.0, kills=3, seed=None, on_change=None, begins=False):
    """Mend what Keras Tuner gets wrong in an oracle, in place.

    The object stays what it was: its class becomes one that is derived from its own, so that what a user's oracle
    overrides still holds, save for `reload` (an oracle's state belongs into `get_state` and `set_state`). What it
    writes stays readable for plain Keras Tuner. Its folder has to be on a file system that renames (not `gs://`).

    Args:
        oracle: instance of any `keras_tuner.Oracle`.
        failures: int >= 1; so many failed trials in a row of the same kind stop the search: `oracle.stopped_because`
            is then a sentence, and `create_trial` gives trials that are STOPPED. The kind is what stands before the
            first colon of `trial.message` ("NaN: the loss was not a number at epoch 3."), or the name of the
            exception where the message is a traceback. It takes the place of `max_consecutive_failed_trials`.
        deadline: seconds > 0 without a sign of life after which a worker (`kresnets.tuning.chief.Worker`) counts as
            dead and its trial goes to another one.
        kills: int >= 1; a trial under which the process died so many times is recorded as failed, not repeated.
        seed: int >= 0, or None for the oracle's own. Keras Tuner takes its own argument 0 for "none given".
        on_change: None, or a function of the oracle, called after each trial that ended, when all is written and the
            oracle is not locked. What it raises is logged and hurts nothing.
        begins: whether the first trial of a search is none of the oracle's: it has no values but `"tuner/default"`, so
            that it is what all others are variations of. It counts as one of `max_trials`.

    Returns:
        The same object.

    Raises:
        ValueError: not an oracle, or an argument out of its range.

    Example:
        >>> oracle = sound(keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=10), seed=0)
        >>> isinstance(oracle, keras_tuner.oracles.RandomSearchOracle), oracle.seed
        (True, 0)
    """
    if not isinstance(oracle, keras_tuner.Oracle):
        raise ValueError(f"The oracle was {oracle!r}; it has to be an instance of keras_tuner.Oracle.")
    if not (failures >= 1 and kills >= 1 and deadline > 0):
        raise ValueError(
            f"failures was {failures}, kills {kills}, deadline {deadline}; they have to be at least 1, at least 1 and "
            "above 0."
        )
    if seed is not None and not is_whole(seed, 0):
        raise ValueError(f"seed was {seed!r}; it has to be a whole number of at least 0, or None.")
    if not isinstance(oracle, _Sound):
        kind = type(oracle)
        oracle._kresnets = Memory(overridden(oracle))
        oracle.__class__ = type(kind.__name__, (_Sound, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        oracle.max_consecutive_failed_trials = math.inf  # else Keras Tuner raises before the last one is written
        hooks.try_longer(oracle)
        hooks.quieten()
    memory = oracle._kresnets
    memory.failures, memory.deadline, memory.kills, memory.on_change = failures, deadline, kills, on_change
    memory.begins = begins
    if seed is not None:
        hooks.reseed(oracle, seed)
    return oracle


def kind_of(message):
    """Return the kind of a failure from a trial's message: "KIND: sentence", or a traceback, or None.

    Example:
        >>> kind_of("NaN: the loss was not a number at epoch 3."), kind_of(None)
        ('NaN', 'unknown')
    """
    kind = _last_error(message).partition(":")[0]
    return kind.strip().rpartition(".")[2] or "unknown"


def _last_error(message):
    """Return the line of a message that says what failed: the first one, or in a traceback what follows its frames."""
    lines = (message or "").strip().splitlines() or [""]
    if lines[0].startswith("Traceback"):
        frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
        after = [line for line in lines[frames[-1] :] if not line.startswith(" ")] if frames else []
        return (after or lines[-1:])[0]
    return lines[0]


class _Sound(OracleStorage):
    """Stands before any oracle's own class. Tested against the names of Keras Tuner's that it relies on."""

    @property
    def stopped_because(self):
        """None, or the sentence that says why no more trials are given."""
        return self._kresnets.stopped_because

    # Calls of Keras Tuner's interface.

    @whole
    def create_trial(self, tuner_id):
        self._own()
        memory = self._kresnets
        memory.heard[tuner_id] = time.monotonic()
        self.forget_silent()
        again = tuner_id in self.ongoing_trials
        for trial in [] if again else [self.trials[trial_id] for trial_id in hooks.waiting(self)]:
            if memory.handed.get(trial.trial_id, 0) >= memory.kills:
                trial.status = TrialStatus.FAILED
                trial.message = f"Killed: the process ended while this trial ran, {memory.kills} times: out of memory?"
                self._finish(trial)
        if memory.stopped_because:
            self._leave(tuner_id)
            memory.announced = True
            return Trial(self.get_space(), trial_id=str(len(self.trials)), status=TrialStatus.STOPPED)
        known = set(self.trials)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and is_chief() and self.ongoing_trials:
            # Whoever runs those may die: someone has to be there to repeat them. Keras Tuner lets all others go.
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        if trial.status == TrialStatus.STOPPED:
            memory.announced = True
        if trial.trial_id in known and tuner_id in self.ongoing_trials:
            # Else `BaseTuner` takes the old results for the new ones, or the mean of both (a NaN stays for ever).
            trial.metrics, trial.score, trial.best_step = type(trial.metrics)(), None, 0
            trial.status, trial.message = TrialStatus.RUNNING, None
            self.keep_trial(trial)
        if tuner_id in self.ongoing_trials and not again:
            memory.handed[trial.trial_id] = memory.handed.get(trial.trial_id, 0) + 1
            memory.dirty = True
        return trial

    @whole
    def update_trial(self, trial_id, metrics, step=0):
        self._hear(trial_id)
        trial = self.trials[trial_id]
        # Reported twice, since the chief died over its answer, a value is the mean of twice itself.
        return super().update_trial(trial_id, metrics, step) if self._awaited(trial_id) else trial

    @whole
    def end_trial(self, trial):
        if trial.trial_id not in self.trials:
            raise ValueError(
                f"Trial {trial.trial_id} ended, which is none of this search: its folder {hooks.folder(self)} was "
                "emptied while the trial ran. Start the worker anew."
            )
        # The first result counts: a worker that was thought dead may end a trial that another one repeated.
        if self._awaited(trial.trial_id):
            self._finish(trial)

    def populate_space(self, trial_id):
        if self._kresnets.begins and not self.trials:
            return {"status": TrialStatus.RUNNING, "values": {DEFAULT: True}}
        known, order = self.trials, self.start_order
        # Whoever chooses by the trials so far would not find in that one the values that it looks for.
        self.trials = {key: trial for key, trial in known.items() if not is_default(trial)}
        self.start_order = [key for key in order if key in self.trials]
        try:
            if isinstance(self, keras_tuner.oracles.GridSearchOracle):
                hooks.find_place(self)
            return super().populate_space(trial_id)
        finally:
            self.trials, self.start_order = known, order

    def chose(self, trial):
        return not is_default(trial)

    def get_trial(self, trial_id):
        self._hear(trial_id)
        return super().get_trial(trial_id)

    def score_trial(self, trial):
        try:
            super().score_trial(trial)
        except ValueError as error:  # Keras Tuner's for a metric that was never reported
            trial.score = math.nan  # from which Keras Tuner makes a failure
            trial.message = trial.message or f"NoScore: {error}"

    # What is new.

    @whole
    def give_back(self, trial_id):
        """Put a trial back that was interrupted on purpose (Ctrl-C): it is repeated, and no death is counted."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._leave(tuner_id)
                self._kresnets.handed[trial_id] = self._kresnets.handed.get(trial_id, 1) - 1

    @whole
    def forget_silent(self):
        """Put the trials of workers that gave no sign of life for `deadline` seconds back into the queue."""
        memory, now = self._kresnets, time.monotonic()
        for tuner_id in {*self.tuner_ids, *self.ongoing_trials}:
            if WORKER_MARK in tuner_id and now - memory.heard.setdefault(tuner_id, now) > memory.deadline:
                trial = self._leave(tuner_id)
                what = f": its trial {trial.trial_id} goes to another one" if trial else ""
                _log.warning("Worker %s gave no sign of life for %g s%s.", tuner_id, memory.deadline, what)

    @whole
    def is_over(self):
        """Return whether a chief may leave: nothing runs or waits, and all workers that live know that it is over."""
        waiting = self.ongoing_trials or self.tuner_ids or (hooks.waiting(self) and not self.stopped_because)
        return not waiting and (self._kresnets.announced or self.remaining_trials() == 0)

    @whole
    def finish(self):
        """Write that the search is through, so that workers that come late leave."""
        self._kresnets.finished = self._kresnets.dirty = True

    def call_hook(self):
        """Call the hook `on_change`, if a trial ended since the last call."""
        memory, hook = self._kresnets, self._kresnets.on_change
        changed, memory.changed = memory.changed, False
        if changed and hook is not None:
            try:
                hook(self)
            except Exception:  # a page that cannot be drawn must not cost the search
                _log.exception("The search goes on, but what was to follow trial %s failed.", self.end_order[-1:])

    # How a trial ends.

    def _awaited(self, trial_id):
        """Return whether a trial runs, or waits for another worker since its own is thought dead."""
        running = any(trial.trial_id == trial_id for trial in list(self.ongoing_trials.values()))
        return running or trial_id in hooks.waiting(self) and self.trials[trial_id].status == TrialStatus.RUNNING

    def _finish(self, trial):
        memory, trial_id, queue = self._kresnets, trial.trial_id, hooks.waiting(self)
        queue[:] = [other for other in queue if other != trial_id]
        memory.handed.pop(trial_id, None)
        if trial.status != TrialStatus.COMPLETED and (trial.message or "Traceback").startswith("Traceback"):
            # Keras Tuner's messages between processes have no place for it: whoever ran the trial wrote it down.
            record = read_json(self._trial_path(trial_id, "record.json"))
            trial.message = (record.get("reason") if isinstance(record, dict) else None) or trial.message
        verbose = self.verbose
        if not hooks.was_shown(self, trial_id):
            self.verbose = 0
        super().end_trial(trial)
        self.verbose = verbose
        trial = self.trials[trial_id]
        if trial.score is not None and math.isnan(trial.score):
            trial.score, trial.message = None, trial.message or "NaN: the objective was not a number."
        self._count_failures()
        memory.changed = memory.dirty = True

    def _count_failures(self):
        memory = self._kresnets
        last = [self.trials[trial_id] for trial_id in self.end_order[memory.count_from :][-memory.failures :]]
        kinds = {kind_of(trial.message) if trial.status == TrialStatus.FAILED else None for trial in last}
        if len(last) == memory.failures and len(kinds) == 1 and None not in kinds and not memory.stopped_because:
            message = _last_error(last[-1].message).rstrip(".") or "no reason was given"
            memory.stopped_because = (
                f"The search stopped since {len(last)} trials in a row failed in the same way, the last with "
                f"{message!r}: mend that, then give the same command again."
            )

    # Workers.

    def _hear(self, trial_id):
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._kresnets.heard[tuner_id] = time.monotonic()

    def _leave(self, tuner_id):
        """Forget a worker; put its trial, if it had one, back into the queue and return it."""
        self.tuner_ids.discard(tuner_id)
        self._kresnets.heard.pop(tuner_id, None)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            hooks.waiting(self).append(trial.trial_id)
            self._kresnets.dirty = True
        return trial
