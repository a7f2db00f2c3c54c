"""The progress of a fine-tuning as lines a person reads: stage, epoch, what trains, time left."""

import math
import sys
import time

import keras


class ProgressLines(keras.callbacks.Callback):
    """Print one line an epoch, and on a terminal the batch too.

    Args:
        stages: the groups or blocks from which on layers learn, one after the other.
        epochs: number of epochs in all, the most where stages wait for a plateau.
    """

    def __init__(self, stages, epochs):
        super().__init__()
        self._stages, self._epochs = list(stages), epochs
        self._terminal = sys.stdout.isatty()
        self._shown = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        now = time.perf_counter()
        if self._terminal and now - self._shown > 1:
            self._shown = now
            steps = self.params.get("steps")
            done = f"batch {batch + 1}" + (f" of {steps}" if steps else "")
            print(f"\r{self._where()}: {done}, {now - self._began:.0f} s", end="\033[K", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        took = time.perf_counter() - self._began
        numbers = " ".join(
            f"{name} {logs[name]:.3f}"
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
            if name in (logs or {})
        )
        left = took * (self._epochs - epoch - 1)
        start = "\r" if self._terminal else ""
        end = "\033[K\n" if self._terminal else "\n"
        print(f"{start}{self._where()}: {numbers}; {took:.1f} s, about {_clock(left)} left", end=end, flush=True)

    def _where(self):
        trained = self.model.trainable_variables  # which tell the stage, also where a plateau decides on it
        stage = max(
            i for i, name in enumerate(self._stages, start=1) if any(v.path.startswith(f"{name}_") for v in trained)
        )
        name = self._stages[stage - 1]
        count = sum(math.prod(v.shape) for v in trained)
        what = "the head trains" if name == "head" else f"{name} and above train"
        return (
            f"stage {stage}/{len(self._stages)}, epoch {self._epoch + 1}/{self._epochs}, {what} ({count / 1e6:.2f} M)"
        )


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
