"""Groups of every row, of what users build around a trunk, and of other models; what `freeze` makes learn."""

import dataclasses
import functools
import itertools
import re

import keras
import numpy as np
import pytest
from keras import layers

import kresnets
from kresnets import SPECS, copy_trunk, freeze, groups
from kresnets.specs import ResNetSpec

SIZE = (16, 16, 3)
TRUNK_GROUPS = ["stem", "stage1", "stage2", "stage3"]


def trunk(name="trunk", **arguments):
    """A small CIFAR network on 16 pixels, without its head."""
    row = dataclasses.replace(SPECS["CifarResNet20"], depths=(1, 3, 2), widths=(4, 8, 16), params=None)
    return kresnets.build(
        row,
        **{
            "include_top": False,
            "input_shape": None if "input_tensor" in arguments else SIZE,
            "name": name,
            **arguments,
        },
    )


def small(spec):
    """The row with narrow layers and few blocks: quick to build, named the same."""
    number = len(spec.depths)
    return dataclasses.replace(
        spec,
        depths=(2,) + (1,) * (number - 1),
        widths=tuple(4 * 2**i for i in range(number)),
        stem_width=4,
        classes=3,
        params=None,
    )


def named(model, patterns=None):
    return {group: [layer.name for layer in found] for group, found in groups(model, patterns).items()}


def norms(layers_):
    return [layer for layer in layers_ if isinstance(layer, keras.layers.BatchNormalization)]


def pixels(shape=SIZE, batch=4):
    return np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")


# --- what belongs where ---


# Rows that differ in depth only are the same here.
QUICK = ("ResNet18", "ResNet50C", "ResNet26D", "ResNet50V2", "PlainNet18", "CifarResNet20", "InceptionResNetV2")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.everything) for name in kresnets.list_models()],
)
def test_every_row(name):
    """The group is the layer's name up to its first underscore; all layers have one, in the order of the image."""
    spec = SPECS[name]
    model = kresnets.build(small(spec) if isinstance(spec, ResNetSpec) else spec, input_shape=(75, 75, 3))
    found = named(model)
    assert list(found) == ["stem", *(f"stage{i}" for i in range(1, len(SPECS[name].depths) + 1)), "head"]
    assert {layer: group for group, layers_ in found.items() for layer in layers_} == {
        layer.name: layer.name.split("_")[0] for layer in model.layers
    }
    assert found["head"] == ["head_pool", "head_dense"]
    depth = {layer.name: i for i, layer in enumerate(model.layers)}
    ends = [(min(map(depth.get, layers_)), max(map(depth.get, layers_))) for layers_ in found.values()]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))


def test_preactivation_ends_in_a_norm_of_the_last_stage():
    row = dataclasses.replace(small(SPECS["ResNet50B"]), preactivation=True)
    assert {"stage4_bn", "stage4_relu"} <= set(named(kresnets.build(row))["stage4"])


def own_head():
    base = trunk()
    x = layers.GlobalAveragePooling2D(name="pool")(base.output)
    x = layers.Dense(8, name="hidden")(x)
    return keras.Model(base.input, layers.Dense(2, name="answer")(layers.BatchNormalization(name="norm")(x)))


def sequential():
    head = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(2, name="answer")]
    return keras.Sequential([keras.Input(SIZE), layers.RandomFlip(name="flip"), trunk(), *head])


def functional():
    image = keras.Input(SIZE, name="image")
    augment = keras.Sequential(
        [layers.RandomFlip(name="flip"), layers.RandomRotation(0.1, name="turn")], name="augment"
    )
    x = layers.GlobalAveragePooling2D(name="pool")(trunk()(augment(image)))
    return keras.Model(image, layers.Dense(2, name="answer")(x))


def deep():
    """A trunk within a model within a model."""
    inner = keras.Sequential([keras.Input(SIZE), trunk(), layers.GlobalMaxPooling2D(name="pool")], name="inner")
    return keras.Sequential([keras.Input(SIZE), inner, layers.Dense(2, name="answer")])


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.base, self.answer = trunk(), layers.Dense(2, name="answer")

    def call(self, x):
        return self.answer(keras.ops.mean(self.base(x), axis=(1, 2)))


@pytest.mark.parametrize(
    ("make", "head", "stem"),
    [
        (own_head, {"pool", "hidden", "norm", "answer"}, {"stem_input"}),
        (sequential, {"flip", "pool", "answer"}, {"stem_input"}),
        (functional, {"flip", "turn", "pool", "answer"}, {"stem_input", "image"}),
        (deep, {"pool", "answer"}, {"stem_input"}),
        (Subclass, {"answer"}, {"stem_input"}),
    ],
)
def test_around_a_trunk_is_the_head(make, head, stem):
    model = make()
    found = named(model)
    assert list(found) == [*TRUNK_GROUPS, "head"]
    inputs = {layer for layers_ in found.values() for layer in layers_ if layer.startswith(("input", "keras"))}
    assert set(found["head"]) - inputs == head
    assert stem <= set(found["stem"]) and inputs <= set(found["stem"])
    expected = named(trunk())
    assert all(found[group] == expected[group] for group in TRUNK_GROUPS[1:])
    assert set(expected["stem"]) <= set(found["stem"])


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_before_the_stem_is_the_stem(nested):
    """What a user puts before the stem, as the trunk's `input_tensor`, belongs to it."""
    image = keras.Input((32, 32, 1), name="image")
    front = [layers.RandomFlip(name="flip"), layers.Conv2D(3, 2, strides=2, name="adapt")]
    x = keras.Sequential(front, name="front")(image) if nested else front[1](front[0](image))
    found = named(trunk(input_tensor=x, include_top=True))
    assert {"image", "flip", "adapt", "stem_conv1"} <= set(found["stem"])
    assert found["head"] == ["head_pool", "head_dense"]


def test_two_trunks():
    left, right = keras.Input(SIZE), keras.Input(SIZE)
    x = layers.Concatenate(name="both")([trunk("one", pooling="avg")(left), trunk("two", pooling="avg")(right)])
    found = named(keras.Model([left, right], layers.Dense(2, name="answer")(x)))
    once = named(trunk())
    assert all(sorted(found[group]) == sorted(2 * once[group]) for group in TRUNK_GROUPS[1:])
    assert {"both", "answer", "head_pool"} == set(found["head"])


@pytest.mark.parametrize("make", [own_head, sequential, functional, deep])
def test_cloned_and_read_back(make, tmp_path):
    model = make()
    expected = named(model)
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.models.clone_model(model),
        keras.saving.load_model(tmp_path / "model.keras"),
        kresnets.as_plain_keras(model),
    ):
        assert {group: set(layers_) for group, layers_ in named(copy).items()} == {
            group: set(layers_) for group, layers_ in expected.items()
        }


@pytest.mark.parametrize("model", ["ResNet50", None, kresnets.ResNet50, 3])
def test_what_is_no_model(model):
    with pytest.raises(ValueError, match="Groups are those of a Keras model. Received: "):
        groups(model)


# --- models that are not ours ---


@pytest.fixture(scope="module")
def foreign():
    return keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=3)


PATTERNS = {
    "stem": "input_.*|conv1_.*|pool1_.*",
    **{f"stage{i}": f"conv{i + 1}_.*" for i in range(1, 5)},
    "head": "avg_pool|predictions",
}


def test_patterns_group_keras_applications(foreign):
    found = groups(foreign, PATTERNS)
    assert list(found) == list(PATTERNS)
    assert sum(map(len, found.values())) == len(foreign.layers)
    # Table 1 of 1512.03385: 3, 4, 6, 3 blocks of 3 convolutions, and a projection in the first of each stage.
    convs = [sum(isinstance(layer, layers.Conv2D) for layer in found[f"stage{i}"]) for i in range(1, 5)]
    assert convs == [3 * blocks + 1 for blocks in (3, 4, 6, 3)]


def test_a_foreign_model_asks_for_patterns(foreign):
    with pytest.raises(ValueError, match="'resnet50' has no layers named as kresnets names them .*{group: regex"):
        groups(foreign)


def test_layers_without_weights_may_be_left_out(foreign):
    patterns = {name: pattern.replace("input_.*|", "").replace("|pool1_.*", "") for name, pattern in PATTERNS.items()}
    assert sum(map(len, groups(foreign, patterns).values())) == len(foreign.layers) - 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem": "conv1_bn|pool1_.*"}, "Layer 'conv1_conv' matches none of the groups stem, stage1, .*exactly one"),
        ({"stage4": "conv5_block1.*"}, "Layer 'conv5_block2_1_conv' matches none"),
        ({"stage1": "conv[23]_.*"}, "Layer 'conv3_block1_1_conv' matches stage1, stage2 of the groups"),
        ({"head": ".*"}, "matches stem, head"),
        ({"stage3": "conv4", "rest": "conv4_.*"}, "No layer of 'resnet50' matches the pattern of stage3"),
        ({"stem": "conv1_(.*"}, "stem.*conv1_"),
        ({"stem": 3}, "ordered dict .*Received"),
        ({"stem": re.compile("conv1_.*")}, "ordered dict .*Received"),
    ],
)
def test_patterns_are_exhaustive_and_exclusive(foreign, change, message):
    with pytest.raises(ValueError, match=message) as error:
        groups(foreign, {**PATTERNS, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("patterns", [{}, "conv1_.*", ["conv1_.*"], 3])
def test_patterns_that_are_none(foreign, patterns):
    with pytest.raises(ValueError, match="`groups` must be an ordered dict .* Received: "):
        groups(foreign, patterns)


def test_a_foreign_model_is_frozen_by_its_patterns(foreign):
    freeze(foreign, through="stage3", groups=PATTERNS)
    assert {weight.path.split("/")[0] for weight in foreign.trainable_weights} == {
        *(layer.name for layer in foreign.layers if layer.name.startswith("conv5") and layer.name.endswith("conv")),
        "predictions",
    }
    freeze(foreign, through="stage4", batchnorm="train", groups=PATTERNS)
    assert [weight.path for weight in foreign.trainable_weights] == ["predictions/kernel", "predictions/bias"]


# --- freezing ---


def learning(model):
    """The layers that have a variable to learn."""
    return {layer.name for found in groups(model).values() for layer in found if layer.trainable_weights}


once = functools.cache(lambda make: make())  # for what changes flags only: freeze forgets earlier ones


@pytest.mark.parametrize("make", [own_head, sequential, functional, deep])
@pytest.mark.parametrize(("through", "frozen"), [(None, 0), ("stem", 1), ("stage1", 2), ("stage2", 3), ("stage3", 4)])
@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_freeze_through_a_group(make, through, frozen, batchnorm):
    model = once(make)
    assert freeze(model, through, batchnorm) is model
    thawed = [layer for group in [*TRUNK_GROUPS, "head"][frozen:] for layer in groups(model)[group] if layer.weights]
    own = {layer.name for layer in groups(model)["head"] if layer.weights}
    expected = {layer.name for layer in thawed if batchnorm == "train" or layer not in norms(thawed)} | own
    assert learning(model) == expected
    assert "norm" not in own or "norm" in learning(model), "a norm of the head always learns"


def test_freeze_through_a_block():
    model = freeze(own_head(), through="stage2_block2", batchnorm="train")
    expected = {
        name
        for name in learning(own_head())
        if not name.startswith(("stem", "stage1", "stage2_block1", "stage2_block2"))
    }
    assert learning(model) == expected and "stage2_block3_conv1" in expected and "stage2_block2_conv1" not in expected


def test_freeze_through_the_head_freezes_all():
    assert not freeze(own_head(), through="head").trainable_weights


def test_freeze_forgets_earlier_flags():
    model = sequential()
    model.trainable = False
    model.get_layer("trunk").trainable = False
    freeze(model, through="stage1", batchnorm="train")
    again = freeze(sequential(), through="stage1", batchnorm="train")
    assert learning(model) == learning(again)
    freeze(model, through=None, batchnorm="train")
    assert len(model.trainable_weights) == len(sequential().trainable_weights)


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_what_is_frozen_is_bit_equal_after_training(batchnorm):
    model = freeze(sequential(), through="stage2_block1", batchnorm=batchnorm)
    before = {id(weight): np.asarray(weight) for weight in model.weights}
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pixels(batch=8), np.arange(8) % 2, batch_size=4, verbose=0)
    changed = {
        layer.name
        for found in groups(model).values()
        for layer in found
        for weight in layer.weights
        if not np.array_equal(before[id(weight)], weight)
    }
    stage2 = {"stage2_block2", "stage2_block3"}
    places = {name if not name.startswith("stage") else "_".join(name.split("_")[:2]) for name in changed}
    assert places <= stage2 | {"stage3_block1", "stage3_block2", "answer"}
    assert bool(norms(model.get_layer("trunk").get_layer(name) for name in changed - {"answer"})) == (
        batchnorm == "train"
    )
    assert "stage2_block2_conv1" in changed and "answer" in changed


@pytest.mark.parametrize(
    "through",
    ["stage9", "stage3_block3", "stage3_block0", "head_block1", "stem_block1", "", 3, ["stem"], "Stage1", "body"],
)
def test_freeze_refuses_what_is_not_there(through):
    model = own_head()
    with pytest.raises(ValueError, match="has no group or block|has blocks 1 to 2") as error:
        freeze(model, through=through)
    assert repr(through) in str(error.value) and "\n" not in str(error.value)
    assert all(layer.trainable for layer in model.layers), "nothing was changed"


@pytest.mark.parametrize("batchnorm", [None, True, "Frozen", "eval"])
def test_freeze_refuses_another_batchnorm(batchnorm):
    with pytest.raises(ValueError, match="`batchnorm` must be 'frozen' or 'train'. Received: batchnorm="):
        freeze(own_head(), through="stage1", batchnorm=batchnorm)


# --- a trunk for another head ---


def test_copy_trunk():
    source, target = own_head(), sequential()
    head = [np.asarray(weight) for layer in groups(target)["head"] for weight in layer.weights]
    assert copy_trunk(source, target) is target
    ours, theirs = (
        {layer.name: layer.get_weights() for group in TRUNK_GROUPS for layer in groups(m)[group]}
        for m in (source, target)
    )
    for name in named(trunk())["stage2"] + ["stem_conv1"]:
        assert all(np.array_equal(mine, other) for mine, other in zip(ours[name], theirs[name], strict=True))
    now = [weight for layer in groups(target)["head"] for weight in layer.weights]
    assert all(np.array_equal(before, after) for before, after in zip(head, now, strict=True))


def test_copy_trunk_refuses_another_network():
    target = kresnets.CifarResNet32()
    before = target.get_weights()
    with pytest.raises(
        ValueError,
        match=r"trunks of 'cifarresnet20' and 'cifarresnet32' differ in \d+ layers, first in stage1_block4_conv1 ",
    ):
        copy_trunk(kresnets.CifarResNet20(), target)
    assert all(np.array_equal(mine, other) for mine, other in zip(before, target.get_weights(), strict=True))
