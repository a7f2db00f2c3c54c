"""Tiny networks and data for tests of behaviour."""

import dataclasses

import keras
import numpy as np

import kresnets

TINY = dataclasses.replace(
    kresnets.SPECS["CifarResNet20"], name="Tiny", depths=(1, 2, 1), widths=(4, 6, 8), min_size=4, params=None
)


def tiny(seed=0, classes=3, size=12, **knobs):
    """Build a network of 4 blocks; the same seed gives the same weights."""
    keras.utils.set_random_seed(seed)
    return kresnets.build(dataclasses.replace(TINY, **knobs), input_shape=(size, size, 3), classes=classes)


def data(count=24, classes=3, size=12, seed=0):
    """Make learnable data: noise with a brightness for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.normal(size=(count, size, size, 3)) + labels[:, None, None, None]
    return images.astype("float32"), labels


def weights(model):
    """Return path -> array of every weight, moving statistics included."""
    return {v.path: np.array(v.numpy()) for v in model.weights}


def unchanged_groups(model, before, trainable_only=False):
    """Return the groups of which no weight changed by a bit."""
    after = weights(model)
    return [
        name
        for name, layers in kresnets.groups(model).items()
        if all(
            np.array_equal(before[v.path], after[v.path])
            for layer in layers
            for v in (layer.trainable_weights if trainable_only else layer.weights)
        )
    ]


def photographs(count=40, classes=3, size=12, seed=0):
    """Make images 0..255 with labels 0..classes-1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.normal(90 + 40 * labels[:, None, None, None], 30, (count, size, size, 3))
    return np.clip(images, 0, 255).astype("uint8"), labels


SHORT = kresnets.Recipe.textbook(
    head_epochs=1, epochs_per_stage=1, learning_rate=0.01, trunk_learning_rate=0.01, augment="none"
)


class Stop(Exception):
    """What `StopAfter` ends a training by."""


class StopAfter(keras.callbacks.Callback):
    """End a training after so many batches, as a kill would."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left < 0:
            raise Stop
