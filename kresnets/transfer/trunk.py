"""The network that a command trains: its row, its trunk from weights, its recipe from a file."""

import dataclasses
import json
import logging
import pathlib

import keras
import numpy as np

from kresnets._util.checks import close_to, is_whole
from kresnets.devices.hardware import fast_dtype
from kresnets.preprocess import MODES, Preprocessing, preprocessing_of, set_preprocessing
from kresnets.runs.folder import RunFolder
from kresnets.task import set_task
from kresnets.weights import sources


def spec_of(name):
    """Return the row of a network."""
    import kresnets

    if name not in kresnets.SPECS:
        hint = close_to(name, kresnets.SPECS) or f"use one of {', '.join(kresnets.list_models())}."
        raise ValueError(f"There is no network {name!r}: {hint}")
    return kresnets.SPECS[name]


def check_weights(spec, weights):
    """Hold the name of weights, or their file, against a network, before any image is looked at."""
    import kresnets

    if weights != "none" and not _is_run(weights):
        kresnets.weights.resolve(spec, weights)


def head_of(data):
    """Return what the head of a network has to be for `kresnets.data.Data`: keyword arguments of `with_trunk`."""
    head = {"classes": len(data.class_names), "task": data.task, "channels": data.decoding.channels}
    if data.task == "numbers":
        spread = data.train.labels.std(0)
        head["numbers"] = data.train.labels.mean(0).tolist(), np.where(spread > 0, spread, 1).tolist()
    return head


def _with_head(model, task, numbers):
    """Return a network whose head says what it is for; numbers come in their own units, however large they are."""
    if numbers is not None:
        mean, spread = numbers
        last = keras.layers.Rescaling(spread, mean, dtype="float32", name="head_rescaling")
        model = keras.Model(model.input, last(model.output), name=model.name)
    if task != "classes":
        set_task(model, task)
    return model


_ACTIVATIONS = {"classes": "softmax", "labels": "sigmoid", "numbers": None}


def with_trunk(spec, weights, size, classes, preprocess=None, task="classes", numbers=None, channels=3):
    """Build the network with its own head on the trunk of the weights: none, imagenet, a tag, a file, or another run.

    The head is a softmax; of the task `"labels"` sigmoids, and of `"numbers"` what is brought to a mean and a spread,
    `numbers`, of the training images. For images of other than three channels the first convolution is adapted.

    Without a size it is that of the weights: what a run was trained at, or what their `Preprocessing` says.
    `preprocess` says how the images of a file are wanted that does not say it itself: a mode, or the tag of weights
    that want the same.
    """
    import kresnets

    _check_size(spec, size)
    build = getattr(kresnets, spec.name)
    wanted = _preprocessing(spec, weights, preprocess)
    if _is_run(weights):
        source, _, _ = RunFolder(weights).load()
        size = size or source.input_shape[1]
        if source.input_shape[-1] != channels:
            raise ValueError(
                f"The run {weights} learned from images of {source.input_shape[-1]} channels, and these have "
                f"{channels}: give --channels {source.input_shape[-1]}, or other weights."
            )
    else:
        side = size or spec.input_size
        source = build(
            weights=None if weights == "none" else weights, input_shape=(side, side, channels), classes=classes,
            classifier_activation=_ACTIVATIONS[task],
        )  # fmt: skip
        if wanted is not None:
            set_preprocessing(source, wanted)
        size = size or kresnets.preprocessing_of(source).size or spec.input_size
        if source.input_shape[1] == size:
            return _with_head(source, task, numbers)
    shape = (size, size, channels)
    model = build(weights=None, input_shape=shape, classes=classes, classifier_activation=_ACTIVATIONS[task])
    return _with_head(kresnets.copy_trunk(source, model), task, numbers)


def _preprocessing(spec, weights, preprocess):
    if preprocess is None:
        return None
    if _is_run(weights) or weights == "imagenet" or sources.find(spec.name, weights):
        raise ValueError(f"`preprocess` is for a file of weights; weights={weights!r} say it themselves: leave it out.")
    if preprocess in MODES:
        return Preprocessing(preprocess)
    if row := sources.tagged(preprocess):
        return row.preprocessing
    raise ValueError(
        f"`preprocess` must be {', '.join(MODES)}, or a tag that `kresnets networks` lists. Received: {preprocess!r}"
    )


# Multiply-adds of one image from which on half precision pays. Measured on a processor with bfloat16: a step of
# CifarResNet20 at 32 pixels (0.04 G) is not faster in it, of ResNet18D at 224 (2.1 G) 1.58 times, of ResNet50 (3.9 G)
# 1.58 times; this is the geometric mean of the two sides.
WORTHWHILE = 0.3e9


def dtype_for(spec, weights, size):
    """Return the dtype policy that `--dtype auto` takes for a network, and why, where it is not the machine's fastest.

    A small network's time is not in its products, which half precision makes faster.
    """
    import kresnets

    if (fast := fast_dtype()) == "float32":
        return fast, ""
    _check_size(spec, size)
    if not size:
        row = sources.best(spec.name) if weights == "imagenet" else sources.find(spec.name, weights)
        size = RunFolder(weights).config.get("size") if _is_run(weights) else row and row.preprocessing.size
        size = size or spec.input_size
    adds = kresnets.summarize(kresnets.build(spec, input_shape=(size, size, 3), dtype="float32")).multiply_adds
    if adds >= WORTHWHILE:
        return fast, ""
    return (
        "float32",
        f"{fast.removeprefix('mixed_')} gains nothing where an image takes {adds / 1e9:.2g} G multiply-adds",
    )


def _check_size(spec, size):
    if size and size < spec.min_size:
        raise ValueError(f"`size` must be at least {spec.min_size} pixels a side for {spec.name}. Received: {size}")


def _is_run(weights):
    return (pathlib.Path(weights) / "config.json").is_file()


def own_model(path, weights, size, classes, preprocess=None, task="classes", numbers=None, channels=3):
    """Load a model of the user's own from a `.keras` file, which is trained on as it is.

    Raises:
        ValueError: where there is none, its head does not answer for so many classes, or an option asks for another.
    """
    from kresnets.transfer.labels import Labels

    if not pathlib.Path(path).is_file():
        raise ValueError(f"--model {path}: there is no such file.")
    if weights != "imagenet":
        raise ValueError(f"--weights {weights} does not go with --model {path}, which brings its own: leave one out.")
    if preprocess is not None and preprocess not in MODES:
        raise ValueError(f"`preprocess` must be {', '.join(MODES)} for a model of your own. Received: {preprocess!r}")
    model = keras.saving.load_model(path, compile=False)
    if preprocessing_of(model) is None:
        raise ValueError(
            f"--model {path} is no network of kresnets: fine-tune it in Python, where its groups can be said "
            "(`kresnets.fine_tune(model, train, validation, groups=..., preprocess=...)`)."
        )
    side = model.input_shape[1]
    if size not in (None, side):
        raise ValueError(f"--size {size} does not go with --model {path}, which takes {side} pixels: leave it out.")
    if model.input_shape[-1] != channels:
        raise ValueError(
            f"--model {path} takes images of {model.input_shape[-1]} channels, and these have {channels}: give "
            f"--channels {model.input_shape[-1]}."
        )
    scores = Labels.of(model, task=task).scores
    if task == "classes" and scores.units > 1 and scores.activation == "sigmoid":
        raise ValueError(
            f"--model {path} ends in several sigmoids, of labels that an image may have together, and the "
            "images are in classes: end it with a softmax or logits."
        )
    if scores.classes != classes:
        raise ValueError(
            f"--model {path} answers for {scores.classes} {task}, and the images are of {classes}: give it a head for "
            "these."
        )
    if preprocess is not None:
        set_preprocessing(model, Preprocessing(preprocess))
    return model


# The fields of a recipe that came after the first ones: a file that has all others is a whole one of before.
_LATER = ("keep", "head")


def read_recipe(path):
    """Return the fields of a recipe from a JSON file, such as a search's `best_recipe.json`.

    What it leaves out is left to the rule, of whose version it may speak as `rule`. A whole file of before there was
    one means what it meant then.
    """
    from kresnets import Recipe
    from kresnets.transfer.default import RULE
    from kresnets.transfer.recipe import RESOLVED

    what = f"{path} is no recipe, a JSON object of fields of kresnets.Recipe"
    try:
        fields = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{what}: {error}.") from None
    rule = fields.pop("rule", None) if isinstance(fields, dict) else None
    known = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(set(fields) - known) if isinstance(fields, dict) else [f"a {type(fields).__name__}"]
    if unknown:
        meant = f"; {close_to(unknown[0], known)}" if close_to(unknown[0], known) else "."
        raise ValueError(f"{what}: it holds {', '.join(unknown)}{meant}")
    if rule is None and set(RESOLVED) - set(_LATER) <= set(fields):
        textbook = Recipe.textbook()
        fields |= {name: getattr(textbook, name) for name in _LATER if name in known and name not in fields}
    if rule is not None and not is_whole(rule, 1):
        raise ValueError(f"{what}: rule is the version of one, a whole number from 1, not {rule!r}.")
    try:
        Recipe(**fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if rule not in (None, RULE):
        logging.getLogger("kresnets").warning(
            "%s was written under rule %d; what it leaves out is resolved by rule %d, that of this version.",
            path,
            rule,
            RULE,
        )
    return fields
