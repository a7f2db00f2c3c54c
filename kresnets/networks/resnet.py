"""The trunk of every residual network and plain twin, from its row.

`trunk` reads as the papers do: a stem, stages of blocks, and in v2 a last norm. Grid sizes in comments are for 224 x
224.
"""

import keras

from kresnets.networks.layers import channel_axis, conv, drop_branch, norm, pad_channels, relu


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
    for stage, (depth, width, stride) in enumerate(zip(spec.depths, spec.widths, spec.strides, strict=True), start=1):
        strided = 1 if spec.downsample_in == "first" else depth
        for block in range(1, depth + 1):
            nth += 1
            x = residual_block(x, spec, width, stride if block == strided else 1, f"stage{stage}_block{block}", nth)
    if spec.preactivation:
        last = f"stage{len(spec.depths)}"
        x = relu(norm(x, spec, f"{last}_bn"), f"{last}_relu")
    return x


def _stem(x, spec):
    width = spec.stem_width or spec.widths[0]
    if spec.stem == "cifar":
        convs = ((3, width, 1),)
    elif spec.deep_stem:
        convs = ((3, width // 2, 2), (3, width // 2, 1), (3, width, 1))
    else:
        convs = ((7, width, 2),)
    for index, (kernel, filters, stride) in enumerate(convs, start=1):
        normed = spec.stem_norm or index < len(convs)
        x = conv(x, filters, kernel, f"stem_conv{index}", stride, use_bias=spec.bias_without_norm and not normed)
        if normed:
            x = relu(norm(x, spec, f"stem_bn{index}"), f"stem_relu{index}")
    # 112 x 112
    if spec.stem == "imagenet":
        x = _stem_pool(x, spec)  # 56 x 56
    return x


def _stem_pool(x, spec):
    if spec.stem_pool_border != "nothing":
        # Where a ReLU came before, zeros are what torch's padding by nothing is. At the end alone: windows begin at the
        # first pixel, and one more row and column let the last window be whole where Caffe rounds up.
        border = ((0, 1), (0, 1)) if spec.stem_pool_border == "end" else 1
        x = keras.layers.ZeroPadding2D(border, name="stem_pool_pad")(x)
        return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    # At stride 2 Keras's own padding, which a max pool leaves out, is not symmetric: so pool at stride 1, then take
    # every other pixel.
    x = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="stem_pool_window")(x)
    return keras.layers.MaxPooling2D(1, strides=2, name="stem_pool")(x)


def residual_block(x, spec, width, stride, name, nth=1):
    """Add a block of the row's kind: x -> shortcut(x) + F(x), or F(x) alone in a plain net.

    Args:
        x: symbolic tensor.
        spec: a `kresnets.specs.ResNetSpec`.
        width: channels of the 3x3 convolutions.
        stride: 1 or more.
        name: prefix of the layers' names, such as `"stage2_block1"`.
        nth: its number among all blocks of the network, from 1. Defaults to 1.

    Returns:
        Symbolic tensor of `width * spec.expansion` channels.
    """
    filters = width * spec.expansion
    rows = _convolutions(spec, width, stride)
    branch, source = x, x
    for index, (kernel, channels, strides, groups) in enumerate(rows, start=1):
        last = index == len(rows)
        # A normed stem of v2 has activated the first block's input already, for both of its paths.
        if spec.preactivation and not (spec.stem_norm and nth == index == 1):
            branch = relu(norm(branch, spec, f"{name}_bn{index}"), f"{name}_relu{index}")
            # A projection takes the activated input, as in the authors' code; an identity must not (1603.05027 section
            # 3).
            source = branch if index == 1 else source
        bias = spec.bias_without_norm and last
        branch = conv(branch, channels, kernel, f"{name}_conv{index}", strides, use_bias=bias, groups=groups)
        if not spec.preactivation:
            branch = norm(branch, spec, f"{name}_bn{index}", zero=spec.zero_gamma and last)
            branch = branch if last else relu(branch, f"{name}_relu{index}")
    if spec.residual:
        branch = drop_branch(branch, spec, nth, sum(spec.depths), f"{name}_drop")
        shortcut = _shortcut(x, source, spec, filters, stride, f"{name}_shortcut")
        branch = keras.layers.Add(name=f"{name}_add")([shortcut, branch])
    return branch if spec.preactivation else relu(branch, f"{name}_out")


def _convolutions(spec, width, stride):
    """List (kernel, channels, stride, groups) of a branch's convolutions."""
    if spec.block == "basic":
        return ((3, width, stride, 1), (3, width, 1, 1))
    first, second = (stride, 1) if spec.stride_on == "1x1" else (1, stride)
    inner = spec.inner_width(width)
    return ((1, inner, first, 1), (3, inner, second, spec.cardinality), (1, width * spec.expansion, 1, 1))


def _shortcut(x, activated, spec, filters, stride, name):
    channels = x.shape[channel_axis()]
    # keras.applications' v2 nets subsample the identity in a stage's last block, where their stride is.
    differs = channels != filters or (stride > 1 and spec.downsample_in == "first")
    if spec.shortcut == "C" or (spec.shortcut == "B" and differs):
        x = activated
        if spec.avg_shortcut and stride > 1:
            # "same" at stride 2 keeps the odd row or column and does not count padding, as timm's ceil_mode pool.
            x = keras.layers.AveragePooling2D(stride, strides=stride, padding="same", name=f"{name}_pool")(x)
            stride = 1
        x = conv(x, filters, 1, f"{name}_conv", stride, use_bias=spec.bias_without_norm)
        return x if spec.preactivation else norm(x, spec, f"{name}_bn")
    if stride > 1:
        x = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_pool")(x)
    return x if channels == filters else pad_channels(x, filters - channels, f"{name}_pad")
