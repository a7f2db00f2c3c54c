"""Pre-activation nets for CIFAR against the authors' own code, and which v2 rows other files are refused for.

That ResNet18V2 to 152V2 compute what timm and keras.applications compute is in test_equality.
"""

import dataclasses

import keras
import numpy as np
import pytest
from lively import make_lively, relative_error

import kresnets

SPECS = kresnets.SPECS


def authors(depth):
    """The network of KaimingHe/resnet-1k-layers, `resnet-pre-act.lua`, read off line by line.

    There `-- Residual Units for increasing dimensions` norm and rectify once, before both paths part; the others before
    the convolutions alone. The stride is in the first 1x1.
    """
    n = (depth - 2) // 9

    def bn_relu(x, name):
        return keras.layers.ReLU()(keras.layers.BatchNormalization(epsilon=1e-5, name=name)(x))

    def conv(x, planes, size, name, stride=1):
        if size == 3:
            x = keras.layers.ZeroPadding2D(1)(x)
        return keras.layers.Conv2D(planes, size, strides=stride, use_bias=False, name=name)(x)

    def bottleneck(x, planes, stride, name):
        inner = planes // 4
        if x.shape[-1] == planes:
            shortcut, y = x, conv(bn_relu(x, f"{name}_bn1"), inner, 1, f"{name}_conv1", stride)
        else:
            x = bn_relu(x, f"{name}_bn1")
            y = conv(x, inner, 1, f"{name}_conv1", stride)
            shortcut = conv(x, planes, 1, f"{name}_shortcut_conv", stride)
        y = conv(bn_relu(y, f"{name}_bn2"), inner, 3, f"{name}_conv2")
        return conv(bn_relu(y, f"{name}_bn3"), planes, 1, f"{name}_conv3") + shortcut

    image = keras.Input((32, 32, 3))
    x = conv(image, 16, 3, "stem_conv1")
    for stage, planes in enumerate((64, 128, 256), start=1):
        for block in range(1, n + 1):
            x = bottleneck(x, planes, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D()(bn_relu(x, "stage3_bn"))
    return keras.Model(image, keras.layers.Dense(10, name="head_dense")(x))


@pytest.mark.everything
@pytest.mark.parametrize("depth", [20, pytest.param(164, marks=pytest.mark.slow)])
def test_the_bottleneck_net_is_the_authors(depth):
    row = SPECS["CifarResNet164V2"]
    if depth != 164:
        row = dataclasses.replace(row, depths=((depth - 2) // 9,) * 3, params=None)
    reference = make_lively(authors(depth))
    ours = kresnets.build(row, classifier_activation=None)
    used = set()
    for layer in reference.layers:
        if layer.weights:
            # The norm that opens their first block is our stem's.
            mine = ours.get_layer("stem_bn1" if layer.name == "stage1_block1_bn1" else layer.name)
            mine.set_weights(layer.get_weights())
            used.add(mine.name)
    assert used == {layer.name for layer in ours.layers if layer.weights}
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    assert relative_error(ours(images, training=False), np.asarray(reference(images, training=False))) < 1e-4
    if depth == 164:
        assert round(ours.count_params() / 1e6, 1) == 1.7  # 1603.05027, table 4
        convs = [layer.name for layer in ours.layers if isinstance(layer, keras.layers.Conv2D)]
        assert len([name for name in convs if "shortcut" not in name]) + 1 == 164 == 9 * 18 + 2


def test_the_first_activation_of_110_comes_before_its_paths_part():
    """1603.05027, appendix: `we adopt the first activation right after conv1 and before splitting into two paths`."""
    row = dataclasses.replace(SPECS["CifarResNet110V2"], depths=(2, 1, 1), params=None)
    model = kresnets.build(row)
    names = [layer.name for layer in model.layers]
    assert not {"stage1_block1_bn1", "stage1_block1_relu1"} & {*names} and {"stem_bn1", "stage1_block2_bn1"} <= {*names}
    add = model.get_layer("stage1_block1_add")
    assert [tensor._keras_history.operation.name for tensor in add.input] == ["stem_relu1", "stage1_block1_conv2"]
    # A later identity is untouched: figure 4e.
    assert model.get_layer("stage1_block2_add").input[0]._keras_history.operation.name == "stage1_block1_add"
    assert SPECS["CifarResNet110V2"].params == SPECS["CifarResNet110"].params


@pytest.mark.parametrize("size", [10, 11])
def test_nothing_beyond_the_border_is_nothing(size):
    """The stem's pool of timm's v2 nets: a maximum over the pixels that are there, which may all be negative."""
    model = kresnets.ResNet18V2(weights=None, include_top=False)
    pool = keras.Model(model.get_layer("stem_conv1").output, model.get_layer("stem_pool").output)
    x = np.random.default_rng(0).normal(size=(1, size, size, 64)).astype("float32") - 3
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    half = -(-size // 2)
    windows = [
        padded[:, dy : dy + 2 * half : 2, dx : dx + 2 * half : 2][:, :half, :half] for dy in range(3) for dx in range(3)
    ]
    np.testing.assert_array_equal(pool(x), np.max(windows, axis=0))
