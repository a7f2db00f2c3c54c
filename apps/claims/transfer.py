"""What the claims about transfer share: a trunk that transfers, carried to a target, and judged."""

import dataclasses

import keras
import numpy as np

import kresnets
from claims import images, scores
from claims.claim import Claim
from claims.judge import gap, tested
from kresnets._util import files

# What a trunk is carried to -> how far that is from what its teacher and it have learned from, photographs of things.
# Neither has seen an image of these.
TARGETS = {"cifar10": "similar", "elpv/mono": "different"}
SIMILAR, DIFFERENT = TARGETS
GROUPS = ("stem", "stage1", "stage2", "stage3", "stage4")  # of the trunk's weights, without the head
SEEDS = 5
PUPIL = "ResNet18DThin"  # the network whose trunk default-recipe teaches


def common(quick):
    """Return the part of a setting that says trunk, size, precision and augmentation."""
    trunk = {"network": PUPIL, "trunk": "kresnets/distilled"}
    if quick:
        return trunk | {"size": 32, "dtype": "float32", "augment": "none"}
    return trunk | {"size": 96, "dtype": "mixed_bfloat16", "augment": "light"}


def claim(settings, findings, panels, measure=None, recipe=None):
    """Return a `Claim` about trunks that are carried: its settings have `target`, `n`, `seed` and what is `common`. It
    has a `measure`, `(setting, target) -> rows` (`images.Pictures`), or a `recipe`, `setting -> kresnets.Recipe` by
    which the whole network is fine-tuned."""

    def measured(setting, kept):
        target = images.target(setting["target"], setting["size"], setting["n"], setting["seed"])
        if recipe is None:
            return measure(setting, target)
        return [fine_tuned(build(setting, target.classes), target, recipe(setting))]

    return Claim(settings, measured, findings, panels)


def compared(claim, told, rows, one, other, cells=({},), least=0.0):
    """Yield the `Finding`s that the test accuracy of one way is above another's, dicts of what their rows have, by
    `least` in the mean over the cells, dicts too, and that its AUC is, which a few images tell more finely; nothing
    where no seed has both."""
    found, area = (gap(rows, column, one, other, cells) for column in ("test_accuracy", "test_auc"))
    if found.values:
        yield tested(claim, found, f"Test accuracy, {told}: {found.points()}.", least=least)
        yield tested(f"By AUC: {claim[0].lower()}{claim[1:]}", area, f"{area.text()}.", least=least)


def whole(rate, passes, ratio=1.0, batchnorm="frozen"):
    """Return the fields of a `kresnets.Recipe` that trains everything at once."""
    rest = dict(epochs_per_stage=passes, trunk_learning_rate=rate, ratio=ratio, batchnorm=batchnorm)
    return dict(head_epochs=0, stages=("stem",)) | rest


def build(setting, classes, weights=None):
    """Return the network of a setting with a new head, with the weights of its `trunk`, unless others are given;
    `"none"` is drawn anew."""
    keras.utils.set_random_seed(setting["seed"])
    weights = weights or (None if setting["trunk"] == "none" else setting["trunk"])
    row, shape = kresnets.SPECS[setting["network"]], (setting["size"],) * 2 + (3,)
    return kresnets.build(row, input_shape=shape, classes=classes, weights=weights)


def teach(model, images, labels, augment, setting, path):
    """Train a network from scratch as the `taught_` fields of a setting say, and write its weights, whole or not at
    all."""
    recipe = kresnets.Recipe.from_scratch(setting["taught_epochs"], setting["taught_rate"], seed=setting["seed"])
    kresnets.fine_tune(model, (images, labels), recipe=dataclasses.replace(recipe, augment=augment), verbose=0)
    with files.replacing(path) as beside:
        model.save_weights(beside)


def fine_tuned(model, target, recipe, callbacks=(), groups=None):
    """Fine-tune a network on `images.Pictures`, and return what `scores.judged` does, `validation_loss` and
    `validation_accuracy` of the epoch that was kept, the one with the best loss, and `best_epoch`, counted from 1."""
    cache = "auto" if groups is None else False  # groups of another order than the network's are nothing to cut at
    how = {"cache": cache, "callbacks": callbacks, "groups": groups, "verbose": 0}
    history = kresnets.fine_tune(model, *target.both, recipe, **how).history
    losses = np.asarray(history["val_loss"])
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else len(losses) - 1
    found = {"best_epoch": best + 1, "validation_loss": history["val_loss"][best]}
    found["validation_accuracy"] = history["val_accuracy"][best]
    return found | scores.judged(model, target.test, target.test_labels)
