"""The groups of a network: stem, stage1..stageN, head, in the order in which an image passes them.

The name of a trunk's layer says its group (`stage3_block2_conv1` is in `stage3`), so a model needs no bookkeeping:
whatever is read back from a file, cloned, nested or given a new head still has its groups.
"""

import dataclasses
import math
import re
from typing import Any

import keras

from kresnets._util.types import Patterns

_TRUNK = re.compile(r"(stem|stage([1-9]\d*))_(?:block([1-9]\d*)(?:_|$))?")
_AFTER_BLOCKS = math.inf


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each layer of a model stands: `(group's index, block)`, small before large.

    Args:
        names: the groups in order; the last one is the head.
        places: `(place, layer)` for each layer, containers opened.
    """

    names: tuple[str, ...]
    places: tuple[tuple[tuple[int, float], keras.layers.Layer], ...]

    def groups(self) -> dict[str, list[keras.layers.Layer]]:
        """Return an ordered dict group -> list of layers."""
        found: dict[str, list[keras.layers.Layer]] = {name: [] for name in self.names}
        for (index, _), layer in self.places:
            found[self.names[index]].append(layer)
        return found

    def first(self, name: str) -> tuple[int, float]:
        """Return the place where the group or block `name` begins."""
        group, block = self._split(name)
        return (self.names.index(group), block or 0)

    def last(self, name: str) -> tuple[int, float]:
        """Return the place where the group or block `name` ends."""
        group, block = self._split(name)
        return (self.names.index(group), block or _AFTER_BLOCKS)

    def _split(self, name):
        if name in self.names:
            return name, None
        match = re.fullmatch(r"(.+)_block(\d+)", name) if isinstance(name, str) else None
        if match and match[1] in self.names:
            index, block = self.names.index(match[1]), int(match[2])
            if any(place == (index, block) for place, _ in self.places):
                return match[1], block
            blocks = sorted(
                {place[1] for place, _ in self.places if place[0] == index and 0 < place[1] < _AFTER_BLOCKS}
            )
            if blocks:
                raise ValueError(f"{match[1]} has blocks 1 to {blocks[-1]}: there is no {name!r}.")
        raise ValueError(
            f"The model has no group or block {name!r}: use one of {', '.join(self.names)}, or a block such as "
            f"'{self.names[-2]}_block1'."
            if len(self.names) > 1
            else f"The model has no group {name!r}: it has {self.names}."
        )


def groups(model: keras.Model, patterns: Patterns = None) -> dict[str, list[keras.layers.Layer]]:
    """Give the layers of a model by group, in the order in which an image passes them.

    Args:
        model: a Keras model with a kresnets trunk, nested or with a head of its own; or any other with `patterns`.
        patterns: for other models, an ordered dict `{group: regex}`; each regex must match whole layer names
            (`re.fullmatch`), and each layer that has weights must match exactly one. The last group is the head.
            Defaults to None.

    Returns:
        Dict group -> list of layers: `stem` (with the input and what precedes the stem in its graph), `stage1` ..
        `stageN`, `head` (with all that a user adds around the trunk).

    Raises:
        ValueError: where the model has no kresnets trunk and no patterns are given, or where a layer matches none or
            several.

    Example:
        >>> import kresnets
        >>> list(kresnets.groups(kresnets.CifarResNet20()))
        ['stem', 'stage1', 'stage2', 'stage3', 'head']
    """
    return layout(model, patterns).groups()


def layout(model: keras.Model, patterns: Patterns = None) -> Layout:
    """Find the place of every layer; see `groups` for the arguments and errors."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"Groups are those of a Keras model. Received: {type(model).__name__}")
    unbuilt = [layer.name for layer in leaves(model) if not layer.built]
    if patterns is not None and unbuilt:  # who knows which weights it will have
        raise ValueError(
            f"Layer {unbuilt[0]!r} of {model.name!r} has no weights yet: build the model first, by an Input or a call "
            "on a batch."
        )
    found = _by_name(model) if patterns is None else _by_pattern(model, patterns)
    placed = {id(weight) for _, layer in found.places for weight in layer.weights}
    loose = [weight.path for weight in model.weights if id(weight) not in placed]
    if loose:
        raise ValueError(
            f"{model.name!r} holds weights of its own, outside of its layers ({loose[0]}): put them into a layer, "
            "which has a group."
        )
    return found


def leaves(layer: keras.layers.Layer) -> Any:
    """Yield the layers inside, models opened; a layer that wraps others counts as one."""
    for inner in layer.layers:
        if isinstance(inner, keras.Model):
            yield from leaves(inner)
        else:
            yield inner


def _by_name(model):
    found = {id(layer): _TRUNK.match(layer.name) for layer in leaves(model)}
    stages = sorted({int(match[2]) for match in found.values() if match and match[2]})
    if not stages:
        raise ValueError(
            f"{model.name!r} has no layers named as kresnets names them (stem_conv1, stage1_block1_conv1, ...): pass "
            "`groups`, an ordered dict {group: regex of layer names} whose last group is the head."
        )
    names = ("stem", *(f"stage{stage}" for stage in stages), "head")
    places = []
    for layer, before_stem in _with_origin(model, found):
        match = found[id(layer)]
        if match and match[2]:
            places.append(((names.index(match[1]), int(match[3]) if match[3] else _AFTER_BLOCKS), layer))
        else:
            stem = match or before_stem or isinstance(layer, keras.layers.InputLayer)
            places.append(((0 if stem else len(names) - 1, _AFTER_BLOCKS), layer))
    return Layout(names, tuple(places))


def _with_origin(model, found):
    """Yield each leaf and whether it precedes the stem in the very graph that holds the stem."""
    # `layers` of a Functional model is in the order of the graph, so what a user put before the stem comes before it.
    stems = (i for i, layer in enumerate(model.layers) if (match := found.get(id(layer))) and match[1] == "stem")
    stem = next(stems, 0)
    for i, layer in enumerate(model.layers):
        inside = _with_origin(layer, found) if isinstance(layer, keras.Model) else ((layer, False),)
        for leaf, before in inside:
            yield leaf, before or i < stem


def _by_pattern(model, patterns):
    if (
        not isinstance(patterns, dict)
        or not patterns
        or not all(isinstance(p, str) for pair in patterns.items() for p in pair)
    ):
        raise ValueError(f"`groups` must be an ordered dict {{group: regex}}, the head last. Received: {patterns!r}")
    for name, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"The pattern of group {name!r} is no regular expression: {pattern!r}, {error}.") from None
    names, places = tuple(patterns), []
    for layer in leaves(model):
        matching = [index for index, pattern in enumerate(patterns.values()) if re.fullmatch(pattern, layer.name)]
        if len(matching) > 1 or not matching and layer.weights:
            which = ", ".join(names[index] for index in matching) or "none"
            raise ValueError(
                f"Layer {layer.name!r} matches {which} of the groups {', '.join(names)}: each layer with weights must "
                "match exactly one."
            )
        if matching:
            places.append(((matching[0], _AFTER_BLOCKS), layer))
    empty = [name for index, name in enumerate(names) if not any(place[0] == index for place, _ in places)]
    if empty:
        raise ValueError(f"No layer of {model.name!r} matches the pattern of {', '.join(empty)}: mend or remove it.")
    return Layout(names, tuple(places))
