"""The trunk of every residual network and plain twin, from its row.

`trunk` reads as the papers do: a stem, stages of blocks, and in v2 a last norm. Grid sizes in comments are for 224 x
224.
"""

import keras

from kresnets.networks import layers
from kresnets.networks.layers import channel_axis, drop_branch, pad_channels


def trunk(x, spec):
    """Turn an image tensor into the last feature map of the row's network.

    Args:
        x: symbolic tensor `(batch, height, width, channels)`, or channels first under that data format.
        spec: a `kresnets.specs.ResNetSpec`.

    Returns:
        Symbolic tensor of `spec.widths[-1] * spec.expansion` channels, 32 times smaller per side for an ImageNet row.
    """
    x = _stem(x, spec)
    nth = 0
    for stage, (depth, width, grid) in enumerate(zip(spec.depths, spec.widths, spec.grids(), strict=True), start=1):
        stride, first, dilation = grid
        strided = 1 if spec.downsample_in == "first" else depth
        for block in range(1, depth + 1):
            nth += 1
            dilations = (first if block == 1 else dilation, dilation)
            name = f"stage{stage}_block{block}"
            x = residual_block(x, spec, width, stride if block == strided else 1, name, nth, dilations)
    if spec.preactivation:
        x = _norm_and_activate(x, spec, f"stage{len(spec.depths)}_")
    return x


def _conv(x, spec, filters, kernel, name, strides=1, use_bias=False, groups=1, dilation=1):
    # Where no norm comes, only a bias can shift what an activation cuts off.
    use_bias = use_bias or spec.norm == "none"
    return layers.conv(
        x, filters, kernel, name, strides, use_bias, groups, dilation=dilation, standardize=spec.standardize_weights,
        carries=spec.norm == "none",
    )  # fmt: skip


def _norm(x, spec, name, zero=False):
    if spec.norm == "none":
        return x
    return layers.group_norm(x, spec, name, zero) if spec.norm == "group" else layers.norm(x, spec, name, zero)


def _activate(x, spec, name):
    return keras.layers.Activation(spec.activation, name=name)(x)


def _norm_and_activate(x, spec, prefix, index=""):
    """`stem_`, 1 makes the layers stem_bn1 and stem_relu1."""
    return _activate(_norm(x, spec, f"{prefix}bn{index}"), spec, f"{prefix}{spec.activation}{index}")


def _stem(x, spec):
    width = spec.stem_width or spec.widths[0]
    if spec.stem == "cifar":
        convs = ((3, width, 1),)
    elif spec.deep_stem:
        convs = ((3, width // 2, 2), (3, width // 2, 1), (3, width, 1))
    else:
        convs = ((7, width, 2),)
    if spec.stem_pool == "conv":  # in the place of the pool
        convs = (*convs, (3, width, 2))
    for index, (kernel, filters, stride) in enumerate(convs, start=1):
        normed = spec.stem_norm or index < len(convs)
        bias = spec.bias_without_norm and not normed
        x = _conv(x, spec, filters, kernel, f"stem_conv{index}", stride, use_bias=bias)
        if normed:
            x = _norm_and_activate(x, spec, "stem_", index)
    # 112 x 112
    if spec.stem == "imagenet" and spec.stem_pool == "max":
        x = _stem_pool(x, spec)  # 56 x 56
    return x


def _stem_pool(x, spec):
    # Where a ReLU came before, zeros are what torch's padding by nothing is.
    zeros = spec.stem_pool_border == "end" or spec.stem_pool_border == "zeros" and not _needs_bare_border(spec)
    if zeros and not spec.anti_alias:
        # At the end alone: windows begin at the first pixel, and one more row and column let the last window be whole
        # where Caffe rounds up.
        border = ((0, 1), (0, 1)) if spec.stem_pool_border == "end" else 1
        x = keras.layers.ZeroPadding2D(border, name="stem_pool_pad")(x)
        return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    # At stride 2 Keras's own padding, which a max pool leaves out, is not symmetric: so pool at stride 1, then take
    # every other pixel.
    x = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool_window")(x)
    if spec.anti_alias:
        return layers.BlurPooling2D(name="stem_pool")(x)
    return keras.layers.MaxPooling2D(1, strides=2, name="stem_pool")(x)


def _needs_bare_border(spec):
    """Whether zeros around the stem's pool could win: after an activation that goes below 0."""
    return spec.stem_norm and spec.activation != "relu"


def residual_block(x, spec, width, stride, name, nth=1, dilations=(1, 1)):
    """Add a block of the row's kind: x -> shortcut(x) + F(x), or F(x) alone in a plain net.

    Args:
        x: symbolic tensor.
        spec: a `kresnets.specs.ResNetSpec`.
        width: channels of the 3x3 convolutions.
        stride: 1 or more.
        name: prefix of the layers' names, such as `"stage2_block1"`.
        nth: its number among all blocks of the network, from 1. Defaults to 1.
        dilations: of its first 3x3 convolution, and of a second one and what comes after. Defaults to none.

    Returns:
        Symbolic tensor of `width * spec.expansion` channels.
    """
    filters = width * spec.expansion
    rows = _convolutions(spec, width, stride, dilations)
    branch, source = x, x
    for index, (kernel, channels, strides, groups, dilation) in enumerate(rows, start=1):
        last = index == len(rows)
        # A normed stem of v2 has activated the first block's input already, for both of its paths.
        if spec.preactivation and not (spec.stem_norm and nth == index == 1):
            branch = _norm_and_activate(branch, spec, f"{name}_", index)
            # A projection takes the activated input, as in the authors' code; an identity must not (1603.05027 section
            # 3).
            source = branch if index == 1 else source
        bias, blurs = spec.bias_without_norm and last, spec.anti_alias and strides > 1
        branch = _conv(
            branch, spec, channels, kernel, f"{name}_conv{index}", 1 if blurs else strides, bias, groups, dilation
        )
        if not spec.preactivation:
            branch = _norm(branch, spec, f"{name}_bn{index}", zero=spec.zero_gamma and last)
            branch = branch if last else _activate(branch, spec, f"{name}_{spec.activation}{index}")
        if blurs:
            branch = layers.BlurPooling2D(name=f"{name}_blur")(branch)
    if spec.se_ratio:
        branch = _squeeze_and_excite(branch, spec, f"{name}_se")
    if spec.residual:
        branch = drop_branch(branch, spec, nth, sum(spec.depths), f"{name}_drop")
        shortcut = _shortcut(x, source, spec, filters, stride, f"{name}_shortcut", dilations)
        branch = keras.layers.Add(name=f"{name}_add")([shortcut, branch])
    return branch if spec.preactivation else _activate(branch, spec, f"{name}_out")


def _convolutions(spec, width, stride, dilations):
    """List (kernel, channels, stride, groups, dilation) of a branch's convolutions."""
    dilation, after = dilations
    if spec.block == "basic":
        return ((3, width, stride, 1, dilation), (3, width, 1, 1, after))
    first, second = (stride, 1) if spec.stride_on == "1x1" else (1, stride)
    inner = spec.inner_width(width)
    middle = (3, inner, second, spec.cardinality, dilation)
    return ((1, inner, first, 1, 1), middle, (1, width * spec.expansion, 1, 1, 1))


def _squeeze_and_excite(x, spec, name):
    """Scale each channel by what a small network makes of the means of all (arXiv 1709.01507 section 3)."""
    channels = x.shape[channel_axis()]
    hidden = max(8, int(channels * spec.se_ratio + 4) // 8 * 8)
    scale = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    scale = layers.conv(scale, hidden, 1, f"{name}_conv1", use_bias=True)
    scale = keras.layers.Activation("relu", name=f"{name}_relu")(scale)
    scale = layers.conv(scale, channels, 1, f"{name}_conv2", use_bias=True)
    scale = keras.layers.Activation("sigmoid", name=f"{name}_sigmoid")(scale)
    return keras.layers.Multiply(name=f"{name}_scale")([x, scale])


def _shortcut(x, activated, spec, filters, stride, name, dilations):
    channels = x.shape[channel_axis()]
    # keras.applications' v2 nets subsample the identity in a stage's last block, where their stride is.
    differs = channels != filters or (stride > 1 and spec.downsample_in == "first")
    if spec.shortcut == "C" or (spec.shortcut == "B" and differs):
        x = activated
        if spec.avg_shortcut and stride > 1:
            # "same" at stride 2 keeps the odd row or column and does not count padding, as timm's ceil_mode pool.
            x = keras.layers.AveragePooling2D(stride, strides=stride, padding="same", name=f"{name}_pool")(x)
            stride = 1
        elif spec.avg_shortcut and dilations[1] > 1:
            # timm pools still where a stage is dilated instead of striding, and counts the zeros at the border there.
            x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
            x = keras.layers.AveragePooling2D(2, strides=1, name=f"{name}_pool")(x)
        x = _conv(x, spec, filters, 1, f"{name}_conv", stride, use_bias=spec.bias_without_norm)
        return x if spec.preactivation else _norm(x, spec, f"{name}_bn")
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_pool")(x)
    return x if channels == filters else pad_channels(x, filters - channels, f"{name}_pad")
