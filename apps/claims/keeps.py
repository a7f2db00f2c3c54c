"""Which weights a training leaves behind: one run, and all ways to keep them that are compared."""

import keras
import numpy as np

from claims import judging

EVERY = 5  # steps from one moment of a moving average to the next; its momentum is raised to that power
MOMENTA = (0.98, 0.99)
MIXES = (0.5, 0.75)
TAIL = 1 / 3
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
        self._tail_from = epochs - max(1, round(TAIL * (epochs - begins)))
        self._kept, self._averages, self._tail, self._steps = {}, {}, None, 0
        self._best, self.epochs_kept = np.inf, {}

    def _weights(self):
        return [np.array(variable.numpy(), "float32") for variable in self._whole.weights]

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._begins:
            self._kept["start"] = self._weights()
            self._averages = {momentum: self._weights() for momentum in MOMENTA}

    def on_train_batch_end(self, batch, logs=None):
        self._steps += bool(self._averages)
        if self._averages and self._steps % EVERY == 0:
            for place, variable in enumerate(self._whole.weights):
                now = np.asarray(variable.numpy(), "float32")
                for momentum, average in self._averages.items():
                    average[place] += (1 - momentum**EVERY) * (now - average[place])

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("val_loss", np.inf)
        better, ends, late = loss < self._best, epoch == self._epochs - 1, epoch >= self._tail_from
        now = self._weights() if better or ends or late else None
        if better:
            self._best, self._kept["best loss"], self.epochs_kept["best loss"] = loss, now, epoch + 1
        if late:
            self._tail = [total + one for total, one in zip(self._tail, now)] if self._tail else now
        if ends:
            self._kept["last"] = now

    def weights(self):
        """Return dict of the names in `ALL` -> list of arrays, without those that there are none of."""
        found = dict(self._kept)
        if "last" in found and "start" in found:
            found |= {f"average {momentum}": average for momentum, average in self._averages.items()}
            found["tail"] = [total / (self._epochs - self._tail_from) for total in self._tail]
            both = list(zip(found["last"], found["start"]))
            found |= {f"mix {share}": [share * one + (1 - share) * other for one, other in both] for share in MIXES}
        return {name: found[name] for name in ALL if name in found}


def set_momentum(model, momentum):
    """Say how slowly a network's norms forget."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def rows(model, record, pictures, names):
    """Judge a network with each of the kept weights that are named, of `ALL`.

    Returns dicts of `keep`, what `judging.measured` gives, `validation_loss`, `validation_accuracy`, and `epoch` where
    one was chosen.
    """
    validation, test = (judging.prepared(model, images) for images in (pictures.validation, pictures.test))
    ask, found = judging.asker(model), []
    for name, weights in record.weights().items():
        if name in names:
            model.set_weights(weights)
            scores = judging.outputs(ask, validation)
            chances = np.clip(np.nan_to_num(scores), 1e-7, 1)[np.arange(len(scores)), pictures.validation_labels]
            row = {"keep": name} | judging.measured(judging.outputs(ask, test), pictures.test_labels)
            row["validation_loss"] = float(-np.log(chances).mean())
            row["validation_accuracy"] = float(np.mean(scores.argmax(1) == pictures.validation_labels))
            found.append(row | {"epoch": record.epochs_kept[name]} if name in record.epochs_kept else row)
    return found
