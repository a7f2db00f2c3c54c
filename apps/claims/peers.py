"""What a default recipe is compared with: heads solved on features, and the rules of Keras's guide, fastai and BiT.

Each rule is run as its authors wrote it down, on the same images in the same augmentation; what could not be kept is
said beside it.
"""

from typing import NamedTuple

import keras
import numpy as np

from claims import cells, keeps, scores
from kresnets.groups import groups
from kresnets.keras_hooks.optimizer import scale_updates
from kresnets.preprocess import preprocessing_for
from kresnets.transfer.head import regression
from kresnets.transfer.inputs import Batches, EpochSeeds, Preparation
from kresnets.transfer.labels import Labels


def solved_head(model, images, labels):
    """Give a network's head the logistic regression on the features of these images; return its chosen strength."""
    ask = scores.asker(keras.Model(model.input, model.get_layer("head_dense").input))
    features = scores.outputs(ask, scores.prepared(model, images))
    kernel, bias, strength = regression(features, labels, model.output_shape[-1])
    model.get_layer("head_dense").set_weights([np.float32(kernel), np.float32(bias)])
    return strength


def regressed(model, setting, pictures):
    """Measure logistic regression on the trunk's features, with `all` on those of the validation images too."""
    images, labels = pictures.whole if setting["images"] == "all" else pictures.both[0]
    told = {"keep": "last", "strength": solved_head(model, images, labels)}
    return [told | cells.judged(model, pictures.test, pictures.test_labels)]


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for each step, as listed."""

    def __init__(self, rates):
        self.rates = keras.ops.convert_to_tensor(rates, "float32")

    def __call__(self, step):
        return keras.ops.take(self.rates, keras.ops.minimum(keras.ops.cast(step, "int32"), len(self.rates) - 1))


def one_cycle(peak, steps, rising, div):
    """fastai's one cycle: a cosine up from `peak / div` in a share of the steps, then one down to `peak / 1e5`."""
    place = np.arange(steps) / max(steps - 1, 1)
    up, down = np.clip(place / rising, 0, 1), np.clip((place - rising) / (1 - rising), 0, 1)
    low, end = peak / div, peak / 1e5
    risen = low + (peak - low) * (1 - np.cos(np.pi * up)) / 2
    return Rates(np.where(place < rising, risen, end + (peak - end) * (1 + np.cos(np.pi * down)) / 2))


def drops(peak, steps):
    """BiT-HyperRule: a linear rise in the first fifth of the steps, a tenth of the rate from each further one on."""
    fifths = np.arange(steps) / (steps / 5)
    return Rates(peak * np.where(fifths < 1, fifths, 0.1 ** np.maximum(np.floor(fifths) - 1, 0)))


class Phase(NamedTuple):
    """One `compile` and `fit` of a rule."""

    optimizer: keras.optimizers.Optimizer
    epochs: int
    learns: str  # "head", "head and norms", "all but norms", "all"; norms that learn take a batch's statistics
    shares: dict = {}  # group -> share of the rate


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
    rate, early, late = setting["rate"], ("stem", "stage1", "stage2"), ("stage3", "stage4")
    first = one_cycle(rate, steps * setting["head_epochs"], 0.99, 25)
    then = one_cycle(rate / 2, steps * setting["epochs"], 0.3, 5)
    shares = dict.fromkeys(early, 0.01) | dict.fromkeys(late, 0.1)
    options = {"weight_decay": 0.01, "beta_2": 0.99, "epsilon": 1e-5}
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
    rate = drops(setting["rate"], steps * setting["epochs"])
    return [Phase(keras.optimizers.SGD(rate, momentum=0.9), setting["epochs"], "all but norms")]


RULES = {"guide": guide, "fastai": fastai, "bit": bit}


def ruled(model, setting, pictures):
    """Measure a network that learns by one of `RULES`, and return its rows."""
    preprocessing, labels = preprocessing_for(model, None), Labels.of(model)
    learning = Preparation(preprocessing, labels, augment=setting["augment"], seed=setting["seed"])
    train = Batches(pictures.both[0], learning, setting["seed"])
    judged = Batches(pictures.both[1], Preparation(preprocessing, labels))
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
    return record.rows(pictures, keeps.PLAIN)


def _prepare(model, phase):
    """Let those layers learn that a phase says; return pairs of a variable and its share of the rate."""
    shares = []
    for group, layers in groups(model).items():
        for layer in layers:
            also = "head and norms" if isinstance(layer, keras.layers.BatchNormalization) else "all but norms"
            layer.trainable = group == "head" or phase.learns in ("all", also)
            shares += [(variable, phase.shares.get(group, 1.0)) for variable in layer.variables]
    return shares
