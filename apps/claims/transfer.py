"""What the claims about transfer share: a small trunk that is taught here, carried to a target, and judged."""

import dataclasses

import keras
import numpy as np

import kresnets
from claims import images, runner, scores
from claims.claim import Claim
from claims.judge import gap, pick, tested
from kresnets._util import files

TARGET = "elpv/mono"
# What a trunk has learned from -> how far that is from the target, the nearest first: two sources with nearly as many
# pictures to learn from, one like the target, one unlike it.
SOURCES = {"elpv/poly": "similar", "digits": "different"}
NEAR, FAR = SOURCES
GROUPS = ("stem", "stage1", "stage2", "stage3")  # of the trunk's weights, without the head
SEEDS = 3
PUPIL = "ResNet18DThin"  # the network whose trunk default-recipe teaches


def common(quick):
    """Return the part of a setting that says network, size, augmentation (the target's too), and its teaching."""
    if quick:
        return {"size": 32, "depth": 1, "taught_epochs": 1, "taught_rate": 3e-3, "augment": "none"}
    return {"size": 64, "depth": 2, "taught_epochs": 16, "taught_rate": 3e-3, "augment": "light"}


def claim(settings, findings, panels, measure=None, recipe=None):
    """Return a `Claim` about trunks that are carried: its settings have `source`, `seed` and what is `common`. It has
    a `measure`, `(setting, target, weights) -> rows` (`images.Pictures`, and what `kresnets.build` takes), or a
    `recipe`, `setting -> kresnets.Recipe` by which the whole network is fine-tuned."""

    def measured(setting, kept):
        weights = trunk(setting, kept)
        if setting["task"] == "teach":  # how good it is, with its own head, on pictures of its source
            source = images.target(setting["source"], setting["size"], "all", 0)
            return [scores.judged(build(setting, source.classes, weights), source.test, source.test_labels)]
        name = setting.get("target", TARGET)
        target = images.target(name, setting["size"], setting["n"], setting["seed"])
        if recipe is None:
            return measure(setting, target, weights)
        return [fine_tuned(build(setting, target.classes, weights), target, recipe(setting))]

    return Claim(lambda options, rows: with_lessons(settings(options, rows), rows), measured, findings, panels)


def compared(claim, told, rows, one, other, cells=({},), least=0.0):
    """Yield the `Finding` that the test accuracy of one way is above another's, dicts of what their rows have, by
    `least` in the mean over the cells, dicts too; nothing where no seed has both."""
    found, area = (gap(rows, column, one, other, cells) for column in ("test_accuracy", "test_auc"))
    if found.values:
        yield tested(claim, found, f"Test accuracy, {told}: {found.points()}; AUC: {area.text()}.", least=least)


def whole(rate, passes, ratio=1.0, batchnorm="frozen"):
    """Return the fields of a `kresnets.Recipe` that trains everything at once."""
    rest = dict(epochs_per_stage=passes, trunk_learning_rate=rate, ratio=ratio, batchnorm=batchnorm)
    return dict(head_epochs=0, stages=("stem",)) | rest


def lesson(setting):
    """Return the setting in which the trunk of another one is taught."""
    return {"task": "teach", "source": setting["source"], "seed": setting["seed"]} | common(setting["depth"] == 1)


def with_lessons(settings, rows):
    """Return the settings that teach what these need, then those of these whose trunk is taught, given the rows so
    far: first the trunks, so that no two processes teach the same one."""
    needed = {(one["source"], one["seed"]): lesson(one) for one in settings if one["source"] in SOURCES}
    there = {(row["source"], row["seed"]) for row in pick(rows, task="teach")}
    ready = [one for one in settings if one["source"] not in SOURCES or (one["source"], one["seed"]) in there]
    return [*needed.values(), *ready]


def build(setting, classes, weights=None):
    """Return the network of a setting with a new head, from weights or drawn anew: a row of kresnets, or where it has
    no `network` one of ResNet18D's parts, fewer and slimmer."""
    keras.utils.set_random_seed(setting["seed"])
    row = kresnets.SPECS[setting.get("network", "ResNet18D")]
    if "network" not in setting:
        slim = dict(depths=(setting["depth"],) * 3, widths=(16, 32, 64), strides=(1, 2, 2), zero_gamma=True)
        row = dataclasses.replace(row, **slim, params=None)
    return kresnets.build(row, input_shape=(setting["size"],) * 2 + (3,), classes=classes, weights=weights)


def trunk(setting, kept):
    """Return the path of the weights that a setting needs, None from scratch; they are taught where the folder `kept`
    has them not."""
    if setting["source"] not in SOURCES:
        return None
    taught = lesson(setting)
    path = kept / f"trunk-{runner.key(taught)}.weights.h5"
    if not path.exists():
        source = images.target(taught["source"], taught["size"], "all", 0)
        teach(build(taught, source.classes), *source.whole, taught["augment"], taught, path)
    return str(path)


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
