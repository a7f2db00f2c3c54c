"""The trunk of every residual network and plain twin, from its row.

`trunk` reads as the papers do: a stem, stages of blocks, and in v2 a last norm. Grid sizes in comments are for 224 x
224.
"""

import keras

from kresnets.layers import channel_axis, conv, norm, pad_channels, relu


def trunk(x, spec):
    """Turn an image tensor into the last feature map of the row's network.

    Args:
        x: symbolic tensor `(batch, height, width, channels)`, or channels first under that data format.
        spec: a `kresnets.specs.ResNetSpec`.

    Returns:
        Symbolic tensor of `spec.widths[-1] * spec.expansion` channels, 32 times smaller per side for an ImageNet row.
    """
    x = _stem(x, spec)
    for stage, (depth, width, stride) in enumerate(zip(spec.depths, spec.widths, spec.strides, strict=True), start=1):
        strided = 1 if spec.downsample_in == "first" else depth
        for block in range(1, depth + 1):
            x = residual_block(x, spec, width, stride if block == strided else 1, name=f"stage{stage}_block{block}")
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
        # Padding by zeros, as keras.applications, equals torch's padding by -inf wherever a ReLU came before.
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)  # 56 x 56
    return x


def residual_block(x, spec, width, stride, name):
    """Add a block of the row's kind: x -> shortcut(x) + F(x), or F(x) alone in a plain net.

    Args:
        x: symbolic tensor.
        spec: a `kresnets.specs.ResNetSpec`.
        width: channels of the 3x3 convolutions.
        stride: 1 or more.
        name: prefix of the layers' names, such as `"stage2_block1"`.

    Returns:
        Symbolic tensor of `width * spec.expansion` channels.
    """
    filters = width * spec.expansion
    rows = _convolutions(spec, width, stride)
    branch, source = x, x
    for index, (kernel, channels, strides) in enumerate(rows, start=1):
        last = index == len(rows)
        if spec.preactivation:
            branch = relu(norm(branch, spec, f"{name}_bn{index}"), f"{name}_relu{index}")
            # A projection takes the activated input, as in the authors' code; an identity must not (1603.05027 section
            # 3).
            source = branch if index == 1 else source
        branch = conv(
            branch, channels, kernel, f"{name}_conv{index}", strides, use_bias=spec.bias_without_norm and last
        )
        if not spec.preactivation:
            branch = norm(branch, spec, f"{name}_bn{index}", zero=spec.zero_gamma and last)
            branch = branch if last else relu(branch, f"{name}_relu{index}")
    if spec.residual:
        shortcut = _shortcut(x, source, spec, filters, stride, f"{name}_shortcut")
        branch = keras.layers.Add(name=f"{name}_add")([shortcut, branch])
    return branch if spec.preactivation else relu(branch, f"{name}_out")


def _convolutions(spec, width, stride):
    if spec.block == "basic":
        return ((3, width, stride), (3, width, 1))
    on_1x1 = spec.stride_on == "1x1"
    return ((1, width, stride if on_1x1 else 1), (3, width, 1 if on_1x1 else stride), (1, 4 * width, 1))


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
