"""What the claims about transfer share: a trunk that is carried to a target, taught here or published, and judged.

Another trunk is one line of `TRUNKS`; `--data` names it.
"""

import dataclasses
import functools
import gc

import keras
import numpy as np

import kresnets
from claims import judging, runner
from claims.claim import Claim, Finding
from claims.results import gap_over, pick
from claims.verdicts import above
from kresnets._util import files

TARGET = "elpv/mono"
TARGET_NOTE = (
    "The target is whether a monocrystalline cell is defective; its 268 test and 161 validation photographs are the "
    "same in every run, those to learn from are drawn by the seed."
)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A trunk that is carried.

    `sources` are what it has learned from -> how far that is from the target, the nearest first; `setting` is the part
    of a setting that says network, size and augmentation, how it is taught too, `small` what is otherwise in the quick
    one; `groups` are of its weights, without the head; `seeds` how many by themselves.
    """

    sources: dict[str, str]
    setting: dict
    small: dict
    groups: tuple[str, ...]
    note: str
    seeds: int = 3

    def part(self, quick):
        """Return the part of a setting that says it; the augmentation is the target's too."""
        return self.setting | (self.small if quick else {})


_GROUPS = ("stem", "stage1", "stage2", "stage3")
_SMALL = {"size": 32, "augment": "none"}


def _published(source, distance, network, size, weights, seeds=3):
    setting = {"network": network, "size": size, "augment": "light"}
    note = f"The trunk is {network} at {size} pixels with {weights}; from scratch starts without them. "
    return Trunk({source: distance}, setting, _SMALL, (*_GROUPS, "stage4"), note, seeds)


TRUNKS = {
    # Two sources with nearly as many pictures to learn from: one like the target, one unlike it.
    None: Trunk(
        {"elpv/poly": "similar", "digits": "different"},
        {"size": 64, "depth": 2, "taught_epochs": 16, "taught_rate": 3e-3, "augment": "light"},
        _SMALL | {"depth": 1, "taught_epochs": 1},
        _GROUPS,
        "The trunk is a slim ResNet18D (2 blocks in each of 3 stages, 16 to 64 channels, 0.2 million parameters) at 64 "
        "pixels, trained here, once for each source and seed, on 1,162 photographs of polycrystalline cells (similar) "
        "or 1,347 of scikit-learn's digits (different). ",
    ),
    "imagenet": _published("imagenet", "ImageNet", "ResNet50", 96, "keras.applications' weights, of ImageNet"),
    "open_nsfw": _published("open_nsfw", "photographs", "ResNet50Thin", 128, "the weights open_nsfw", seeds=5),
}
TAUGHT = tuple(TRUNKS[None].sources)
_TAGS = {"imagenet": "keras", "none": None}  # of published weights, where they have another name than the source


def claim(settings, measure, cost, note=lambda trunk: TRUNKS[trunk].note + TARGET_NOTE, notes=(), **told):
    """Return a `Claim` about trunks that are carried.

    Args:
        settings: `(options, rows, trunk) -> settings`, each with `source`, `seed` and what its `Trunk` says.
        measure: `(setting, target, weights) -> rows`; `pictures.Pictures`, and what `kresnets.build` takes.
        cost: of a setting, as of a `Claim`.
        note, notes: about the trunk, by its name, and further ones.
        told: the rest of the `Claim`.
    """

    def measured(setting, kept):
        weights = trunk(setting, kept)
        if setting["task"] == "teach":  # how good it is, with its own head, on pictures of its source
            source = pictures(setting["source"], setting["size"], "all", 0)
            return [judged(build(setting, source.classes, weights), source.test, source.test_labels)]
        target = pictures(setting.get("target", TARGET), setting["size"], setting["n"], setting["seed"])
        return measure(setting, target, weights)

    return Claim(
        settings=lambda options, rows: with_lessons(settings(options, rows, TRUNKS[options.data]), rows),
        measure=measured,
        cost=lambda setting: 40.0 if setting["task"] == "teach" else cost(setting),
        notes=lambda options: (note(options.data), *notes),
        data=tuple(TRUNKS)[1:],
        keeps=True,
        **told,
    )


def compared(rows, said):
    """Yield a `Finding` for each `(claim, told, one, other, cells, least)`: that the test accuracy of one way is above
    another's, dicts of what their rows have, by `least` in the mean over the cells, dicts too."""
    for claim, told, one, other, cells, least in said:
        gap, area = (gap_over(rows, column, one, other, cells) for column in ("test_accuracy", "test_auc"))
        if gap.values:
            numbers = f"Test accuracy, {told}: {gap.points()}; AUC: {area.text()}."
            yield Finding(claim, above(gap, least), numbers)


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
    """Return the network of a setting, as a row for `kresnets.build`: ResNet18D's parts, fewer and slimmer."""
    if "network" in setting:
        return kresnets.SPECS[setting["network"]]
    slim = dict(depths=(setting["depth"],) * 3, widths=(16, 32, 64), strides=(1, 2, 2), zero_gamma=True, params=None)
    return dataclasses.replace(kresnets.SPECS["ResNet18D"], **slim)


@functools.lru_cache(maxsize=8)
def pictures(name, size, n_train, seed):
    """Return `pictures.Pictures`; `n_train` may be `"all"`."""
    from claims import targets

    return targets.target(name, size, None if n_train == "all" else n_train, seed)


def build(setting, classes, weights=None):
    """Return the network of a setting with a new head, from weights or drawn anew."""
    # What earlier runs of this process traced would fill the memory.
    keras.backend.clear_session()
    gc.collect()
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
        source = pictures(taught["source"], taught["size"], "all", 0)
        images = np.concatenate([source.train, source.validation])
        labels = np.concatenate([source.train_labels, source.validation_labels])
        model = build(taught, source.classes)
        recipe = kresnets.Recipe.from_scratch(taught["taught_epochs"], taught["taught_rate"], seed=taught["seed"])
        recipe = dataclasses.replace(recipe, augment=taught["augment"])
        kresnets.fine_tune(model, (images, labels), recipe=recipe, verbose=0)
        with files.replacing(path) as beside:
            model.save_weights(beside)
    return str(path)


def judged(model, images, labels):
    """Return how good a network is on images 0..255, see `judging.measured`."""
    return judging.measured(outputs(model, images), labels)


def outputs(model, images):
    """Return what a model gives for images 0..255, in inference, without tracing: it is asked once or twice only."""
    ask = lambda part: np.asarray(model(part, training=False))
    return judging.outputs(ask, judging.prepared(model, images))


def fine_tuned(model, target, recipe, callbacks=(), groups=None):
    """Fine-tune a network on `pictures.Pictures`, as `kresnets.fine_tune` does, and judge it.

    Returns what `judged` does, `validation_loss` and `validation_accuracy` of the epoch that was kept, the one with the
    best loss, and `best_epoch`, counted from 1.
    """
    history = kresnets.fine_tune(
        model,
        (target.train, target.train_labels),
        (target.validation, target.validation_labels),
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
    return found | judged(model, target.test, target.test_labels)
