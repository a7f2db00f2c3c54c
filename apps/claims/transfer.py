"""What the claims about transfer share: a trunk that is carried to a target, taught here or published, and judged.

Another trunk is one line of `TRUNKS`; `--data` names it.
"""

import dataclasses

import keras
import numpy as np

import kresnets
from claims import images, runner, scores
from claims.claim import Claim, Finding
from claims.judge import above, gap, pick
from kresnets._util import files

TARGET = "elpv/mono"
PUPIL = "ResNet18DThin"  # the network whose trunk default-recipe teaches


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A trunk that is carried."""

    sources: dict[str, str]  # what it has learned from -> how far that is from the target, the nearest first
    setting: dict  # the part of a setting that says network, size, augmentation (the target's too), and its teaching
    small: dict  # what is otherwise in the quick one
    groups: tuple[str, ...]  # of its weights, without the head
    note: str | None = None  # on the page, in place of that about the trunk that is taught here
    seeds: int = 3

    def part(self, quick):
        """Return the part of a setting that says it."""
        return self.setting | (self.small if quick else {})


_GROUPS = ("stem", "stage1", "stage2", "stage3")
_SMALL = {"size": 32, "augment": "none"}


def _published(source, distance, network, size, weights, seeds=3):
    setting = {"network": network, "size": size, "augment": "light"}
    note = f"The trunk is {network} at {size} pixels with {weights}; from scratch starts without them."
    return Trunk({source: distance}, setting, _SMALL, (*_GROUPS, "stage4"), note, seeds)


TRUNKS = {
    # Two sources with nearly as many pictures to learn from: one like the target, one unlike it.
    None: Trunk(
        {"elpv/poly": "similar", "digits": "different"},
        {"size": 64, "depth": 2, "taught_epochs": 16, "taught_rate": 3e-3, "augment": "light"},
        _SMALL | {"depth": 1, "taught_epochs": 1},
        _GROUPS,
    ),
    "imagenet": _published("imagenet", "ImageNet", "ResNet50", 96, "keras.applications' weights, of ImageNet"),
    "open_nsfw": _published("open_nsfw", "photographs", "ResNet50Thin", 128, "the weights open_nsfw", seeds=5),
}
TAUGHT = tuple(TRUNKS[None].sources)
_TAGS = {"imagenet": "keras", "none": None}  # of published weights, where they have another name than the source


def claim(settings, measure=None, recipe=None, notes=lambda data: TRUNKS[data].note, **rest):
    """Return a `Claim` about trunks that are carried.

    Args:
        settings: `(options, rows, trunk) -> settings`, each with `source`, `seed` and what its `Trunk` says.
        measure: `(setting, target, weights) -> rows`; `images.Pictures`, and what `kresnets.build` takes.
        recipe: in place of `measure`, `setting -> kresnets.Recipe` by which the whole network is fine-tuned.
        notes, rest: of the `Claim`.
    """

    def measured(setting, kept):
        weights = trunk(setting, kept)
        if setting["task"] == "teach":  # how good it is, with its own head, on pictures of its source
            source = images.target(setting["source"], setting["size"], "all", 0)
            return [judged(build(setting, source.classes, weights), source)]
        name = setting.get("target", TARGET)
        target = images.target(name, setting["size"], setting["n"], setting["seed"])
        if recipe is None:
            return measure(setting, target, weights)
        return [fine_tuned(build(setting, target.classes, weights), target, recipe(setting))]

    return Claim(
        settings=lambda options, rows: with_lessons(settings(options, rows, TRUNKS[options.data]), rows),
        measure=measured,
        notes=notes,
        data=tuple(TRUNKS)[1:],
        **rest,
    )


def compared(claim, told, rows, one, other, cells=({},), least=0.0):
    """Yield the `Finding` that the test accuracy of one way is above another's, dicts of what their rows have, by
    `least` in the mean over the cells, dicts too; nothing where no seed has both."""
    found, area = (gap(rows, column, one, other, cells) for column in ("test_accuracy", "test_auc"))
    if found.values:
        yield Finding(claim, above(found, least), f"Test accuracy, {told}: {found.points()}; AUC: {area.text()}.")


def head_alone(rate, passes):
    """Return the fields of a `kresnets.Recipe` that trains the head on a frozen trunk."""
    return dict(head_epochs=passes, stages=(), learning_rate=rate)


def whole(rate, passes, ratio=1.0, batchnorm="frozen"):
    """Return the fields of a `kresnets.Recipe` that trains everything at once."""
    rest = dict(epochs_per_stage=passes, trunk_learning_rate=rate, ratio=ratio, batchnorm=batchnorm)
    return dict(head_epochs=0, stages=("stem",)) | rest


def lesson(setting):
    """Return the setting in which the trunk of another one is taught."""
    taught = TRUNKS[None].part(quick=setting["depth"] == 1)
    return {"task": "teach", "source": setting["source"], "seed": setting["seed"]} | taught


def with_lessons(settings, rows):
    """Return the settings that teach what these need, then those of these whose trunk is taught, given the rows so
    far: first the trunks, so that no two processes teach the same one."""
    needed = {(one["source"], one["seed"]): lesson(one) for one in settings if one["source"] in TAUGHT}
    there = {(row["source"], row["seed"]) for row in pick(rows, task="teach")}
    ready = [one for one in settings if one["source"] not in TAUGHT or (one["source"], one["seed"]) in there]
    return [*needed.values(), *ready]


def row(setting):
    """Return the network of a setting, as a row for `kresnets.build`: of kresnets, or of ResNet18D's parts."""
    name, parts = setting.get("network"), kresnets.SPECS["ResNet18D"]
    if name is None:  # fewer and slimmer
        slim = dict(depths=(setting["depth"],) * 3, widths=(16, 32, 64), strides=(1, 2, 2), zero_gamma=True)
        return dataclasses.replace(parts, **slim, params=None)
    thin = dict(widths=(32, 64, 128, 256), stem_width=32, params=None)
    return dataclasses.replace(parts, **thin) if name == PUPIL else kresnets.SPECS[name]


def build(setting, classes, weights=None):
    """Return the network of a setting with a new head, from weights or drawn anew."""
    keras.utils.set_random_seed(setting["seed"])
    shape = (setting["size"], setting["size"], 3)
    return kresnets.build(row(setting), input_shape=shape, classes=classes, weights=weights)


def trunk(setting, kept):
    """Return the weights that a setting needs: None from scratch, the tag of those to fetch, or the path of those that
    are taught here; they are taught where the folder `kept` has them not."""
    if setting["source"] not in TAUGHT:
        return _TAGS.get(setting["source"], setting["source"])
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


def judged(model, pictures):
    """Return how good a network is on the test part, see `scores.measured`."""
    return scores.measured(scores.untraced(model, pictures.test), pictures.test_labels)


def fine_tuned(model, target, recipe, callbacks=(), groups=None):
    """Fine-tune a network on `images.Pictures`, as `kresnets.fine_tune` does, and judge it.

    Returns what `judged` does, `validation_loss` and `validation_accuracy` of the epoch that was kept, the one with the
    best loss, and `best_epoch`, counted from 1.
    """
    history = kresnets.fine_tune(
        model,
        *target.both,
        recipe,
        cache="auto" if groups is None else False,  # groups of another order than the network's are nothing to cut at
        callbacks=callbacks,
        groups=groups,
        verbose=0,
    ).history
    losses = np.asarray(history["val_loss"])
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else len(losses) - 1
    found = {"best_epoch": best + 1, "validation_loss": history["val_loss"][best]}
    found["validation_accuracy"] = history["val_accuracy"][best]
    return found | judged(model, target)
