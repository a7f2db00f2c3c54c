"""One training of a trial."""

import dataclasses
import math
import time

import keras

from kresnets.callbacks import Progress
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.tuning.prune import best_so_far

_NO_METRICS = {"epoch", "stage", "seconds"}  # of a row of a history


class Training(keras.callbacks.Callback):
    """Follow one training of a trial: begin it where another one got to, note it, keep its best weights, end it.

    Args:
        objective: Keras Tuner's.
        recipe: the `Recipe`.
        names: the groups of the network.
        pruning: the `Pruning` that may give it up, or None.
        shared: the `SharedStages` of this training.
        budget: epoch before which Hyperband ends it, or None.

    Attributes:
        initial_epoch, epochs: the epoch to begin with, and that before which it ends.
        rows: the history, a dict an epoch.
        best: `(epoch, its weights)` of the epoch that the recipe keeps.
        pruned: why it was given up, or None.
    """

    def __init__(self, objective, recipe, names, pruning, shared, budget):
        super().__init__()
        self._objective, self._pruning, self._shared = objective, pruning, shared
        self._stages = [(end, origin["stages"][-1][0]) for end, origin in shared.ends.items()]
        self._keeps_last = recipe.keep == "last"
        self.epochs = min(self._stages[-1][0], budget or math.inf)
        self._state, self.rows, self.best = shared.found(self.epochs) or (None, [], (None, {}))
        self.pruned, self.initial_epoch = None, len(self.rows)
        self._lowest = best_so_far(self.rows, objective)[-1] if self.rows else None
        self._progress = Progress.replay(dataclasses.replace(recipe.staging(names), undo=True), self.rows)

    @property
    def best_value(self):
        """The objective in the epoch that the recipe keeps."""
        return self._objective.get_value(self.rows[self.best[0]])

    def result(self, with_rows):
        """Return what the trial needs to know, as JSON can say it.

        Args:
            with_rows: whether with the history as rows.

        Returns:
            Dict of `best_value`; `kept`, the metrics of the epoch that the recipe keeps; `history`, metric -> values,
            as a Keras `History` has them; `rows`; `pruned`; `trained`, the epochs that it trained itself; `whole`,
            whether it trained to the recipe's end.
        """
        # What only some epochs have (rates of groups that are unfrozen later) would stand beside others' epochs.
        names = set.intersection(*map(set, self.rows)) - _NO_METRICS
        kept = self.rows[self.best[0]]
        rows = [kept] if self._keeps_last else self.rows  # Keras Tuner takes the best epoch
        return {
            "best_value": self.best_value,
            "kept": {name: value for name, value in kept.items() if name not in _NO_METRICS},
            "history": {name: [row[name] for row in rows] for name in self.rows[-1] if name in names},
            "rows": self.rows if with_rows else [],
            "pruned": self.pruned,
            "trained": len(self.rows) - self.initial_epoch,
            "whole": self.epochs == self._stages[-1][0],
        }

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()
        if self._state is not None:  # by now the optimizer is built on what this epoch trains
            optimizer_hooks.put_back(self.model, self._state, clock_too=True)
            self._state = None

    def on_epoch_end(self, epoch, logs=None):
        stage = next(group for end, group in self._stages if epoch < end)
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if not self._objective.has_value(metrics):
            raise ValueError(
                f"The objective {self._objective.name!r} is none of what is measured: {', '.join(metrics)}."
            )
        seconds = round(time.perf_counter() - self._began, 3)
        self.rows.append({"epoch": epoch, "stage": stage, "seconds": seconds, **metrics})
        value, better_than = self._objective.get_value(metrics), self._objective.better_than
        if self._lowest is None or better_than(value, self._lowest):
            self._lowest = value
        self._progress = self._progress.after(self.rows[-1])
        ends, last = self._progress.finished or self._progress.starts[-1] == epoch + 1, epoch + 1 >= self.epochs
        if self._pruning and not last:
            self.pruned = self._pruning.verdict(self._lowest, epoch + 1)
        if self._keeps_last:
            kept = (ends or last or self.pruned) and not (ends and self._progress.undoes)
        else:
            kept = self.best[0] is not None and better_than(value, self.best_value)
        if kept or self.best[0] is None:
            self.best = (epoch, self._shared.weights(stage))
        if not self._progress.undone:  # else the next stage begins otherwise than this one has ended
            self._shared.leave(epoch + 1, self.epochs, stage, self.rows, self.best)
        if last or self.pruned:
            self.model.stop_training = True
