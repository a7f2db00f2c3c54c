"""Which weights a training leaves behind: one run, and all ways to keep them that are compared."""

import keras
import numpy as np

from claims import scores

EVERY = 5  # steps from one moment of a moving average to the next; its momentum is raised to that power
MOMENTA = (0.98, 0.99)
MIXES = (0.5, 0.75)
PLAIN = ("last", "best loss")
ALL = ("start", "last", "best loss", *(f"average {m}" for m in MOMENTA), "tail", *(f"mix {share}" for share in MIXES))


class Record(keras.callbacks.Callback):
    """Keep, in memory, the weights of all of `ALL` while a network trains.

    `start` is where the trunk began to learn, after the head; `last` the end; `best loss` the epoch that validated
    best; `average m` a moving average of that momentum a step, from the start on; `tail` the mean over the ends of
    the last third of the epochs; `mix a` `a` of the last and the rest of the start (arXiv 2109.01903).

    The model is the whole network, also where the fit that calls this is of a part of it; the trunk begins to learn in
    the epoch `begins`, from 0, of `epochs` in all.
    """

    def __init__(self, model, begins, epochs):
        super().__init__()
        self._whole, self._begins, self._epochs = model, begins, epochs
        self._tail_from = epochs - max(1, round((epochs - begins) / 3))
        self._kept, self._averages, self._tail, self._steps = {}, {}, 0.0, 0
        self._best, self.epochs_kept = np.inf, {}

    def _now(self):
        """Return all weights as one vector."""
        return np.concatenate([np.ravel(variable.numpy()).astype("float32") for variable in self._whole.weights])

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._begins:
            self._kept["start"] = self._now()
            self._averages = {momentum: self._kept["start"].copy() for momentum in MOMENTA}

    def on_train_batch_end(self, batch, logs=None):
        self._steps += bool(self._averages)
        if self._averages and self._steps % EVERY == 0:
            now = self._now()
            for momentum, average in self._averages.items():
                average += (1 - momentum**EVERY) * (now - average)

    def on_epoch_end(self, epoch, logs=None):
        loss, now = (logs or {}).get("val_loss", np.inf), self._now()
        if loss < self._best:
            self._best, self._kept["best loss"], self.epochs_kept["best loss"] = loss, now, epoch + 1
        if epoch >= self._tail_from:
            self._tail = self._tail + now
        if epoch == self._epochs - 1:
            self._kept["last"] = now

    def weights(self):
        """Return dict of the names in `ALL` -> list of arrays, without those that there are none of."""
        found = dict(self._kept)
        if "last" in found and "start" in found:
            found |= {f"average {momentum}": average for momentum, average in self._averages.items()}
            found["tail"] = self._tail / (self._epochs - self._tail_from)
            found |= {f"mix {share}": share * found["last"] + (1 - share) * found["start"] for share in MIXES}
        shapes = [variable.shape for variable in self._whole.weights]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parts = {name: np.split(found[name], ends) for name in ALL if name in found}
        return {name: [part.reshape(shape) for part, shape in zip(each, shapes)] for name, each in parts.items()}

    def rows(self, pictures, names):
        """Judge the network with each of the kept weights that are named, of `ALL`.

        Returns dicts of `keep`, what `scores.measured` gives, `validation_loss`, `validation_accuracy`, and `epoch`
        where one was chosen.
        """
        model, found = self._whole, []
        validation, test = (scores.prepared(model, images) for images in (pictures.validation, pictures.test))
        ask, labels = scores.asker(model), pictures.validation_labels
        for name, weights in self.weights().items():
            if name in names:
                model.set_weights(weights)
                answers = scores.outputs(ask, validation)
                chances = np.clip(np.nan_to_num(answers), 1e-7, 1)[np.arange(len(answers)), labels]
                row = {"keep": name} | scores.measured(scores.outputs(ask, test), pictures.test_labels)
                row["validation_loss"] = float(-np.log(chances).mean())
                row["validation_accuracy"] = float(np.mean(answers.argmax(1) == labels))
                found.append(row | {"epoch": self.epochs_kept[name]} if name in self.epochs_kept else row)
        return found


def set_momentum(model, momentum):
    """Say how slowly a network's norms forget."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
