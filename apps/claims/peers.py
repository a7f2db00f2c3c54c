"""What a default recipe is compared with: heads solved on features, and the rules of Keras's guide, fastai and BiT.

Each rule is run as its authors wrote it down, on the same images in the same augmentation; what could not be kept is
said beside it.
"""

import math
from typing import NamedTuple

import keras
import numpy as np

from claims import cells, judging, keeps
from kresnets.groups import groups
from kresnets.keras_hooks.optimizer import scale_updates
from kresnets.preprocess import resolve
from kresnets.transfer.head import regression
from kresnets.transfer.inputs import Batches, EpochSeeds, Preparation
from kresnets.transfer.labels import Labels


def solved_head(model, images, labels):
    """Give a network's head the logistic regression on the features of these images; return its chosen strength."""
    ask = judging.asker(keras.Model(model.input, model.get_layer("head_dense").input))
    features = judging.outputs(ask, judging.prepared(model, images))
    kernel, bias, strength = regression(features, labels, model.output_shape[-1])
    model.get_layer("head_dense").set_weights([np.float32(kernel), np.float32(bias)])
    return strength


def regressed(model, setting, pictures):
    """Measure logistic regression on the trunk's features, with `all` on those of the validation images too."""
    images, labels = pictures.train, pictures.train_labels
    if setting["images"] == "all":
        images = np.concatenate([images, pictures.validation])
        labels = np.concatenate([labels, pictures.validation_labels])
    strength = solved_head(model, images, labels)
    told = {"keep": "last", "strength": strength}
    return [told | cells.judged(model, pictures.test, pictures.test_labels)]


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """fastai's one cycle: a cosine up from `peak / div` in a share of the steps, then one down to `peak / 1e5`."""

    def __init__(self, peak, steps, rising, div):
        self.peak, self.steps, self.rising, self.div = peak, steps, rising, div

    def __call__(self, step):
        place = keras.ops.cast(step, "float32") / max(self.steps - 1, 1)
        up = keras.ops.clip(place / self.rising, 0.0, 1.0)
        down = keras.ops.clip((place - self.rising) / (1 - self.rising), 0.0, 1.0)
        low, end = self.peak / self.div, self.peak / 1e5
        risen = low + (self.peak - low) * (1 - keras.ops.cos(math.pi * up)) / 2
        fallen = end + (self.peak - end) * (1 + keras.ops.cos(math.pi * down)) / 2
        return keras.ops.where(place < self.rising, risen, fallen)


class Drops(keras.optimizers.schedules.LearningRateSchedule):
    """BiT-HyperRule: a linear rise in the first fifth of the steps, a tenth of the rate from each further one on."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        fifth = self.steps / 5
        passed = keras.ops.floor(step / fifth)
        fallen = self.peak * keras.ops.power(0.1, keras.ops.maximum(passed - 1.0, 0.0))
        return keras.ops.where(step < fifth, self.peak * step / fifth, fallen)


class Phase(NamedTuple):
    """One `compile` and `fit` of a rule: optimizer, epochs, what learns (`"head"`, `"head and norms"`,
    `"all but norms"`, `"all"`; norms that learn take a batch's statistics), dict group -> share of the rate."""

    optimizer: keras.optimizers.Optimizer
    epochs: int
    learns: str
    shares: dict = {}


def guide(setting, steps):
    """Keras's guide to transfer learning: the head, then everything but the norms at a very small rate."""
    return [
        Phase(keras.optimizers.Adam(setting["head_rate"]), setting["head_epochs"], "head"),
        Phase(keras.optimizers.Adam(setting["rate"]), setting["epochs"], "all but norms"),
    ]


def fastai(setting, steps):
    """fastai's `fine_tune`: an epoch of head and norms, then all in one cycle, the earlier half at a hundredth.

    The head is one layer where fastai's has two, and momentum stays where fastai's falls and rises.
    """
    options = {"weight_decay": 0.01, "beta_2": 0.99, "epsilon": 1e-5}
    rate, early, late = setting["rate"], ("stem", "stage1", "stage2"), ("stage3", "stage4")
    first = OneCycle(rate, steps * setting["head_epochs"], 0.99, 25)
    then = OneCycle(rate / 2, steps * setting["epochs"], 0.3, 5)
    shares = dict.fromkeys(early, 0.01) | dict.fromkeys(late, 0.1)
    one, two = keras.optimizers.AdamW(first, **options), keras.optimizers.AdamW(then, **options)
    for optimizer in (one, two):
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return [
        Phase(one, setting["head_epochs"], "head and norms", dict.fromkeys(early + late, 0.1)),
        Phase(two, setting["epochs"], "all", shares),
    ]


def bit(setting, steps):
    """BiT-HyperRule: SGD with momentum on all weights, rate and number of steps told by the number of images.

    BiT's nets have no statistics of batches, so these norms keep those that they have.
    """
    rate = Drops(setting["rate"], steps * setting["epochs"])
    return [Phase(keras.optimizers.SGD(rate, momentum=0.9), setting["epochs"], "all but norms")]


RULES = {"guide": guide, "fastai": fastai, "bit": bit}


def ruled(model, setting, pictures):
    """Measure a network that learns by one of `RULES`, and return its rows."""
    preprocessing, labels = resolve(model, None), Labels.of(model)
    learning = Preparation(preprocessing, labels, augment=setting["augment"], seed=setting["seed"])
    train = Batches((pictures.train, pictures.train_labels), learning, setting["seed"])
    judged = Batches((pictures.validation, pictures.validation_labels), Preparation(preprocessing, labels))
    if setting["rule"] == "bit":  # its head begins at 0
        head = model.get_layer("head_dense")
        head.set_weights([np.zeros_like(array) for array in head.get_weights()])
    keeps.set_momentum(model, setting["norm_momentum"])
    phases = RULES[setting["rule"]](setting, len(train))
    begins = sum(phase.epochs for phase in phases[:-1])
    record, epoch = keeps.Record(model, begins, begins + phases[-1].epochs), 0
    for phase in phases:
        shares = _prepare(model, phase)
        model.compile(phase.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        scale_updates(phase.optimizer, shares)
        model.fit(
            train,
            validation_data=judged,
            initial_epoch=epoch,
            epochs=epoch + phase.epochs,
            callbacks=[EpochSeeds(setting["seed"], [train]), record],
            shuffle=False,
            verbose=0,
        )
        epoch += phase.epochs
    return keeps.rows(model, record, pictures, keeps.PLAIN)


def _prepare(model, phase):
    """Let those layers learn that a phase says; return pairs of a variable and its share of the rate."""
    shares = []
    for group, layers in groups(model).items():
        for layer in layers:
            also = "head and norms" if isinstance(layer, keras.layers.BatchNormalization) else "all but norms"
            layer.trainable = group == "head" or phase.learns in ("all", also)
            shares += [(variable, phase.shares.get(group, 1.0)) for variable in layer.variables]
    return shares
