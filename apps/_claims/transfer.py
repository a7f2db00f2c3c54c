"""What the claims about transfer share: a small trunk that is taught on a source, carried to a target, and judged."""

import dataclasses
import functools
import gc
import os

import numpy as np

from _claims import runner

TARGET = "elpv/mono"
# Two sources with nearly as many pictures to learn from: one like the target, one unlike it.
SOURCES = {"elpv/poly": "similar", "digits": "different"}
PICTURES = {
    "elpv/mono": "monocrystalline solar cells, intact or defective",
    "elpv/poly": "polycrystalline cells",
    "digits": "handwritten digits",
}
TARGET_NOTE = (
    "The target is whether a monocrystalline cell is defective; its 268 test and 161 validation photographs are the "
    "same "
    "in every run, those to learn from are drawn by the seed."
)
NOTE = (
    "The trunk is a slim ResNet18D (2 blocks in each of 3 stages, 16 to 64 channels, 0.2 million parameters) at 64 "
    "pixels, trained here, once for each source and seed, on 1,162 photographs of polycrystalline cells (similar) or "
    "1,347 of scikit-learn's digits (different). " + TARGET_NOTE
)


def network(quick):
    """Return the part of a setting that says which trunk is taught and how; the augmentation is the target's too."""
    if quick:
        return {"size": 32, "depth": 1, "taught_epochs": 1, "taught_rate": 3e-3, "augment": "none"}
    return {"size": 64, "depth": 2, "taught_epochs": 16, "taught_rate": 3e-3, "augment": "light"}


def published(quick):
    """Return the part of a setting that takes a trunk which was taught on ImageNet, keras.applications' file."""
    return {"network": "ResNet50", "size": 32 if quick else 96, "augment": "none" if quick else "light"}


def teaching(source, seed, quick):
    """Return the setting in which a trunk is taught; other settings need what it keeps."""
    return {"task": "teach", "source": source, "seed": seed} | network(quick)


def with_lessons(settings, rows, quick):
    """Return the settings that teach what these need, then those of these whose trunk is taught.

    First the trunks, so that no two processes teach the same one.

    Args:
        settings: with `source` (`"none"` needs nothing) and `seed`.
        rows: of the claim so far.
        quick: whether the trunk is the quick one.
    """
    needed = dict.fromkeys((one["source"], one["seed"]) for one in settings if one["source"] in SOURCES)
    there = {(row["source"], row["seed"]) for row in rows if row["task"] == "teach"}
    ready = [one for one in settings if one["source"] not in SOURCES or (one["source"], one["seed"]) in there]
    return [teaching(source, seed, quick) for source, seed in needed] + ready


def row(setting):
    """Return the network of a setting, as a row for `kresnets.build`: ResNet18D's parts, fewer and slimmer."""
    import kresnets

    if "network" in setting:
        return kresnets.SPECS[setting["network"]]
    return dataclasses.replace(
        kresnets.SPECS["ResNet18D"],
        depths=(setting["depth"],) * 3,
        widths=(16, 32, 64),
        strides=(1, 2, 2),
        zero_gamma=True,
        params=None,
    )


@functools.lru_cache(maxsize=8)
def data(name, setting_size, n_train, seed):
    """Return a `targets.Target`; `n_train` may be `"all"`."""
    from _claims import targets

    return targets.target(name, setting_size, None if n_train == "all" else n_train, seed)


def build(setting, classes, weights=None):
    """Return the network of a setting with a new head, from a file of weights or drawn anew."""
    import keras

    import kresnets

    # What earlier runs of this process traced would fill the memory.
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(setting["seed"])
    shape = (setting["size"], setting["size"], 3)
    return kresnets.build(row(setting), input_shape=shape, classes=classes, weights=weights)


def trunk(setting, kept):
    """Return the file with the trunk that a setting needs; teach it where it is not there.

    Args:
        setting: with `source`, `seed` and the entries of `network`.
        kept: folder in which it is kept.

    Returns:
        Its path, the tag of weights to fetch where the source is `"imagenet"`, or None where it is `"none"`.
    """
    if setting["source"] == "imagenet":
        return "keras"
    if setting["source"] not in SOURCES:
        return None
    lesson = {"task": "teach"} | {name: setting[name] for name in ("source", "seed", *network(quick=True))}
    path = kept / f"trunk-{runner.key(lesson)}.weights.h5"
    if not path.exists():
        model = _learned(lesson)
        kept.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            model.save_weights(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    return str(path)


def _learned(lesson):
    import kresnets

    source = data(lesson["source"], lesson["size"], "all", 0)
    images = np.concatenate([source.train, source.validation])
    labels = np.concatenate([source.train_labels, source.validation_labels])
    model = build(lesson, len(source.class_names))
    recipe = kresnets.Recipe.from_scratch(lesson["taught_epochs"], lesson["taught_rate"], seed=lesson["seed"])
    recipe = dataclasses.replace(recipe, augment=lesson["augment"])
    kresnets.fine_tune(model, (images, labels), recipe=recipe, verbose=0)
    return model


def teach(setting, kept):
    """Measure a setting of `teaching`: how good the trunk, with its own head, is on pictures of its source."""
    path = trunk(setting, kept)
    source = data(setting["source"], setting["size"], "all", 0)
    return [judged(build(setting, len(source.class_names), path), source.test, source.test_labels)]


def judged(model, images, labels):
    """Return how good a network is on images 0..255.

    Returns:
        Dict of `test_accuracy`, `test_balanced_accuracy`, and, for two classes, `test_auc`, each 0..1.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    scores = outputs(model, images)
    found = {
        "test_accuracy": float(np.mean(scores.argmax(1) == labels)),
        "test_balanced_accuracy": float(balanced_accuracy_score(labels, scores.argmax(1))),
    }
    if scores.shape[1] == 2:
        found["test_auc"] = float(roc_auc_score(labels, scores[:, 1])) if np.isfinite(scores).all() else 0.5
    return found


def outputs(model, images):
    """Return what a model gives for images 0..255, in inference, without tracing: it is asked once or twice only."""
    import kresnets

    preprocess = kresnets.preprocessing_of(model) or kresnets.preprocess_input
    parts = np.array_split(images, max(1, len(images) // 128))
    return np.concatenate([np.asarray(model(preprocess(np.float32(part)), training=False)) for part in parts])


def fine_tuned(model, pictures, recipe, callbacks=(), groups=None):
    """Fine-tune a network on a `targets.Target` and judge it; the arguments are those of `kresnets.fine_tune`.

    Returns:
        Dict of what `judged` gives, `validation_loss` and `validation_accuracy` of the epoch that was kept, the one
        with the best loss, and `best_epoch`, counted from 1.
    """
    import kresnets

    history = kresnets.fine_tune(
        model,
        (pictures.train, pictures.train_labels),
        (pictures.validation, pictures.validation_labels),
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
    return found | judged(model, pictures.test, pictures.test_labels)
