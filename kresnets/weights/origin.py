"""Whether a model's trunk was trained: where its weights came from, if that is known, else its norms'
statistics."""

import keras
import numpy as np

from kresnets.keras_hooks.graph import with_inner

TRAINED = "an earlier fine_tune"  # the origin of a model that began at random, and was trained


def note(model: keras.Model, origin: str | None) -> None:
    """Have a model of kresnets say where its weights came from: a tag or a file's name, None for a random start."""
    for layer in with_inner(model):
        if getattr(layer, "preprocessing", None) is not None:
            layer.origin = origin


def origin_of(model: keras.Model) -> str | None:
    """Return what a model says of where its weights came from: a tag, the name of a file, or None."""
    return next((one.origin for one in with_inner(model) if getattr(one, "origin", None)), None)


def is_pretrained(model: keras.Model) -> tuple[bool, str]:
    """Tell a trunk that was trained from one that starts at random.

    Wrongly taken for fresh, a good trunk would be ruined by the rates of a training from scratch: so in doubt it is
    pretrained.

    Args:
        model: a Keras model.

    Returns:
        `(whether it is, why, as the rest of a sentence)`.

    Example:
        >>> import kresnets
        >>> from kresnets.weights.origin import is_pretrained
        >>> is_pretrained(kresnets.CifarResNet20())[0]
        False
    """
    if origin := origin_of(model):
        return True, f"its weights are from {origin}"
    layers = with_inner(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.built]
    if norms:
        if all(_is_initial(norm) for norm in norms):
            return False, "the statistics of all its norms are those of a random start"
        return True, "its norms have seen images"
    # Group norms keep no statistics; what they and convolutions add begins at 0, and a step moves it.
    shifts = [one for layer in layers for one in layer.weights if one.name in ("beta", "bias") and _in_trunk(layer)]
    if not shifts:
        return True, "it has no norms whose statistics would tell a random start"
    if not any(np.any(keras.ops.convert_to_numpy(shift)) for shift in shifts):
        return False, "all that its norms and convolutions add is 0, as at a random start"
    return True, "its norms or convolutions have learned"


def _in_trunk(layer):
    return isinstance(layer, (keras.layers.GroupNormalization, keras.layers.Conv2D))


def _is_initial(norm):
    mean, variance = (keras.ops.convert_to_numpy(one) for one in (norm.moving_mean, norm.moving_variance))
    return not np.any(mean) and bool(np.all(variance == 1))
