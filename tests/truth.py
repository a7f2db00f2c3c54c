"""A built problem whose answer is known: how deep a network must thaw to learn a target."""

import dataclasses

import keras
import numpy as np
import sklearn.datasets

import kresnets

ROW = dataclasses.replace(
    kresnets.SPECS["CifarResNet20"], name="Tiny", depths=(1, 1, 1), widths=(8, 12, 4), shortcut="B", min_size=8, params=None
)
CLASSES = 10


def split(rng, digits, labels, counts):
    order = rng.permutation(len(labels))
    parts, start = [], 0
    for c in counts:
        parts.append((digits[order[start:start + c]], labels[order[start:start + c]])); start += c
    return parts


def paint(rng, digits, labels, copies=1, channel=0):
    n = len(labels) * copies
    own = np.tile(digits, (copies, 1, 1))
    layers = [digits[rng.integers(len(digits), size=n)] for _ in range(3)]
    layers[channel] = own
    x = np.stack(layers, -1)
    x = x.repeat(2, 1).repeat(2, 2)
    return x, np.tile(labels, copies)


def network(trunk=None, classes=CLASSES, seed=0, row=ROW):
    keras.utils.set_random_seed(seed)
    model = kresnets.build(row, weights=None, classes=classes, input_shape=(16, 16, 3))
    if trunk is not None:
        for layer in model.layers:
            if layer.weights and not layer.name.startswith("head"):
                layer.set_weights(trunk[layer.name])
    return model
