"""Which layers learn: the flags behind `freeze` and `StagedUnfreezing`."""

import keras

from kresnets.groups import layout

BATCHNORM = ("frozen", "train")


def check_batchnorm(batchnorm):
    """Raise a ValueError unless `batchnorm` is one of `BATCHNORM`."""
    if batchnorm not in BATCHNORM:
        raise ValueError(f"`batchnorm` must be 'frozen' or 'train'. Received: batchnorm={batchnorm!r}")


def freeze(model, through=None, batchnorm="frozen", groups=None):
    """Freeze a model from its input up to and including a group or block; let the rest learn.

    Takes effect at the next `compile` (Keras reads the flags when it traces its step).

    Args:
        model: a Keras model; see `kresnets.groups`.
        through: last frozen group or block, such as `"stage2"` or `"stage3_block2"`; None freezes nothing but the norms.
        batchnorm: `"frozen"` keeps the trunk's batch norms (statistics, gamma, beta) as they are in learning groups too; `"train"`
            lets them learn with their group. Norms of the head always learn. Defaults to `"frozen"`.
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
    where = layout(model, groups)
    end = (-1, 0) if through is None else where.last(through)
    set_trainable(model, where, lambda place: place > end, batchnorm)
    return model


def set_trainable(model, where, learns, batchnorm):
    """Set every flag below `model`: a layer learns where `learns(place)`, but for the norms that `batchnorm` freezes."""
    head = len(where.names) - 1
    for container in _containers(model):
        container.trainable = True
    for place, layer in where.places:
        layer.trainable = learns(place)
        if layer.trainable and batchnorm == "frozen" and place[0] != head:
            for inner in _with_inner(layer):
                if isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False


def _containers(model):
    # Those of the outside first: setting a container may set what it holds.
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _containers(layer)


def _with_inner(layer):
    # No public door opens a layer that wraps others (`keras.Model.layers` is for models only).
    return layer._flatten_layers()


def copy_trunk(source, target):
    """Give a model the trunk of another one of the same network: all weights but the head's, and what preprocessing they want.

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
        {layer.name: layer for name, layers in layout(model).groups().items() if name != "head" for layer in layers if layer.weights}
        for model in (source, target)
    ]
    shapes = [{name: [tuple(w.shape) for w in layer.weights] for name, layer in trunk.items()} for trunk in trunks]
    differing = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"The trunks of {source.name!r} and {target.name!r} differ in {len(differing)} layers, first in {name} "
            f"({shapes[0].get(name, 'absent')} against {shapes[1].get(name, 'absent')}): build the same network for both."
        )
    for name, layer in trunks[1].items():
        layer.set_weights(trunks[0][name].get_weights())
        if hasattr(layer, "preprocessing"):
            layer.preprocessing = trunks[0][name].preprocessing
    return target
