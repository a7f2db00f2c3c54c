"""The trunk of Inception-v3, Inception-v4 and the Inception-ResNets: one interpreter of their rows.

A row is chains of steps (`Conv`, `Pool`, `Mix`, `Residual` of `kresnets.specs`). A layer is named by the way to it:
stage, block, branches, and its step's place in the chain, such as `stage4_block2_branch3_conv2`.
"""

import keras

from kresnets.networks.layers import channel_axis, conv, drop_branch, norm, relu
from kresnets.specs import Conv, Mix, Pool, Residual


def trunk(x, spec):
    """Turn an image tensor into the last feature map of the row's network.

    Args:
        x: symbolic tensor `(batch, height, width, channels)`, or channels first under that data format.
        spec: a `kresnets.specs.InceptionSpec`.

    Returns:
        Symbolic tensor of the last block's channels; for 299 pixels a side it has 8.
    """
    x = _chain(x, spec.stem, spec, "stem", 0)
    nth = 0
    for stage, blocks in enumerate(spec.stages, start=1):
        for block, steps in enumerate(blocks, start=1):
            x = _chain(x, steps, spec, f"stage{stage}_block{block}", nth)
            nth += sum(isinstance(step, Residual) for step in steps)
    return x


def _chain(x, steps, spec, name, nth):
    """Apply steps one after the other; `nth` residual blocks came before."""
    for place, step in enumerate(steps, start=1):
        match step:
            case Conv():
                x = conv(x, step.filters, step.kernel, f"{name}_conv{place}", step.stride, padding=step.padding)
                x = relu(norm(x, spec, f"{name}_bn{place}"), f"{name}_relu{place}")
            case Pool():
                # Keras leaves padding out of a mean, as TF-slim does and timm in all of these but its inception_v3.
                layer = keras.layers.MaxPooling2D if step.kind == "max" else keras.layers.AveragePooling2D
                x = layer(3, step.stride, step.padding, name=f"{name}_pool{place}")(x)
            case Mix():
                x = _joined(x, step.branches, spec, name, nth)
            case Residual():
                nth += 1
                x = _residual(x, step, spec, name, nth)
    return x


def _joined(x, branches, spec, name, nth):
    outputs = [_chain(x, steps, spec, f"{name}_branch{n}", nth) for n, steps in enumerate(branches, start=1)]
    _check_grids(outputs, spec, name)
    return keras.layers.Concatenate(axis=channel_axis(), name=f"{name}_concat")(outputs)


def _residual(x, step, spec, name, nth):
    branch = _joined(x, step.branches, spec, name, nth)
    _check_grids([x, branch], spec, name)
    # Linear, with a bias and no norm, as in the authors' code.
    branch = conv(branch, x.shape[channel_axis()], 1, f"{name}_up", use_bias=True)
    if step.scale != 1:
        branch = keras.layers.Rescaling(step.scale, name=f"{name}_scale")(branch)
    branch = drop_branch(branch, spec, nth, spec.residuals, f"{name}_drop")
    x = keras.layers.Add(name=f"{name}_add")([x, branch])
    return relu(x, f"{name}_out") if step.relu else x


def _check_grids(tensors, spec, name):
    axis = channel_axis() % 4
    grids = [tuple(side for i, side in enumerate(x.shape[1:], start=1) if i != axis) for x in tensors]
    if len(set(grids)) > 1:
        raise ValueError(
            f"{spec.name}: what `stages` joins in {name} has grids of {', '.join(map(str, grids))}: let its branches "
            "stride and pad alike."
        )


def convolutions(spec):
    """Yield the names of the convolutions in the order of the row, which is keras.applications' order of making them.

    Args:
        spec: a `kresnets.specs.InceptionSpec`.

    Example:
        >>> import kresnets
        >>> next(kresnets.networks.inception.convolutions(kresnets.SPECS["InceptionV3"]))
        'stem_conv1'
    """
    yield from _named(spec.stem, "stem")
    for stage, blocks in enumerate(spec.stages, start=1):
        for block, steps in enumerate(blocks, start=1):
            yield from _named(steps, f"stage{stage}_block{block}")


def _named(steps, name):
    for place, step in enumerate(steps, start=1):
        if isinstance(step, Conv):
            yield f"{name}_conv{place}"
        for n, branch in enumerate(getattr(step, "branches", ()), start=1):
            yield from _named(branch, f"{name}_branch{n}")
        if isinstance(step, Residual):
            yield f"{name}_up"
