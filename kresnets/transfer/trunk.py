"""The network that a command trains: its row, its trunk from weights, its recipe from a file."""

import dataclasses
import json
import logging
import pathlib

from kresnets._util.checks import close_to, is_whole
from kresnets.runs.folder import RunFolder


def spec_of(name):
    """Return the row of a network."""
    import kresnets

    if name not in kresnets.SPECS:
        hint = close_to(name, kresnets.SPECS) or f"use one of {', '.join(kresnets.list_models())}."
        raise ValueError(f"There is no network {name!r}: {hint}")
    return kresnets.SPECS[name]


def with_trunk(spec, weights, size, classes):
    """Build the network with its own head on the trunk of the weights: none, imagenet, a tag, a file, or another run.

    Without a size it is that of the weights: what a run was trained at, or what their `Preprocessing` says.
    """
    import kresnets

    if size and size < spec.min_size:
        raise ValueError(f"`size` must be at least {spec.min_size} pixels a side for {spec.name}. Received: {size}")
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
