"""Which layers learn: the flags behind `freeze` and `StagedUnfreezing`."""

import warnings
from collections.abc import Callable

import keras
import numpy as np

from kresnets._util.types import Patterns
from kresnets.groups import Layout, layout
from kresnets.keras_hooks.graph import layer_computation, with_inner

BATCHNORM = ("frozen", "train")


def check_batchnorm(batchnorm: str) -> None:
    """Raise a ValueError unless `batchnorm` is one of `BATCHNORM`."""
    if batchnorm not in BATCHNORM:
        raise ValueError(f"`batchnorm` must be 'frozen' or 'train'. Received: batchnorm={batchnorm!r}")


def freeze(
    model: keras.Model, through: str | None = None, batchnorm: str = "frozen", groups: Patterns = None
) -> keras.Model:
    """Freeze a model from its input up to and including a group or block; let the rest learn.

    Takes effect at the next `compile` (Keras reads the flags when it traces its step).

    Args:
        model: a Keras model; see `kresnets.groups`.
        through: last frozen group or block, such as `"stage2"` or `"stage3_block2"`; None freezes nothing but the
            norms.
        batchnorm: `"frozen"` keeps the trunk's batch norms (statistics, gamma, beta) as they are in learning groups
            too; `"train"` lets them learn with their group. Norms of the head always learn. Defaults to `"frozen"`.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`. Defaults to None.

    Returns:
        The model, with its flags set; other flags set earlier are replaced.

    Raises:
        ValueError: for a group or block that the model lacks, or an unknown `batchnorm`.

    Example:
        >>> import kresnets
        >>> model = kresnets.freeze(kresnets.CifarResNet20(), through="stage3")
        >>> [v.path for v in model.trainable_variables]
        ['head_dense/kernel', 'head_dense/bias']
    """
    check_batchnorm(batchnorm)
    model_layout = layout(model, groups)
    end = (-1, 0) if through is None else model_layout.last(through)
    set_trainable(model, model_layout, lambda place: place > end, batchnorm)
    return model


def set_trainable(
    model: keras.Model, model_layout: Layout, learns: Callable[[tuple[int, float]], bool], batchnorm: str
) -> None:
    """Set every flag below `model`: a layer learns where `learns(place)`, but for the norms that `batchnorm`
    freezes."""
    head = len(model_layout.names) - 1
    dead = []
    for container in _containers(model):
        container.trainable = True
    for place, layer in model_layout.places:
        layer.trainable = learns(place)
        if layer.trainable and batchnorm == "frozen" and place[0] != head:
            for inner in with_inner(layer):
                if isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False
                    dead += [inner.name] if _is_silent(inner) else []
    if dead:
        # What `deepen` adds, and a row with zero-gamma that was never trained.
        others = f" and {len(dead) - 1} more" if len(dead) > 1 else ""
        warnings.warn(
            f"{dead[0]}{others} would learn but for batchnorm='frozen', and have gamma = 0: while it is frozen, "
            "nothing in their blocks can learn. Use batchnorm='train'.",
            stacklevel=2,
        )


def _is_silent(norm):
    return norm.scale and norm.built and not np.any(keras.ops.convert_to_numpy(norm.gamma))


def _containers(model):
    # Those of the outside first: setting a container may set what it holds.
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _containers(layer)


def copy_trunk(source: keras.Model, target: keras.Model) -> keras.Model:
    """Give a model the trunk of another one of the same network: all weights but the head's, and what preprocessing
    they want.

    Args:
        source: a Keras model with a kresnets trunk.
        target: another one with the same trunk; its head may differ. Changed in place.

    Returns:
        `target`.

    Raises:
        ValueError: where the trunks differ in layers or shapes; nothing is changed then.

    Example:
        >>> import kresnets
        >>> ten, two = kresnets.CifarResNet20(classes=10), kresnets.CifarResNet20(classes=2)
        >>> float(abs(kresnets.copy_trunk(ten, two).layers[1].get_weights()[0] - ten.layers[1].get_weights()[0]).max())
        0.0
    """
    trunks = [
        [layer for name, layers in layout(model).groups().items() if name != "head" for layer in layers]
        for model in (source, target)
    ]
    described = [
        {layer.name: layer_computation(layer) for layer in trunk if not isinstance(layer, keras.layers.InputLayer)}
        for trunk in trunks
    ]
    differing = [name for name in {**described[0], **described[1]} if described[0].get(name) != described[1].get(name)]
    if differing:
        name = differing[0]
        one, other = (trunk.get(name) for trunk in described)
        absent = "absent in one of them"
        difference = (
            "; ".join(f"{k}: {one[k]} against {other.get(k)}" for k in one if one[k] != other.get(k))
            if one and other
            else absent
        )
        raise ValueError(
            f"The trunks of {source.name!r} and {target.name!r} differ in {len(differing)} layers, first in {name} "
            f"({difference}): build the "
            "same network for both."
        )
    if any(len({layer.name for layer in trunk}) != len(trunk) for trunk in trunks):
        raise ValueError(
            "A model has several trunks with layers of the same names: copy each from or to its own model."
        )
    weights = {layer.name: layer for layer in trunks[0]}
    for layer in trunks[1]:
        if layer.weights:
            layer.set_weights(weights[layer.name].get_weights())
        if hasattr(layer, "preprocessing"):
            layer.preprocessing, layer.origin = weights[layer.name].preprocessing, weights[layer.name].origin
    return target
