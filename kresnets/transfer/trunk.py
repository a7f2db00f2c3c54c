"""The network that a command trains: its row, its trunk from weights, its recipe from a file."""

import dataclasses
import difflib
import json
import logging
import pathlib

from kresnets._util.checks import is_whole
from kresnets.runs.folder import RunFolder


def spec_of(name):
    """Return the row of a network."""
    import kresnets

    if name not in kresnets.SPECS:
        known = {one.lower(): one for one in kresnets.SPECS}
        close = [known[one] for one in difflib.get_close_matches(name.lower(), known, n=3)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(kresnets.list_models())}."
        raise ValueError(f"There is no network {name!r}: {hint}")
    return kresnets.SPECS[name]


def with_trunk(spec, weights, size, classes):
    """Build the network with its own head on the trunk of the weights: none, imagenet, a tag, a file, or another run.

    Without a size it is that of the weights: what a run was trained at, or what their `Preprocessing` says.
    """
    import kresnets

    build = getattr(kresnets, spec.name)
    a_run = (pathlib.Path(weights) / "config.json").is_file()
    if a_run:
        source, _, _ = RunFolder(weights).load()
        size = size or source.input_shape[1]
    else:
        shape = size and (size, size, 3)
        source = build(weights=None if weights == "none" else weights, input_shape=shape, classes=classes)
        size = size or kresnets.preprocessing_of(source).size or spec.input_size
        if source.input_shape[1] == size:
            return source
    model = build(weights=None, input_shape=(size, size, 3), classes=classes)
    return kresnets.copy_trunk(source, model)


def own_model(path, weights, size, classes):
    """Load a model of the user's own from a `.keras` file, which is trained on as it is.

    Raises:
        ValueError: where there is none, its head does not answer for so many classes, or an option asks for another.
    """
    import keras

    from kresnets.transfer.labels import Labels

    if not pathlib.Path(path).is_file():
        raise ValueError(f"--model {path}: there is no such file.")
    if weights != "imagenet":
        raise ValueError(f"--weights {weights} does not go with --model {path}, which brings its own: leave one out.")
    model = keras.saving.load_model(path, compile=False)
    side = model.input_shape[1]
    if size not in (None, side):
        raise ValueError(f"--size {size} does not go with --model {path}, which takes {side} pixels: leave it out.")
    scores = Labels.of(model, task="classes").scores
    if scores.units > 1 and scores.activation == "sigmoid":
        raise ValueError(
            f"--model {path} ends in several sigmoids, of labels that an image may have together, and the "
            "images are in classes: end it with a softmax or logits."
        )
    if scores.classes != classes:
        raise ValueError(
            f"--model {path} answers for {scores.classes} classes, and the images are of {classes}: give it a head for "
            "these."
        )
    return model


# The fields of a recipe that came after the first ones: a file that has all others is a whole one of before.
_LATER = ("keep", "head")


def read_recipe(path):
    """Return the fields of a recipe from a JSON file, such as a search's `best_recipe.json`.

    What it leaves out is left to the rule, of whose version it may speak as `rule`. A whole file of before there was
    one means what it meant then.
    """
    from kresnets import Recipe
    from kresnets.transfer.plan import RULE
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
        raise ValueError(f"{what}: it holds {', '.join(unknown)}.")
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
