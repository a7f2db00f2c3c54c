"""What the default recipe is compared with: other recipes, heads solved on features, Keras's guide, fastai, BiT.

Each rule is run as its authors wrote it down, on the same images in the same augmentation; what could not be kept is
said beside it.
"""

from typing import NamedTuple

import keras
import numpy as np

import kresnets
from claims import cells, scores
from kresnets.groups import groups
from kresnets.keras_hooks.optimizer import scale_updates
from kresnets.preprocess import preprocessing_for
from kresnets.transfer.head import regression
from kresnets.transfer.inputs import Batches, EpochSeeds, Preparation
from kresnets.transfer.labels import Labels

_FIELDS = (
    "head_epochs stages epochs_per_stage learning_rate trunk_learning_rate ratio batchnorm optimizer weight_decay "
    "schedule warmup augment label_smoothing mixup seed"
).split()


def by_default(model, setting, pictures):
    """Let `kresnets.fine_tune` do what it does by itself, and return a row; it must be what the setting says."""
    recipe, pretrained = kresnets.Recipe(seed=setting["seed"]), setting["trunk"] != "none"
    history = kresnets.fine_tune(model, *pictures.both, recipe, pretrained=pretrained, verbose=0)
    done, told = cells.plain(history.plan.recipe), setting["recipe"] | {"seed": setting["seed"]}
    if done != told:
        raise ValueError(f"The default was resolved to {done}, where the setting says {told}.")
    told = {"keep": "last", "notes": list(history.notes)}
    return [told | scores.judged(model, pictures.test, pictures.test_labels)]


def recipe_of(setting):
    """Return the `kresnets.Recipe` of a setting, all that its numbers depend on written out."""
    rest = {"views": 1, "ema": None, "advance": "epochs", "restore_best": False, "ramp": 0.0, "keep": "last"}
    return kresnets.Recipe(**{name: setting[name] for name in _FIELDS}, **rest, head="trained")


def tuned(model, setting, pictures):
    """Fine-tune by the recipe of a setting, and return the rows of a `Record`."""
    if setting["trunk"] != "none":
        _set_momentum(model, setting["norm_momentum"])
    record = Record(model)
    kresnets.fine_tune(model, *pictures.both, recipe_of(setting), callbacks=[record], verbose=0)
    return record.rows(pictures)


def regressed(model, setting, pictures):
    """Measure logistic regression on the trunk's features, with `all` on those of the validation images too."""
    images, labels = pictures.whole if setting["images"] == "all" else pictures.both[0]
    head = model.get_layer("head_dense")
    features = scores.outputs(keras.Model(model.input, head.input), images)
    kernel, bias, strength = regression(features, labels, model.output_shape[-1])
    head.set_weights([np.float32(kernel), np.float32(bias)])
    return [{"keep": "last", "strength": strength} | scores.judged(model, pictures.test, pictures.test_labels)]


class Record(keras.callbacks.Callback):
    """Keep, in memory, the last weights and those of the epoch that validated best, of the whole network, also where
    the fit that calls this is of a part of it."""

    def __init__(self, model):
        super().__init__()
        self._whole, self._best, self.kept = model, np.inf, {}

    def on_epoch_end(self, epoch, logs=None):
        loss, now = (logs or {}).get("val_loss", np.inf), self._whole.get_weights()
        self.kept["last"] = now, {}
        if loss < self._best:
            self._best, self.kept["best loss"] = loss, (now, {"epoch": epoch + 1})

    def rows(self, pictures):
        """Judge the network with either weights: dicts of `keep`, what `scores.measured` gives, `validation_loss`,
        `validation_accuracy`, and `epoch` where one was chosen."""
        labels, found = pictures.validation_labels, []
        for name, (weights, epoch) in self.kept.items():
            self._whole.set_weights(weights)
            answers = scores.outputs(self._whole, pictures.validation)
            chances = np.clip(np.nan_to_num(answers), 1e-7, 1)[np.arange(len(answers)), labels]
            row = {"keep": name} | scores.judged(self._whole, pictures.test, pictures.test_labels)
            row["validation_loss"] = float(-np.log(chances).mean())
            found.append(row | {"validation_accuracy": float(np.mean(answers.argmax(1) == labels))} | epoch)
        return found


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
    yield Phase(keras.optimizers.Adam(setting["head_rate"]), setting["head_epochs"], "head")
    yield Phase(keras.optimizers.Adam(setting["rate"]), setting["epochs"], "all but norms")


def fastai(setting, steps):
    """fastai's `fine_tune`: an epoch of head and norms, then all in one cycle, the earlier half at a hundredth; but the
    head is one layer where fastai's has two, and momentum stays where fastai's falls and rises."""
    rate, early, late = setting["rate"], ("stem", "stage1", "stage2"), ("stage3", "stage4")

    def phase(cycle, epochs, learns, shares):
        optimizer = keras.optimizers.AdamW(cycle, weight_decay=0.01, beta_2=0.99, epsilon=1e-5)
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        return Phase(optimizer, epochs, learns, dict.fromkeys(early, shares[0]) | dict.fromkeys(late, shares[1]))

    first, then = setting["head_epochs"], setting["epochs"]
    yield phase(one_cycle(rate, steps * first, 0.99, 25), first, "head and norms", (0.1, 0.1))
    yield phase(one_cycle(rate / 2, steps * then, 0.3, 5), then, "all", (0.01, 0.1))


def bit(setting, steps):
    """BiT-HyperRule: SGD with momentum on all weights, rate and number of steps told by the number of images; BiT's
    nets have no statistics of batches, so these norms keep those that they have."""
    rate = drops(setting["rate"], steps * setting["epochs"])
    yield Phase(keras.optimizers.SGD(rate, momentum=0.9), setting["epochs"], "all but norms")


RULES = {"guide": guide, "fastai": fastai, "bit": bit}


def ruled(model, setting, pictures):
    """Measure a network that learns by one of `RULES`, and return its rows."""
    seed, preprocessing, labels = setting["seed"], preprocessing_for(model, None), Labels.of(model)
    train = Batches(pictures.both[0], Preparation(preprocessing, labels, augment=setting["augment"], seed=seed), seed)
    judged = Batches(pictures.both[1], Preparation(preprocessing, labels))
    if setting["rule"] == "bit":  # its head begins at 0
        head = model.get_layer("head_dense")
        head.set_weights([np.zeros_like(array) for array in head.get_weights()])
    _set_momentum(model, setting["norm_momentum"])
    record, epoch = Record(model), 0
    for phase in RULES[setting["rule"]](setting, len(train)):
        shares = _prepare(model, phase)
        model.compile(phase.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        scale_updates(phase.optimizer, shares)
        callbacks, end = [EpochSeeds(seed, [train]), record], epoch + phase.epochs
        how = {"initial_epoch": epoch, "epochs": end, "callbacks": callbacks, "shuffle": False, "verbose": 0}
        model.fit(train, validation_data=judged, **how)
        epoch = end
    return record.rows(pictures)


def _prepare(model, phase):
    """Let those layers learn that a phase says; return pairs of a variable and its share of the rate."""
    shares = []
    for group, layers in groups(model).items():
        for layer in layers:
            also = "head and norms" if isinstance(layer, keras.layers.BatchNormalization) else "all but norms"
            layer.trainable = group == "head" or phase.learns in ("all", also)
            shares += [(variable, phase.shares.get(group, 1.0)) for variable in layer.variables]
    return shares


def _set_momentum(model, momentum):
    """Say how slowly a network's norms forget."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
