"""The progress of a fine-tuning as lines a person reads: stage, epoch, what trains, time left."""

import math
import sys
import time

import keras

from kresnets.analysis.summary import summarize


class ProgressLines(keras.callbacks.Callback):
    """Print a line for each stage and one of 80 characters at most for each epoch, and on a terminal the batch too.

    The time left is that of the epochs to come at what the latest one took, without what it traced, by what each stage
    costs: a later one that trains more layers takes longer.

    Args:
        plan: the `kresnets.Plan` of the training.
        cached: whether what frozen layers give is kept.
    """

    def __init__(self, plan, cached=False):
        super().__init__()
        self._plan, self._cached = plan, cached
        self._stages, self._epochs = [stage.group for stage in plan.stages], plan.epochs
        self._terminal = sys.stdout.isatty()
        self._shown, self._stage = 0.0, None
        self._traced = 0.0  # seconds of the first steps of a stage, above those of others

    def on_train_begin(self, logs=None):
        self._costs = costs(self.model, self._plan, self._cached)

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._firsts, self._steps = time.perf_counter(), [], []
        self._where = f"epoch {epoch + 1}/{self._epochs}"
        trained = self.model.trainable_variables  # which tell the stage, also where a plateau decides on it
        begun = [i for i, name in enumerate(self._stages) if any(v.path.startswith(f"{name}_") for v in trained)]
        if self._stage is None:
            units = " The loss is in units of each number's spread, mae in its own." * (
                self._plan.facts.task == "numbers"
            )
            print(f"Numbers are of training / validation.{units}")
        stage = max(begun, default=0)  # a head of one's own may have any name
        self._begins = stage != self._stage
        if self._begins:
            self._stage = stage
            name, count = self._stages[self._stage], sum(math.prod(v.shape) for v in trained)
            what = "the head trains" if name == "head" else f"{name} and above train"
            print(
                f"Stage {self._stage + 1} of {len(self._stages)}: {what} ({count / 1e6:.2f} M parameters).", flush=True
            )

    def on_train_batch_begin(self, batch, logs=None):
        now = self._step_began = time.perf_counter()
        if self._terminal and now - self._shown > 1:
            self._shown = now
            steps = self.params.get("steps")
            done = f"batch {batch + 1}" + (f" of {steps}" if steps else "")
            print(f"\r{self._where}: {done}, {now - self._began:.0f} s", end="\033[K", flush=True)

    def on_test_batch_begin(self, batch, logs=None):
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        took = time.perf_counter() - self._step_began
        (self._steps if batch else self._firsts).append(took)

    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch, logs=None):
        took, logs = time.perf_counter() - self._began, logs or {}
        numbers = [
            f"{name} {logs[name]:.3f}" + (f" / {logs[f'val_{name}']:.3f}" if f"val_{name}" in logs else "")
            for name in ("loss", "accuracy", "mae", "auc", "f1", "mAP")
            if name in logs
        ]
        times = f"{took:.{int(took < 10)}f} s, {_clock(self._left(epoch, took))} left"
        start, end = ("\r", "\033[K\n") if self._terminal else ("", "\n")
        print(f"{start}{self._where}: {', '.join((*numbers, times))}", end=end, flush=True)

    def _left(self, epoch, took):
        """Return the seconds that the epochs after this one will take."""
        if self._begins:
            usual = (
                sorted(self._steps)[len(self._steps) // 2] if self._steps else math.inf
            )  # of one step nothing is known
            self._traced = max(0.0, sum(self._firsts) - usual * len(self._firsts))
            took = max(took - self._traced, 0.0)
        now, left = self._costs[self._stage], 0.0
        for number, stage in enumerate(self._plan.stages[self._stage :], self._stage):
            epochs = max(0, stage.first_epoch + stage.epochs - max(stage.first_epoch, epoch + 1))
            left += epochs * took * self._costs[number] / now + (self._traced if number > self._stage else 0.0)
        return left


def costs(model, plan, cached=False):
    """Return what an epoch of each stage of a plan costs, in proportion: multiply-adds forwards, and twice those of the
    layers that learn backwards.

    Args:
        model: the model that is trained.
        plan: its `kresnets.Plan`.
        cached: whether what frozen layers give is kept, and not computed in each epoch.
    """
    found = {row.name: row.multiply_adds for row in summarize(model).rows}
    told = []
    for stage in plan.stages:
        trained = sum(found.get(group, 0) for group, rate in stage.rates.items() if rate)
        told.append((trained if cached else sum(found.values())) + 2 * trained)
    return told if all(told) else [1] * len(told)  # of layers that multiply in a way that is not known


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
