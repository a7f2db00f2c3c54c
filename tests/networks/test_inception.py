"""Inception: the papers' grids and channels, parameters derived by hand, the row's steps and what they refuse.

That the networks compute what keras.applications and timm compute is in test_equality.
"""

import dataclasses
import math
import re

import keras
import numpy as np
import pytest

import kresnets
from kresnets.specs import Conv, InceptionSpec, Mix, Pool, Residual, swap

SPECS = kresnets.SPECS

# What the papers print beside their figures and tables, for 299 pixels: layer -> (side, channels).
V3_STEM = {"stem_relu1": (149, 32), "stem_relu2": (147, 32), "stem_relu3": (147, 64), "stage1_block1_pool1": (73, 64)}
GRIDS = {
    # 1512.00567 table 1; its 35 x 35 x 288 comes with the second block, as in the authors' code.
    "InceptionV3": V3_STEM
    | {
        "stage1_block1_relu3": (71, 192),
        "stage2_block1_pool1": (35, 192),
        "stage2_block3_concat": (35, 288),
        "stage3_block1_concat": (17, 768),
        "stage3_block5_concat": (17, 768),
        "stage4_block1_concat": (8, 1280),
        "stage4_block3_concat": (8, 2048),
    },
    # 1602.07261 figure 3 (stem) and figure 9.
    "InceptionV4": {
        **{name: grid for name, grid in V3_STEM.items() if name.startswith("stem")},
        "stage1_block1_concat": (73, 160),
        "stage1_block2_concat": (71, 192),
        "stage2_block1_concat": (35, 384),
        "stage2_block5_concat": (35, 384),
        "stage3_block1_concat": (17, 1024),
        "stage3_block8_concat": (17, 1024),
        "stage4_block1_concat": (8, 1536),
        "stage4_block4_concat": (8, 1536),
    },
    # Figures 14 (stem), 10 to 13, and 15.
    "InceptionResNetV1": V3_STEM
    | {
        "stage1_block1_relu2": (73, 80),
        "stage1_block1_relu3": (71, 192),
        "stage2_block1_relu1": (35, 256),
        "stage2_block6_out": (35, 256),
        "stage3_block1_concat": (17, 896),
        "stage3_block11_out": (17, 896),
        "stage4_block1_concat": (8, 1792),
        "stage4_block6_out": (8, 1792),
    },
    # The authors' code (TF-slim), which says: 35 x 35 x 320, 17 x 17 x 1088, 8 x 8 x 2080, 8 x 8 x 1536.
    "InceptionResNetV2": V3_STEM
    | {
        "stage1_block1_relu3": (71, 192),
        "stage2_block1_concat": (35, 320),
        "stage2_block11_out": (35, 320),
        "stage3_block21_out": (17, 1088),
        "stage4_block11_add": (8, 2080),
        "stage4_block12_relu1": (8, 1536),
    },
}


def count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def build(spec, **arguments):
    return kresnets.build(spec, **{"input_shape": (None, None, 3), **arguments})


def tiny(*blocks, **knobs):
    """A row of the same blocks on a thin stem, in two stages."""
    return InceptionSpec(
        **{"name": "tiny", "reference": "none", "stem": (Conv(4, 3, 2),), "stages": (blocks, blocks), "min_size": 9}
        | knobs
    )  # fmt: skip


@pytest.mark.always("InceptionV4", "InceptionResNetV1")
@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_grids_and_channels_are_the_papers(name):
    model = getattr(kresnets, name)(weights=None)
    assert model.input_shape == (None, 299, 299, 3)
    assert {layer: model.get_layer(layer).output.shape[1:] for layer in GRIDS[name]} == {
        layer: (side, side, channels) for layer, (side, channels) in GRIDS[name].items()
    }
    assert list(kresnets.groups(model)) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]


@pytest.mark.slow
def test_the_parameters_of_inception_resnet_v1_by_hand():
    """From the figures of 1602.07261 alone: (channels in, channels out, height x width) of each convolution."""

    def normed(*convolutions):  # weights, gamma and beta
        return sum(taken * given * area + 2 * given for taken, given, area in convolutions)

    def linear(taken, given):
        return taken * given + given

    stem = normed((3, 32, 9), (32, 32, 9), (32, 64, 9), (64, 80, 1), (80, 192, 9), (192, 256, 9))  # figure 14
    a = normed((256, 32, 1)) + normed((256, 32, 1), (32, 32, 9)) + normed((256, 32, 1), (32, 32, 9), (32, 32, 9))  # 10
    a += linear(96, 256)
    to_17 = normed((256, 384, 9)) + normed((256, 192, 1), (192, 192, 9), (192, 256, 9))  # 7, with table 1's k l m n
    b = normed((896, 128, 1)) + normed((896, 128, 1), (128, 128, 7), (128, 128, 7)) + linear(256, 896)  # figure 11
    to_8 = normed((896, 256, 1), (256, 384, 9)) + normed((896, 256, 1), (256, 256, 9))  # figure 12
    to_8 += normed((896, 256, 1), (256, 256, 9), (256, 256, 9))
    c = normed((1792, 192, 1)) + normed((1792, 192, 1), (192, 192, 3), (192, 192, 3)) + linear(384, 1792)  # figure 13
    total = stem + 5 * a + to_17 + 10 * b + to_8 + 5 * c + linear(1792, 1000)  # figure 15
    assert (
        total == SPECS["InceptionResNetV1"].params == count(kresnets.InceptionResNetV1(weights=None).trainable_weights)
    )


def test_inception_v2_is_v3_before_its_7x7_was_factorised():
    """1512.00567 table 3: one 7x7 of stride 2 where v3 has 3x3 three times; the grid after it stays."""
    spec = dataclasses.replace(SPECS["InceptionV3"], name="InceptionV2", stem=(Conv(64, 7, 2),), params=None)
    model = kresnets.build(spec, weights=None)
    assert model.get_layer("stem_relu1").output.shape == (None, 147, 147, 64)
    three = 3 * 32 * 9 + 32 * 32 * 9 + 32 * 64 * 9 + 2 * (32 + 32 + 64)
    assert count(model.trainable_weights) == SPECS["InceptionV3"].params - three + 3 * 64 * 49 + 2 * 64


def test_a_5x5_against_two_3x3():
    """1512.00567 section 3.1: two 3x3 see as much as one 5x5 for 18/25 of its weights."""
    spec = SPECS["InceptionV3"]
    stages = swap(spec.stages, Conv(64, 5), (Conv(64, 3), Conv(64, 3)))
    assert stages != spec.stages and "kernel=5" not in str(stages)
    new = kresnets.build(dataclasses.replace(spec, name="mine", stages=stages, params=None))
    saved = 3 * (48 * 64 * 25 - (48 * 64 * 9 + 64 * 64 * 9 + 2 * 64))
    assert count(new.trainable_weights) == spec.params - saved
    assert new.get_layer("stage2_block1_branch2_conv3").kernel.shape == (3, 3, 64, 64)


@pytest.mark.parametrize(("scale", "relu"), [(0.17, True), (1.0, True), (0.5, False), (0.0, False)])
def test_a_residual_step_adds_its_scaled_branch(scale, relu):
    model = build(tiny((Residual((Conv(3, 1),), (Conv(3, 1), Conv(5, 3)), scale=scale, relu=relu),)))
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 4)).astype("float32")
    start, up = model.get_layer("stem_relu1").output, model.get_layer("stage1_block1_up")
    assert up.kernel.shape == (1, 1, 3 + 5, 4) and up.use_bias and up.activation is keras.activations.linear
    end = model.get_layer("stage1_block1_out" if relu else "stage1_block1_add").output
    found, branch = (np.asarray(value) for value in keras.Model(start, [end, up.output])(x))
    expected = x + np.float32(scale) * branch
    np.testing.assert_allclose(found, np.maximum(expected, 0) if relu else expected, rtol=1e-5, atol=1e-6)


def test_the_scale_is_a_knob_of_the_row():
    spec = SPECS["InceptionResNetV2"]
    old = spec.stages[1][1][0]
    assert isinstance(old, Residual) and old.scale == 0.17
    new = Residual(*old.branches, scale=0.3)
    scaled = dataclasses.replace(spec, stages=swap(spec.stages, old, (new,)), params=None)
    assert [block[0].scale for block in scaled.stages[1][1:]] == [0.3] * 10
    # The last block of 8 x 8 has scale 1 and no ReLU, as in the authors' code.
    assert [(b[0].scale, b[0].relu) for b in spec.stages[3][1:11]] == [(0.2, True)] * 9 + [(1.0, False)]


def test_names_say_the_way_to_a_layer():
    branch = (Pool("avg"), Conv(2, 1), Mix((Conv(2, (1, 3)),), (Conv(2, (3, 1)),)))
    model = build(tiny((Conv(4, 1), Mix((Conv(2, 1),), branch))))
    names = [layer.name for layer in model.layers if layer.name.startswith("stage1")]
    assert {re.sub("bn|relu", "conv", name) for name in names} == {
        "stage1_block1_conv1",
        "stage1_block1_branch1_conv1",
        "stage1_block1_branch2_pool1",
        "stage1_block1_branch2_conv2",
        "stage1_block1_branch2_branch1_conv1",
        "stage1_block1_branch2_branch2_conv1",
        "stage1_block1_branch2_concat",
        "stage1_block1_concat",
    }
    convs = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sorted(kresnets.networks.inception.convolutions(tiny((Conv(4, 1), Mix((Conv(2, 1),), branch))))) == sorted(
        convs
    )


@pytest.mark.always("InceptionV4", "InceptionResNetV1")
@pytest.mark.parametrize("name", GRIDS)
def test_the_convolutions_of_a_row_are_named_as_they_are_built(name):
    model = getattr(kresnets, name)(weights=None, include_top=False, input_shape=(75, 75, 3))
    built = {layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    names = list(kresnets.networks.inception.convolutions(SPECS[name]))
    assert set(names) == built and len(names) == len(built)
    assert model.output_shape[1:3] == (1, 1)  # the smallest image: one pixel is left


@pytest.mark.parametrize(
    "knobs",
    [
        dict(stem=()),
        dict(stem=(Pool("max", 2),)),
        dict(stem=Conv(4, 3)),
        dict(stages=()),
        dict(stages=((),)),
        dict(stages=(((),),)),
        dict(stages=((Conv(4, 1),),)),  # a block without its own parentheses
        dict(stages=(((Conv(0, 1),),),)),
        dict(stages=(((Conv(4, (1, 2, 3)),),),)),
        dict(stages=(((Conv(4, 1, 0),),),)),
        dict(stages=(((Pool("mean"),),),)),
        dict(stages=(((Mix(),),),)),
        dict(stages=(((Mix((Conv(4, 1),), ()),),),)),
        dict(stages=((("Conv(4, 1)",),),)),
        dict(stages=5),
        dict(stages=[(((Conv(4, 1),),),)]),
        dict(stages=(((Conv(4, 1, padded="no"),),),)),
        dict(stages=(((Residual((Conv(4, 1),), scale="x"),),),)),
        dict(stages=(((Residual((Conv(4, 1),), scale=math.nan),),),)),
        dict(stages=(((Residual((Conv(4, 1),), relu=1),),),)),
        dict(stages=(((Mix((Conv(4, 1),)), Mix((Conv(4, 1),))),),)),  # two joins of one name
        dict(stages=(((Mix((Residual((Conv(4, 1),)),)),),),)),
        dict(stem=(Conv(4, 3), Residual((Conv(4, 1),)))),
    ],
)
def test_a_bad_row_gets_one_sentence(knobs):
    with pytest.raises(ValueError) as error:
        tiny(**{"stages": (((Conv(4, 1),),),), **knobs})
    message = str(error.value)
    assert message.startswith(f"tiny: `{next(iter(knobs))}` must be")
    assert "Received" in message and "\n" not in message


@pytest.mark.parametrize(
    "step", [Mix((Conv(8, 3, 2),), (Conv(8, 1),)), Residual((Conv(8, 3, 2),)), Residual((Conv(8, 3, padded=False),))]
)
def test_branches_of_unequal_grids_are_told_by_their_block(step):
    with pytest.raises(ValueError, match="tiny: what `stages` joins in stage1_block1 has grids of .*149, 149"):
        kresnets.build(tiny((step,)))


def test_stochastic_depth_wants_a_residual_step():
    with pytest.raises(ValueError, match="stochastic_depth=0.5 does not go with these `stages`"):
        dataclasses.replace(SPECS["InceptionV4"], stochastic_depth=0.5)
    row = dataclasses.replace(SPECS["InceptionResNetV1"], stochastic_depth=0.5, params=None)
    model = kresnets.build(row, input_shape=(75, 75, 3))
    rates = [layer.rate for layer in model.layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose(rates, 0.5 * np.arange(1, 21) / 20)


def test_a_row_is_hashable_and_compares_by_its_steps():
    spec = SPECS["InceptionV3"]
    assert hash(spec) == hash(dataclasses.replace(spec)) and spec == dataclasses.replace(spec)
    assert spec != dataclasses.replace(spec, stages=swap(spec.stages, Pool("avg"), (Pool("max"),)))
