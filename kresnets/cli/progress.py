"""The progress of a fine-tuning as lines a person reads: stage, epoch, what trains, time left."""

import math
import sys
import time

import keras


class ProgressLines(keras.callbacks.Callback):
    """Print a line for each stage and one of 80 characters at most for each epoch, and on a terminal the batch too.

    Args:
        stages: the groups or blocks from which on layers learn, one after the other.
        epochs: number of epochs in all, the most where stages wait for a plateau.
    """

    def __init__(self, stages, epochs):
        super().__init__()
        self._stages, self._epochs = list(stages), epochs
        self._terminal = sys.stdout.isatty()
        self._shown, self._stage = 0.0, None

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        self._where = f"epoch {epoch + 1}/{self._epochs}"
        trained = self.model.trainable_variables  # which tell the stage, also where a plateau decides on it
        begun = [i for i, name in enumerate(self._stages) if any(v.path.startswith(f"{name}_") for v in trained)]
        if self._stage is None:
            print("Numbers are of training / validation.")
        stage = max(begun, default=0)  # a head of one's own may have any name
        if stage != self._stage:
            self._stage = stage
            name, count = self._stages[self._stage], sum(math.prod(v.shape) for v in trained)
            what = "the head trains" if name == "head" else f"{name} and above train"
            print(
                f"Stage {self._stage + 1} of {len(self._stages)}: {what} ({count / 1e6:.2f} M parameters).", flush=True
            )

    def on_train_batch_begin(self, batch, logs=None):
        now = time.perf_counter()
        if self._terminal and now - self._shown > 1:
            self._shown = now
            steps = self.params.get("steps")
            done = f"batch {batch + 1}" + (f" of {steps}" if steps else "")
            print(f"\r{self._where}: {done}, {now - self._began:.0f} s", end="\033[K", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        took, logs = time.perf_counter() - self._began, logs or {}
        numbers = [
            f"{name} {logs[name]:.3f}" + (f" / {logs[f'val_{name}']:.3f}" if f"val_{name}" in logs else "")
            for name in ("loss", "accuracy", "mae", "auc", "f1", "mAP")
            if name in logs
        ]
        times = f"{took:.{int(took < 10)}f} s, {_clock(took * (self._epochs - epoch - 1))} left"
        start, end = ("\r", "\033[K\n") if self._terminal else ("", "\n")
        print(f"{start}{self._where}: {', '.join((*numbers, times))}", end=end, flush=True)


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
