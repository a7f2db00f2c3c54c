"""Rows: what they refuse, that whatever they accept runs and learns, and that their facts are the references'."""

import ast
import dataclasses
import itertools
import json
import math
import pathlib
import random
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from places import GOLDEN

import kresnets
from kresnets import specs

# Two values or more of every knob that can be combined freely.
KNOBS = {
    "block": ("basic", "bottleneck"),
    "stride_on": ("1x1", "3x3"),
    "downsample_in": ("first", "last"),
    "stem": ("imagenet", "cifar"),
    "deep_stem": (False, True),
    "avg_shortcut": (False, True),
    "preactivation": (False, True),
    "stem_norm": (True, False),
    "bias_without_norm": (False, True),
    "residual": (True, False),
    "shortcut": ("A", "B", "C"),
    "zero_gamma": (False, True),
}
# Those that came later meet each of the others in pairs, not in every combination: that would be 16 times as many.
LATER = {
    "cardinality": (1, 2),
    "width_per_group": (None, 3),
    "stem_pool_border": ("zeros", "nothing", "end"),
    "stochastic_depth": (0.0, 0.5),
    "norm": ("batch", "group", "none"),
    "standardize_weights": (False, True),
    "activation": ("relu", "silu"),
    "se_ratio": (0.0, 0.5),
    "stem_pool": ("max", "conv"),
    "anti_alias": (False, True),
    "output_stride": (32, 8),
}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(specs.ResNetSpec) if field.name in KNOBS | LATER}
MISFIT = re.compile(r"tiny: (\w+)=(\S+) does not go with (\w+)=(\S+): .+; change one of the two\.")


def tiny(**knobs):
    strides = (2, 2) if knobs.get("output_stride", 32) < 32 else (1, 2)
    sizes = dict(depths=(1, 2), widths=(4, 8), strides=strides, input_size=19, min_size=8, classes=3)
    return specs.ResNetSpec(**{"name": "tiny", "reference": "none", **sizes, **knobs})


def refusal(knobs):
    """What `tiny` says of the combination: the two knobs with their values, or None."""
    try:
        tiny(**knobs)
    except ValueError as error:
        found = MISFIT.fullmatch(str(error))
        assert found, f"not one sentence that names two knobs: {error}"
        one, its, other, others = found.groups()
        assert its == repr(knobs.get(one, DEFAULTS.get(one))) and others == repr(knobs.get(other, DEFAULTS.get(other)))
        return one, other
    return None


COMBINATIONS = [dict(zip(KNOBS, values, strict=True)) for values in itertools.product(*KNOBS.values())]
BARE = {"stem_pool_border": {"preactivation": True, "stem_norm": False}}  # where it matters
PAIRS = [
    DEFAULTS | BARE.get(knob, {}) | {knob: value, other: its}
    for knob, values in LATER.items()
    for value in values[1:]
    for other, others in (KNOBS | LATER).items()
    if other != knob
    for its in others
]
REFUSED = {}
for knobs in COMBINATIONS + PAIRS:
    REFUSED.setdefault(refusal(knobs), []).append(knobs)
ACCEPTED = [*{frozenset((DEFAULTS | knobs).items()): DEFAULTS | knobs for knobs in REFUSED.pop(None)}.values()]


def pairwise(combinations):
    """The fewest of the combinations, found greedily, that have every pair of values that occurs in any."""
    combinations = random.Random(0).sample(combinations, len(combinations))
    seen, chosen = set(), []
    for combination in combinations:
        pairs = set(itertools.combinations(sorted(combination.items()), 2))
        if len(pairs - seen) >= (3 if len(chosen) < 12 else 1):
            seen |= pairs
            chosen.append(combination)
    return chosen


def label(knobs):
    return ",".join(f"{knob}={value}" for knob, value in knobs.items() if value != DEFAULTS[knob]) or "defaults"


# --- the module ---


def test_only_the_standard_library_is_imported():
    for path in pathlib.Path(specs.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names or name.startswith("kresnets.specs"), (path, name)


def test_a_row_is_frozen_and_hashable():
    row = specs.SPECS["ResNet50D"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.zero_gamma = True
    assert row == dataclasses.replace(row) and hash(row) == hash(dataclasses.replace(row))


def test_the_networks_by_name():
    """Which depths there are: those of 1512.03385 (ImageNet and CIFAR), of 1812.01187 (B to D), and timm's."""
    expected = {
        *(f"ResNet{depth}" for depth in (18, 26, 34, 50, 101, 152)),
        *(f"ResNet{depth}B" for depth in (50, 101, 152)),
        *(f"ResNet{depth}C" for depth in (18, 34, 50, 101, 152)),
        *(f"ResNet{depth}D" for depth in (18, 26, 34, 50, 101, 152, 200)),
        *(f"Cifar{kind}{depth}" for kind in ("ResNet", "PlainNet") for depth in (20, 32, 44, 56, 110)),
        *(f"PlainNet{depth}" for depth in (18, 34)),
        *(f"ResNetRS{depth}" for depth in (50, 101, 152)),
        *("ResNeXt50_32x4d", "ResNeXt101_32x4d", "ResNeXt101_64x4d", "WideResNet50_2", "WideResNet101_2"),
        *("SEResNet50", "ResNetBlur50", "BiT50x1", "BiT101x1"),
    }
    assert expected <= set(specs.SPECS)
    assert all(name == spec.name for name, spec in specs.SPECS.items())
    assert len({dataclasses.replace(spec, params=None, reference="") for spec in specs.SPECS.values()}) == len(
        specs.SPECS
    )


# --- parameter counts; test_networks compares the rows with what is built ---

# torchvision's own `num_params` (torchvision/models/resnet.py). Its 50, 101 and 152 are B: the same convolutions as A.
TORCHVISION = {
    "ResNet18": 11_689_512, "ResNet34": 21_797_672,
    "ResNet50": 25_557_032, "ResNet101": 44_549_160, "ResNet152": 60_192_808,
    "ResNet50B": 25_557_032, "ResNet101B": 44_549_160, "ResNet152B": 60_192_808,
}  # fmt: skip
# timm's model cards (docs/models/resnet.md, resnet-d.md, gloun-resnet.md), in millions; the paper's table 6.
MILLIONS = {
    "ResNet26": 16.00, "ResNet50C": 25.58, "ResNet101C": 44.57, "ResNet152C": 60.21,
    "ResNet18D": 11.71, "ResNet34D": 21.82, "ResNet26D": 16.01, "ResNet50D": 25.58,
    "ResNet101D": 44.57, "ResNet152D": 60.21, "ResNet200D": 64.69,
    "CifarResNet20": 0.27, "CifarResNet32": 0.46, "CifarResNet44": 0.66, "CifarResNet56": 0.85, "CifarResNet110": 1.7,
}  # fmt: skip
TIMM = {
    "resnet18": "ResNet18",
    "resnet18d": "ResNet18D",
    "resnet50": "ResNet50B",
    "resnet50c": "ResNet50C",
    "resnet50d": "ResNet50D",
    "resnext101_64x4d": "ResNeXt101_64x4d",
    "wide_resnet101_2": "WideResNet101_2",
    "seresnet50": "SEResNet50",
    "resnetrs152": "ResNetRS152",
    "resnetv2_101x1_bit": "BiT101x1",
}


@pytest.mark.parametrize(("name", "params"), TORCHVISION.items())
def test_parameters_are_torchvisions(name, params):
    assert specs.SPECS[name].params == params


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_parameters_are_the_published_millions(name, millions):
    digits = 1 if millions == 1.7 else 2
    assert round(specs.SPECS[name].params / 1e6, digits) == millions


@pytest.mark.parametrize(("timm_name", "name"), TIMM.items())
def test_parameters_are_timms(timm_name, name):
    assert specs.SPECS[name].params == json.loads((GOLDEN / f"{timm_name}.json").read_text())["params"]


# --- what a row refuses ---


def test_every_combination_is_a_row_or_names_two_knobs():
    assert len(ACCEPTED) > 100 and len(REFUSED) > 10
    assert all(len({*pair}) == 2 and {*pair} <= set(KNOBS | LATER) for pair in REFUSED)


@pytest.mark.parametrize("pair", sorted(REFUSED), ids="-".join)
def test_changing_either_of_the_two_knobs_helps(pair):
    """In some row that is refused for the two, another value of either gives a row."""

    def helps(bad, knob):
        return any(refusal({**bad, knob: value}) is None for value in (KNOBS | LATER)[knob] if value != bad.get(knob))

    assert any(all(helps(bad, knob) for knob in pair) for bad in REFUSED[pair])


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        (dict(widths=(8, 4), shortcut="A", block="basic"), ("widths", "shortcut")),
        (dict(stem_width=16, shortcut="A", block="basic"), ("stem_width", "shortcut")),
        (dict(stem_width=1, deep_stem=True), ("stem_width", "deep_stem")),
        (dict(widths=(1, 8), deep_stem=True), ("widths", "deep_stem")),
        (dict(strides=(1, 2), output_stride=8), ("strides", "output_stride")),
        (dict(strides=(1, 3), anti_alias=True), ("anti_alias", "strides")),
    ],
)
def test_numbers_that_do_not_fit_name_both_knobs(knobs, named):
    """Option A only adds channels; the deep stem halves its width."""
    with pytest.raises(ValueError, match="tiny: .*") as error:
        kresnets.build(tiny(**knobs))
    assert all(knob in str(error.value) for knob in named)


BAD = {
    "block": ["Basic", None, ["basic"]],
    "stride_on": ["7x7"],
    "downsample_in": ["middle"],
    "stem": ["mnist"],
    "shortcut": ["D", "b"],
    "depths": [(), (1,), (1, 0), (1, -2), (1, 1.5), (True, 1), 2, ("1", "2")],
    "widths": [(4, None), (4,)],
    "strides": [(1, 0), (1, 2, 2)],
    "stem_width": [0, -4, 2.5],
    "dropout": [1.0, -0.1, "0.5"],
    "epsilon": [0.0, "small"],
    "momentum": [1.0, -0.1, None],
    "min_size": [0, 20],
    "input_size": [4, "224"],
    "classes": [0, 2.0],
    "residual": ["yes"],
    "zero_gamma": [1],
    "norm": ["layer"],
    "activation": ["leaky"],
    "se_ratio": [-0.5, 2],
    "output_stride": [4, True],
    "preactivation": [None],
    "name": [5, ""],
}


@pytest.mark.parametrize(("knob", "value"), [(knob, value) for knob, values in BAD.items() for value in values])
def test_a_bad_value_gets_one_sentence(knob, value):
    with pytest.raises(ValueError) as error:
        tiny(**{knob: value})
    message = str(error.value)
    assert knob in message and "eceived" in message and "\n" not in message


# --- what a row accepts ---


def grid(side, row):
    """The pixels a side of the last feature map."""
    if row.stem == "imagenet":
        side = math.ceil(side / 2)
        # Caffe's rule has as many windows as begin and end within, and one more where pixels are left.
        side = math.ceil((side - 3) / 2) + 1 if row.stem_pool_border == "end" else math.ceil(side / 2)
    return math.ceil(side / (math.prod(row.strides) if row.output_stride == 32 else row.output_stride // 4))


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param(knobs, id=label(knobs), marks=pytest.mark.everything if number % 12 else ())
        for number, knobs in enumerate(pairwise(ACCEPTED))
    ],
)
def test_what_is_accepted_runs_learns_and_equals_kerass_own_layers(knobs):
    row = tiny(**knobs)
    model = kresnets.build(row, input_shape=(None, None, 3), classifier_activation=None)
    images = np.random.default_rng(0).normal(size=(3, 19, 17, 3)).astype("float32")
    features = keras.Model(model.input, model.get_layer("head_pool").input)(images)
    assert features.shape == (3, grid(19, row), grid(17, row), 8 * row.expansion)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = keras.ops.sum(outputs * np.random.default_rng(1).normal(size=outputs.shape).astype("float32"))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    if row.anti_alias:
        with pytest.raises(ValueError, match="no layer of Keras does"):
            kresnets.as_plain_keras(model)
        return
    plain = kresnets.as_plain_keras(model)
    np.testing.assert_allclose(model(images), plain(images), rtol=1e-4, atol=1e-4)


def test_the_combinations_meet_every_pair_of_values():
    def pairs(combinations):
        return {pair for knobs in combinations for pair in itertools.combinations(sorted(knobs.items()), 2)}

    assert pairs(pairwise(ACCEPTED)) == pairs(ACCEPTED)


@pytest.mark.everything
def test_no_knob_is_ignored():
    """No two accepted rows give the same network: what would be ignored is refused (shortcuts of plain nets apart)."""
    found = {}
    for knobs in ACCEPTED:
        if knobs["residual"]:
            config = kresnets.build(tiny(**knobs), input_shape=(None, None, 3)).get_config()
            found.setdefault(json.dumps(config, default=str, sort_keys=True), []).append(label(knobs))
    assert not [same for same in found.values() if len(same) > 1]


def test_a_pool_that_would_never_be_is_refused():
    """Under option B the last block of a stage has an identity for its shortcut; under C a projection, so a pool."""
    last = dict(preactivation=True, downsample_in="last", avg_shortcut=True)
    assert {*refusal(last | dict(shortcut="B"))} == {"downsample_in", "avg_shortcut"}
    assert refusal(last | dict(shortcut="C")) is None


def test_other_shapes_of_a_row():
    """More or fewer stages than four, other strides, a stem of its own width: all free."""
    row = tiny(
        depths=(1, 1, 1, 1, 2),
        widths=(4, 6, 6, 10, 3),
        strides=(2, 1, 3, 2, 1),
        stem_width=5,
        dropout=0.5,
        block="basic",
    )
    model = kresnets.build(row, input_shape=(50, 41, 2))
    assert model.get_layer("head_pool").input.shape == (None, math.ceil(50 / 48), math.ceil(41 / 48), 3)
    assert model.get_layer("stem_conv1").filters == 5 and model.get_layer("head_dropout").rate == 0.5
    assert list(kresnets.groups(model)) == ["stem", *(f"stage{i}" for i in range(1, 6)), "head"]
    assert model(np.zeros((2, 50, 41, 2), "float32")).shape == (2, 3)


def test_the_constants_of_the_norms_are_the_rows():
    model = kresnets.build(tiny(epsilon=0.02, momentum=0.7))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all((norm.epsilon, norm.momentum) == (0.02, 0.7) for norm in norms)
