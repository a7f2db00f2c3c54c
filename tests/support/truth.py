"""A built problem whose answer is known: how deep a network must thaw to learn a target.

Pictures hold three of scikit-learn's real digits, one in each channel; the trunk learns to read the one in the first.
It says ten digits in eight numbers. (With four, thawing the stem helped the "late" target as well in 3 of 10 seeds, on
pictures that no choice had seen: the answer was not what it was built to be.) From there on three targets, each of
pictures that the trunk has never seen:

- "same": the same digits again, so that only the new head has to learn.
- "late": two groups of digits, those that a linear model of the eight numbers tells apart worst. Which digit it is the
  trunk sees; only what it makes of that at its end must change.
- "early": the digit to read lies mostly in the second channel, which the trunk has learnt to overlook in its stem; no
  layer after that can bring it back.

A fifth of the training labels is drawn by lot, so that to thaw more than is needed costs something.
"""

import dataclasses
import functools
import itertools

import keras
import numpy as np
import sklearn.datasets

import kresnets

DEPTHS = ("head", "stage2", "stem")  # from the shallowest on
ANSWERS = {"same": "head", "late": "stage2", "early": "stem"}
# 350 pictures tell no smaller differences: the 95 % interval of an accuracy of 93 % is 2.7 points to each side.
TIE = 0.03
ROW = dataclasses.replace(
    kresnets.SPECS["CifarResNet20"], name="Tiny", depths=(1, 1), widths=(16, 8), strides=(1, 2), shortcut="B",
    min_size=8, params=None,
)  # fmt: skip
_APART = np.eye(3, dtype="float32")
_MIXED = np.array([[0.4, 0.6, 0.0], [0.6, 0.0, 0.4], [0.0, 0.4, 0.6]], "float32")


@dataclasses.dataclass
class Target:
    """Hold pairs (images, labels), and a function that builds the pretrained network with a new head."""

    train: tuple
    validation: tuple
    test: tuple
    build: object


class Problem:
    """Hold a trunk and the digits that it has not seen, all drawn by a seed; see `problem`."""

    def __init__(self, seed):
        self._seed, rng = seed, np.random.default_rng(seed)
        digits = sklearn.datasets.load_digits()
        order = rng.permutation(len(digits.target))
        images, labels = (digits.images * (255 / 16)).astype("float32")[order], digits.target[order]
        base, *self._parts = [
            (images[part], labels[part]) for part in map(slice, (0, 800, 1050, 1400), (800, 1050, 1400, None))
        ]
        pictures, names = _paint(rng, *base, copies=3)
        model = _network(10, seed)
        recipe = dataclasses.replace(
            kresnets.Recipe.from_scratch(8, 1e-2, seed=seed), schedule="constant", augment="none"
        )
        kresnets.fine_tune(model, (pictures, names), recipe=recipe, verbose=0)
        self._trunk = {layer.name: layer.get_weights() for layer in model.layers if layer.name != model.layers[-1].name}
        prepare = kresnets.preprocessing_of(model)
        self.base_accuracy = accuracy(model, _paint(rng, *self._parts[2]))
        features = keras.Model(model.input, model.layers[-1].input).predict(
            prepare(pictures.astype("float32")), batch_size=600, verbose=0
        )
        self.groups = _least_linear(features, names)

    def target(self, name):
        """Draw a target."""
        rng = np.random.default_rng((self._seed, *name.encode()))
        mixing = _MIXED if name == "early" else _APART
        parts = [_paint(rng, *part, copies, mixing) for part, copies in zip(self._parts, (2, 1, 4))]
        if name == "late":
            parts = [(images, self.groups[labels]) for images, labels in parts]
        classes = 2 if name == "late" else 10
        images, labels = parts[0]
        wrong = rng.random(len(labels)) < 0.2
        parts[0] = images, np.where(wrong, rng.integers(classes, size=len(labels)), labels)
        return Target(*parts, functools.partial(_network, classes, trunk=self._trunk))


problem = functools.lru_cache(1)(Problem)


def _paint(rng, digits, labels, copies=1, mixing=_APART):
    own = np.tile(digits, (copies, 1, 1))
    others = digits[rng.integers(len(digits), size=(2, len(own)))]
    return (np.stack([own, *others], -1) @ mixing).astype("uint8"), np.tile(labels, copies)


def _network(classes, seed=None, trunk=None):
    if seed is not None:
        keras.utils.set_random_seed(seed)
    model = kresnets.build(ROW, weights=None, classes=classes, input_shape=(8, 8, 3))
    for name, values in (trunk or {}).items():
        model.get_layer(name).set_weights(values)
    return model


def _least_linear(features, labels):
    """Return the group, 0 or 1, of each digit, five to each, that least squares on the features miss most often."""
    splits = [(0, *rest) for rest in itertools.combinations(range(1, 10), 4)]
    groups = np.stack([np.isin(np.arange(10), split) for split in splits])
    inputs, wanted = np.c_[features, np.ones(len(features))], groups[:, labels].T
    found = inputs @ np.linalg.lstsq(inputs, 2.0 * wanted - 1, rcond=None)[0] > 0
    return groups[(found == wanted).mean(0).argmin()].astype(int)


def accuracy(model, data):
    """Return the share of pictures that a model names rightly."""
    images, labels = data
    images = kresnets.preprocessing_of(model)(images.astype("float32"))
    return float((model.predict(images, batch_size=500, verbose=0).argmax(-1) == labels).mean())


def shallowest(scores):
    """Return the depth beyond which nothing is gained: the first whose accuracy is less than `TIE` below the best one.

    A tie is the shallower one's. A deeper trial passes through the shallower ones' stages and has more weights that
    learn, so that it is often better by a little, which the validation's pictures are too few to tell from nothing.
    """
    return next(depth for depth in DEPTHS if scores[depth] > max(scores.values()) - TIE)
