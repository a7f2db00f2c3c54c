"""How the claims teach small networks: one loop, the same for all that are compared."""

import dataclasses
import functools
import math

import keras
import numpy as np
from scipy.special import log_softmax

import kresnets
from claims import pictures


def pictures_of(setting):
    """Return the `pictures.Pictures` of a setting."""
    return pictures.pictures(setting["data"], setting["size"], setting.get("limit"))


@functools.lru_cache(maxsize=8)
def _network(spec, shape, classes):
    """Return a compiled network that is used for every seed and rate: tracing takes longer than some trainings.

    It learns as in arXiv 1512.03385 section 4.2, by SGD with momentum 0.9 and a weight decay of 1e-4, of kernels only.
    There the decay is part of the gradient, which the momentum multiplies by 10; Keras's is not, so it is made as
    large.
    """
    model = kresnets.build(spec, input_shape=shape, classes=classes, classifier_activation=None)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def fresh(spec, data, seed):
    """Return the compiled network of a row, drawn anew: the same object at each call with the same row and data."""
    shape = data.train.shape[1:]
    model = _network(spec, shape, data.classes)
    keras.utils.set_random_seed(seed)
    start = kresnets.build(spec, input_shape=shape, classes=data.classes, classifier_activation=None)
    model.set_weights(start.get_weights())
    for variable in model.optimizer.variables:  # the rate too, which `learn` sets in each step
        variable.assign(np.zeros(variable.shape, variable.dtype))
    return model


@dataclasses.dataclass(frozen=True)
class Cosine:
    """A learning rate that rises to its peak in the first epoch, then falls to 0 as a cosine.

    As a part of a longer one, of `of` epochs, it lies between its shares `begin` and `end`.
    """

    peak: float
    epochs: int
    begin: float = 0.0
    end: float = 1.0
    of: int | None = None
    batch = 64
    augment = False

    def rate(self, epoch):
        """Return the rate at a moment, in epochs since the start, fractions too."""
        whole = self.of or self.epochs
        epoch = min(self.begin + (self.end - self.begin) * epoch / self.epochs, 1.0) * whole
        return self.peak * min(1.0, epoch + 0.1) * 0.5 * (1 + math.cos(math.pi * epoch / whole))


class Paper:
    """CIFAR-10 as in arXiv 1512.03385 section 4.2: 64,000 steps of 128 images, a tenth of the rate from 32,000 and
    48,000 on, images shifted by up to 4 pixels and mirrored."""

    epochs, batch, augment = 164, 128, True

    def rate(self, epoch):
        return 0.1 * 0.1 ** sum(epoch >= boundary for boundary in (82, 123))


def shifted_and_mirrored(images, random):
    """Return a copy of a batch, each image padded by 4 pixels of zeros, cut out anew and mirrored every other time."""
    size, count = images.shape[1], len(images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    drawn = zip(random.integers(0, 9, count), random.integers(0, 9, count), random.integers(0, 2, count))
    pieces = [(one[top : top + size, left : left + size], turn) for one, (top, left, turn) in zip(padded, drawn)]
    return np.stack([piece[:, ::-1] if turn else piece for piece, turn in pieces])


class _Batches(keras.utils.PyDataset):
    def __init__(self, data, batch, seed):
        super().__init__()
        self._data, self._batch, self._random = data, batch, np.random.default_rng(seed)
        self.on_epoch_begin()

    def __len__(self):
        return math.ceil(len(self._order) / self._batch)

    def __getitem__(self, index):
        rows = self._order[index * self._batch : (index + 1) * self._batch]
        return shifted_and_mirrored(self._data.train[rows], self._random), self._data.train_labels[rows]

    def on_epoch_begin(self):
        self._order = self._random.permutation(len(self._data.train))


def learn(model, data, schedule, seed):
    """Train, and judge on both parts at the end.

    Returns a dict an epoch: `epoch`, `loss` and `error` of the images as they came; the last also has `train_loss`,
    `train_error`, `test_loss`, `test_error` in inference. Where the loss is no number any more, training ends and the
    error is that of guessing.
    """
    steps = math.ceil(len(data.train) / schedule.batch)

    def follow(batch, logs):
        model.optimizer.learning_rate = schedule.rate(next(step) / steps)

    step = iter(range(steps * schedule.epochs))
    keras.utils.set_random_seed(seed)
    if schedule.augment:
        given = {"x": _Batches(data, schedule.batch, seed)}
    else:
        given = {"x": data.train, "y": data.train_labels, "batch_size": schedule.batch, "shuffle": True}
    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_begin=follow), keras.callbacks.TerminateOnNaN()]
    history = model.fit(**given, epochs=schedule.epochs, verbose=0, callbacks=callbacks).history
    rows = [
        {"epoch": epoch, "loss": loss, "error": 1 - accuracy}
        for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"]), start=1)
    ]
    rows[-1] |= judged(model, data)
    return rows


def judged(model, data):
    """Return loss and error on both parts, in inference."""
    found = {}
    for part in ("train", "test"):
        images, labels = getattr(data, part), getattr(data, f"{part}_labels")
        scores = model.predict(images, batch_size=256, verbose=0).astype("float64")
        if not np.isfinite(scores).all():
            scores = np.zeros_like(scores)
        losses = -log_softmax(scores, axis=1)[np.arange(len(labels)), labels]
        wrong = scores.argmax(1) != labels if np.ptp(scores) else np.full(len(labels), 1 - 1 / data.classes)
        found |= {f"{part}_loss": float(losses.mean()), f"{part}_error": float(np.mean(wrong))}
    return found
