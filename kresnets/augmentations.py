"""Augmentation as a list that a file can hold: Keras's own image layers by name, with their settings."""

import inspect
import tomllib
from collections.abc import Mapping
from typing import Any

import keras

from kresnets._util.checks import close_to

_BASE = keras.layers.RandomFlip.__mro__[1]  # of all of Keras's layers that change images
# They change the size of images, or their labels (which `Recipe.mixup` does).
_OTHERS = ("CenterCrop", "CutMix", "MaxNumBoundingBoxes", "MixUp", "RandomCrop", "Resizing")
# As the pipeline has its images, whatever Keras is set to.
_OURS = {"data_format": "channels_last", "dtype": "float32", "value_range": (0, 255)}


def known() -> list[str]:
    """Return the names of the layers that a list may hold."""
    names = [name for name, one in vars(keras.layers).items() if isinstance(one, type) and issubclass(one, _BASE)]
    return sorted(set(names) - {*_OTHERS, _BASE.__name__})


def layers_of(settings: Mapping[str, Mapping[str, Any]]) -> list[keras.layers.Layer]:
    """Return the layers that a list names, in its order.

    Args:
        settings: dict of the name of a Keras layer (`known`) to a dict of its arguments. What the pipeline decides
            (`data_format`, `dtype`, `value_range` 0..255, the seed) is not among them.

    Raises:
        ValueError: for a layer or an argument that there is not.

    Example:
        >>> from kresnets.augmentations import layers_of
        >>> [type(layer).__name__ for layer in layers_of({"RandomFlip": {"mode": "horizontal"}, "AutoContrast": {}})]
        ['RandomFlip', 'AutoContrast']
    """
    if not isinstance(settings, Mapping) or not settings:
        raise ValueError(f"A list of augmentations must be a dict of layers, at least one. Received: {settings!r}")
    made = []
    for name, given in settings.items():
        if name not in known():
            hint = close_to(str(name), known()) or f"use some of {', '.join(known())}."
            raise ValueError(f"There is no layer {name!r} among Keras's that change images and keep their size: {hint}")
        kind = getattr(keras.layers, name)
        if not isinstance(given, Mapping):
            raise ValueError(f"The arguments of {name} must be a dict, once for each layer. Received: {given!r}")
        if taken := {*_OURS, "seed", "name"} & set(given):
            raise ValueError(f"{name}: {', '.join(sorted(taken))} is said by the pipeline: leave it out.")
        ours = dict(_OURS)
        if "value_range" not in inspect.signature(kind).parameters:
            del ours["value_range"]
        try:
            made.append(kind(**ours, **given))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} does not take {dict(given)}: {' '.join(str(error).split())}") from None
    return made


def read(path: str) -> dict[str, dict[str, Any]]:
    """Return the list that a TOML file holds: a table a layer, `[RandomRotation]` and below it `factor = 0.1`.

    Raises:
        ValueError: for a file that is no such list.
        OSError: where it cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # as editors of Windows write it
            settings = tomllib.loads(file.read())
        layers_of(settings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return settings


def told(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a list in words, for a plan.

    Example:
        >>> from kresnets.augmentations import told
        >>> told({"RandomFlip": {"mode": "horizontal"}, "AutoContrast": {}})
        "RandomFlip(mode='horizontal'), AutoContrast()"
    """
    calls = ((name, ", ".join(f"{key}={value!r}" for key, value in given.items())) for name, given in settings.items())
    return ", ".join(f"{name}({arguments})" for name, arguments in calls)
