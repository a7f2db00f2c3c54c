"""The builders: signatures, names, sizes and arguments, and that each knob computes what its paper says."""

import dataclasses
import inspect
import math
import os
import pathlib
import pickle
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from lively import make_lively

import kresnets
from kresnets import SPECS

NAMES = kresnets.list_models()
QUICK = ("ResNet18", "ResNet50", "PlainNet18", "CifarResNet20")
# One of a kind; the others differ from these by the number of blocks.
SLOW = ("ResNet18C", "ResNet50D", "ResNet50V2", "ResNet50Thin", "InceptionV3", "InceptionV4", "InceptionResNetV2")


def _mark(name):
    return () if name in QUICK else pytest.mark.slow if name in SLOW else pytest.mark.everything


ROWS = [pytest.param(name, marks=_mark(name)) for name in NAMES]
LAYER = re.compile(
    r"stem_(input|pad\d|conv\d|bn\d|relu\d|pool|pool_pad|pool_window)"
    r"|stage[1-9]_block[1-9]\d*_((pad|conv|bn|relu)[1-3]|shortcut_(pool|conv|bn|pad)|add|out)"
    r"|stage[1-9]_block[1-9]\d*_((branch[1-5]_)*((pool|conv|bn|relu)[1-5]|concat)|up|scale|add|out)"
    r"|stage[34]_(bn|relu)|head_(pool|dropout|dense)"
)
TINY = dataclasses.replace(
    SPECS["ResNet50"],
    name="Tiny",
    depths=(2, 1),
    widths=(4, 8),
    strides=(1, 2),
    stride_on="3x3",
    min_size=8,
    classes=5,
    params=None,
)

FREE = (None, None, 3)


def builder(name):
    return getattr(kresnets, name)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def convs(model, part=""):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and part in layer.name]


def short(name, **knobs):
    """The row with one block a stage, or what `knobs` say."""
    spec = SPECS[name]
    return dataclasses.replace(spec, **{"depths": (1,) * len(spec.depths), "params": None, **knobs})


def between(model, first, last):
    """What the layer `last` puts out as a function of what the layer `first` does."""
    return keras.Model(model.get_layer(first).output, model.get_layer(last).output)


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


# --- the functions ---


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_that_of_keras_applications(name):
    function, spec = builder(name), SPECS[name]
    theirs = dict(inspect.signature(keras.applications.ResNet50).parameters)
    ours = dict(inspect.signature(function).parameters)
    assert [*ours] == [*theirs]
    own = {
        "weights": "imagenet" if spec.imagenet else None,
        "classes": 10 if name.startswith(("Cifar", "Small")) else 1000,
        "name": name.lower(),
    }
    for parameter in theirs.values():
        expected = own.get(parameter.name, parameter.default)
        assert (ours[parameter.name].kind, ours[parameter.name].default) == (parameter.kind, expected)
    assert function.__name__ == function.__qualname__ == name
    assert function.__module__ == "kresnets.applications" and pickle.loads(pickle.dumps(function)) is function
    assert name in function.__doc__ and spec.reference in function.__doc__


def test_each_has_its_own_docstring():
    assert len({builder(name).__doc__ for name in NAMES}) == len(NAMES)


def test_networks_without_imagenet_weights_start_at_random():
    """keras.applications and timm publish weights for the others, nobody for these."""
    without = {name for name in NAMES if not SPECS[name].imagenet}
    assert without == {name for name in NAMES if name.startswith(("Cifar", "Plain", "Small"))} | {
        "ResNet18C",
        "ResNet34C",
        "InceptionResNetV1",
        "ResNet50Thin",
        "ResNet18DThin",
    }


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="include_topp"):
        kresnets.CifarResNet20(include_topp=False)


def test_list_models():
    assert sorted(SPECS) == NAMES and all(name in dir(kresnets) for name in NAMES)
    assert kresnets.list_models("Cifar*20") == ["CifarPlainNet20", "CifarResNet20"]
    assert kresnets.list_models("resnet*") == kresnets.list_models("") == []


# --- every row ---


@pytest.mark.always("CifarResNet20", "InceptionV3", "PlainNet18", "ResNet50D", "ResNet50V2")
@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_what_is_built(name):
    """Parameters, names, depth; the smallest image runs forward and every parameter gets a gradient."""
    spec = SPECS[name]
    side = spec.min_size
    model = builder(name)(weights=None, input_shape=(side, side, 3))
    assert model.name == name.lower()
    assert count(model.trainable_weights) == spec.params
    # One mean and one variance for each gamma and beta.
    assert count(model.non_trainable_weights) == count(w for w in model.weights if w.name in ("gamma", "beta"))
    assert not [layer.name for layer in model.layers if isinstance(layer, keras.Model)], "not flat"
    assert not [layer.name for layer in model.layers if not LAYER.fullmatch(layer.name)]
    normed = {layer.name.replace("bn", "conv") for layer in model.layers if "bn" in layer.name}
    # A bias where no norm follows, as in keras.applications' v2 nets and at the end of an Inception-ResNet's branch.
    biased = {conv.name for conv in convs(model) if conv.use_bias}
    if "Inception" in name:
        assert biased == {conv.name for conv in convs(model, "_up")} == {conv.name for conv in convs(model)} - normed
    else:
        ends = {conv.name for conv in convs(model) if re.search("stem|conv3|shortcut", conv.name)}
        assert biased == (ends if spec.bias_without_norm else set())
        layers = len(convs(model)) - len(convs(model, "shortcut")) + 1
        assert layers == int(re.search(r"\d+", name)[0]) + (2 if spec.deep_stem else 0)
    images = random(2, side, side, 3)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(np.array([0, 1]), outputs)
    assert outputs.shape == (2, spec.classes)
    np.testing.assert_allclose(np.sum(outputs, axis=-1), 1, rtol=1e-5)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_less_is_refused(name):
    side = SPECS[name].min_size
    with pytest.raises(
        ValueError,
        match=rf"{name}: `input_shape` .* at least {side} pixels .*Received: input_shape=\({side}, {side - 1}, 3\)",
    ):
        builder(name)(weights=None, input_shape=(side, side - 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ResNet50", *(pytest.param(f"ResNet{n}", marks=pytest.mark.everything) for n in (101, 152))]
)
def test_parameters_are_those_of_keras_applications_less_the_biases_before_norms(name):
    reference = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3))
    biases = count(layer.bias for layer in convs(reference))
    assert SPECS[name].params == count(reference.trainable_weights) - biases
    ours = builder(name)(weights=None, input_shape=(32, 32, 3))
    assert count(ours.non_trainable_weights) == count(reference.non_trainable_weights)


@pytest.mark.parametrize("plain", [row for row in ROWS if "Plain" in row.values[0]])
def test_a_plain_net_is_its_twin_without_shortcuts(plain):
    size = SPECS[plain].input_size // 2
    net, twin = (
        builder(name)(weights=None, input_shape=(size, size, 3)) for name in (plain, plain.replace("Plain", "Res"))
    )
    missing = [layer for layer in twin.layers if "shortcut" in layer.name or layer.name.endswith("_add")]
    assert {layer.name for layer in twin.layers} - {layer.name for layer in missing} == {
        layer.name for layer in net.layers
    }
    assert count(net.trainable_weights) == count(twin.trainable_weights) - sum(
        count(layer.trainable_weights) for layer in missing
    )


@pytest.mark.parametrize(("name", "size"), [("ResNet18", 224), ("CifarResNet20", 32)])
def test_default_sizes(name, size):
    assert builder(name)(weights=None).input_shape == (None, size, size, 3)
    assert builder(name)(weights=None, include_top=False).input_shape == (None, None, None, 3)


def test_names_are_the_same_however_many_models_were_built():
    kresnets.CifarResNet20()
    keras.layers.Conv2D(1, 1), keras.Input((1,))
    first, second = (kresnets.CifarResNet20(include_top=False, pooling="max") for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50D", "CifarResNet20"])
def test_odd_sizes_round_up(name, size=(33, 47)):
    spec = short(name)
    model = kresnets.build(spec, include_top=False)
    down = math.prod(spec.strides) * (4 if spec.stem == "imagenet" else 1)
    assert model(random(1, *size, 3)).shape[1:3] == tuple(math.ceil(side / down) for side in size)
    fixed = kresnets.build(spec, input_shape=(*size, 3))
    assert fixed(random(1, *size, 3)).shape == (1, spec.classes)


# --- arguments, as keras.applications' own tests have them ---


@pytest.mark.parametrize("name", ["ResNet18D", "CifarPlainNet20"])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(name, channels):
    spec = SPECS[name]
    model = builder(name)(weights=None, include_top=False, input_shape=(None, None, channels))
    assert model.output_shape == (None, None, None, spec.widths[-1] * spec.expansion)
    assert model.get_layer("stem_conv1").kernel.shape[2] == channels


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_pooling(pooling):
    trunk = kresnets.build(TINY, include_top=False)
    model = kresnets.build(TINY, include_top=False, pooling=pooling)
    model.set_weights(trunk.get_weights())
    images = random(2, 32, 32, 3)
    features = np.asarray(trunk(images))
    expected = {None: features, "avg": features.mean((1, 2)), "max": features.max((1, 2))}[pooling]
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid", keras.activations.softmax])
def test_classifier_activation(activation):
    logits = make_lively(kresnets.build(TINY, classifier_activation=None, input_shape=FREE))
    model = kresnets.build(TINY, classifier_activation=activation, input_shape=FREE)
    model.set_weights(logits.get_weights())
    images = random(2, 32, 32, 3)
    expected = keras.activations.get(activation)(logits(images))
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)


def test_classes_and_name():
    model = kresnets.CifarResNet20(classes=3, name="mine")
    assert (model.name, model.output_shape) == ("mine", (None, 3))
    assert kresnets.CifarResNet20(include_top=False, classes=7).output_shape == (None, None, None, 64)


def test_input_tensor_of_the_users_layers():
    """As in keras.applications' tests: four channels, halved and made three by the user's convolution."""
    image = keras.Input((64, 64, 4), name="mine")
    own = keras.layers.Conv2D(3, 2, strides=2, name="own")(image)
    model = kresnets.ResNet18(weights=None, include_top=False, input_tensor=own)
    assert (model.input_shape, model.output_shape) == ((None, 64, 64, 4), (None, 1, 1, 512))
    assert [layer.name for layer in model.layers[:2]] == ["mine", "own"] and "stem_input" not in [
        layer.name for layer in model.layers
    ]


def test_a_layer_before_the_stem_may_not_have_the_networks_names():
    image = keras.layers.Conv2D(3, 1, name="stem_conv9")(keras.Input((32, 32, 2)))
    with pytest.raises(ValueError, match="'stem_conv9', a name that belongs to the network"):
        kresnets.CifarResNet20(input_tensor=image)


def test_whole_numbers_of_numpy_are_whole_numbers():
    model = kresnets.CifarResNet20(classes=np.int64(5), input_shape=(np.int32(16), 16, 3))
    assert (model.input_shape, model.output_shape) == ((None, 16, 16, 3), (None, 5))


@pytest.mark.parametrize("shape", [[16, 16, 3], tf.TensorShape([16, 16, 3]), np.zeros((16, 16, 3)).shape])
def test_any_sequence_is_a_shape(shape):
    assert kresnets.CifarResNet20(include_top=False, input_shape=shape).input_shape == (None, 16, 16, 3)


def test_input_tensor_of_several_inputs():
    left, right = keras.Input((32, 32, 1), name="left"), keras.Input((32, 32, 2), name="right")
    model = kresnets.CifarResNet20(input_tensor=keras.layers.Concatenate()([left, right]))
    assert model({"left": random(2, 32, 32, 1), "right": random(2, 32, 32, 2)}).shape == (2, 10)


def test_a_model_on_one_input_tensor_takes_one_array(recwarn):
    model = kresnets.CifarResNet20(input_tensor=keras.Input((32, 32, 3)), input_shape=(32, 32, 3))
    assert model(random(2, 32, 32, 3)).shape == (2, 10)
    assert not [str(warning.message) for warning in recwarn if "structure" in str(warning.message)]


BAD = {
    "input_shape": [
        224,
        (),
        (32,),
        (32, 32),
        "abc",
        (32.0, 32, 3),
        (32, 32, True),
        (32, 32, 0),
        (32, 32, -3),
        (None, None, None),
        (1, 32, 32, 3),
        (3, 32, 32),
    ],
    "classes": [0, -1, True, 2.0, "10"],
    "pooling": [1, "AVG", ["avg"], "none"],
    "include_top": [1, 0, None, "no"],
    "classifier_activation": ["soft", 3, ["softmax"]],
    "input_tensor": [
        "image",
        3,
        [keras.Input((32, 32, 3))],
        np.zeros((1, 32, 32, 3)),
        keras.Input((32, 32)),
        keras.Input((7, 8, 3)),
    ],
    "weights": ["imagenet", "imagenette", 5, "", b"x", "folder/of/mine.h5"],
}


@pytest.mark.parametrize(
    ("argument", "value"), [(argument, value) for argument, values in BAD.items() for value in values]
)
def test_a_bad_argument_gets_one_sentence(argument, value):
    """Which network, which argument, what was given."""
    with pytest.raises(ValueError) as error:
        kresnets.CifarResNet20(**{argument: value})
    message = str(error.value)
    assert message.startswith("CifarResNet20: ") and "\n" not in message
    assert argument.replace("input_tensor", "input_") in message or argument == "weights"


def test_shapes_that_disagree_and_rows_that_are_none():
    with pytest.raises(ValueError, match=r"`input_shape` and `input_tensor` disagree.*\(32, 32, 1\).*\(32, 32, 3\)"):
        kresnets.CifarResNet20(input_tensor=keras.Input((32, 32, 3)), input_shape=(32, 32, 1))
    for row in ("ResNet50", None, kresnets.ResNet50, {"depths": (1,)}):
        with pytest.raises(ValueError, match="`spec` must be a row such as kresnets.SPECS"):
            kresnets.build(row)


# --- channels first ---


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50D", "CifarResNet20"])
def test_channels_first_is_the_same_network(name, request):
    spec = short(name)
    last = kresnets.build(spec)
    request.getfixturevalue("channels_first")
    first = kresnets.build(spec)
    size = spec.input_size
    assert first.input_shape == (None, 3, size, size)
    assert [layer.name for layer in first.layers] == [layer.name for layer in last.layers]
    assert [weight.shape for weight in first.weights] == [weight.shape for weight in last.weights]
    for one, other in zip(first.layers, last.layers, strict=True):
        shape = other.output.shape
        assert one.output.shape == ((None, shape[3], *shape[1:3]) if len(shape) == 4 else shape)
        if isinstance(one, keras.layers.BatchNormalization):
            assert one.axis == 1
    assert builder(name)(weights=None, include_top=False, input_shape=(1, 32, None)).input_shape == (None, 1, 32, None)
    with pytest.raises(ValueError, match=r"\(channels, height, width\).*Received: input_shape=\(32, 32, 3\)"):
        builder(name)(weights=None, input_shape=(32, 32, 3))


JAX = """
import dataclasses
import sys
import keras, numpy as np
import kresnets

assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
tiny = dict(depths=(1, 1), widths=(4, 8), strides=(1, 2), min_size=8, classes=3, params=None)
rows = [dataclasses.replace(kresnets.SPECS["ResNet50D"], **tiny)]
rows += [dataclasses.replace(rows[0], deep_stem=False, avg_shortcut=False, preactivation=True, downsample_in="last")]
images = np.random.default_rng(0).normal(size=(2, 21, 19, 3)).astype("float32")
for row in rows:
    answers, weights = [], None
    for data_format, axes in (("channels_last", (0, 1, 2, 3)), ("channels_first", (0, 3, 1, 2))):
        keras.config.set_image_data_format(data_format)
        x = images.transpose(axes)
        model = kresnets.build(row, input_shape=x.shape[1:], classifier_activation=None)
        model.set_weights(weights or model.get_weights())
        weights = model.get_weights()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        answers.append([model.predict_on_batch(x), model.train_on_batch(x, np.array([0, 1])), *model.get_weights()])
    for last, first in zip(*answers):
        np.testing.assert_allclose(first, last, rtol=1e-3, atol=1e-5)
print("done", len(rows))
"""


@pytest.mark.everything
@pytest.mark.slow
@pytest.mark.jax
def test_on_jax_both_data_formats_compute_and_learn_the_same():
    """TensorFlow's processor kernels know channels last only; JAX's know both."""
    quickly = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, **quickly, "PYTHONPATH": str(pathlib.Path(kresnets.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["done", "2"]


# --- the knobs ---


@pytest.mark.parametrize(
    ("row", "striding"), [("ResNet50", "conv1"), ("ResNet50B", "conv2"), ("ResNet50D", "conv2"), ("ResNet18", "conv1")]
)
def test_where_the_stride_sits(row, striding):
    """A: the first 1x1. B: the 3x3. D: as B, and no convolution of a shortcut strides."""
    model = kresnets.build(short(row, depths=(1, 2, 1, 1)), input_shape=(32, 32, 3))
    strided = {conv.name for conv in convs(model, "stage") if conv.strides != (1, 1)}
    expected = {f"stage{stage}_block1_{striding}" for stage in (2, 3, 4)}
    if row != "ResNet50D":
        expected |= {f"stage{stage}_block1_shortcut_conv" for stage in (2, 3, 4)}
    assert strided == expected


def test_v2_of_keras_strides_in_the_last_block():
    model = kresnets.build(dataclasses.replace(TINY, preactivation=True, strides=(2, 1), downsample_in="last"))
    assert [conv.name for conv in convs(model, "stage") if conv.strides != (1, 1)] == ["stage1_block2_conv2"]
    pool = model.get_layer("stage1_block2_shortcut_pool")
    x = random(1, 7, 9, 16)
    np.testing.assert_array_equal(pool(x), x[:, ::2, ::2])


def test_the_deep_stem():
    """1812.01187 section 4.1: three 3x3 of 32, 32 and 64 channels, the first of stride 2, in place of the 7x7."""
    stem = [
        (conv.kernel_size, conv.filters, conv.strides) for conv in convs(kresnets.build(short("ResNet50C")), "stem")
    ]
    assert stem == [((3, 3), 32, (2, 2)), ((3, 3), 32, (1, 1)), ((3, 3), 64, (1, 1))]
    stem = [
        (conv.kernel_size, conv.filters, conv.strides) for conv in convs(kresnets.build(short("ResNet50B")), "stem")
    ]
    assert stem == [((7, 7), 64, (2, 2))]


@pytest.mark.parametrize("size", [(16, 16), (13, 10)])
def test_the_pool_of_d_averages_two_by_two(size):
    """An odd last row or column is averaged over what is there, as timm's `ceil_mode` without counted padding does."""
    row = dataclasses.replace(TINY, deep_stem=True, avg_shortcut=True, stem="imagenet")
    pool = kresnets.build(row).get_layer("stage2_block1_shortcut_pool")
    x = random(2, *size, 3)
    padded = np.pad(x, [(0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)], constant_values=np.nan)
    cells = padded.reshape(2, math.ceil(size[0] / 2), 2, math.ceil(size[1] / 2), 2, 3)
    np.testing.assert_allclose(pool(x), np.nanmean(cells, axis=(2, 4)), rtol=1e-6, atol=1e-6)


def test_option_a_subsamples_and_appends_channels_of_zeros():
    model = kresnets.CifarResNet20()
    assert not convs(model, "shortcut")
    shortcut = between(model, "stage1_block3_out", "stage2_block1_shortcut_pad")
    x = random(2, 32, 32, 16)
    expected = np.zeros((2, 16, 16, 32), "float32")
    expected[..., :16] = x[:, ::2, ::2]
    np.testing.assert_array_equal(shortcut(x), expected)
    assert [layer.name for layer in model.layers if layer.name.endswith("shortcut_pad")] == [
        "stage2_block1_shortcut_pad",
        "stage3_block1_shortcut_pad",
    ]


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 3), ("C", 8)])
def test_shortcut_options(shortcut, projections):
    """1512.03385 section 3.3, on ResNet-18: A none, B where shapes differ (three of eight blocks), C everywhere."""
    row = dataclasses.replace(SPECS["ResNet18"], shortcut=shortcut, widths=(4, 8, 16, 32), params=None)
    model = kresnets.build(row, input_shape=(32, 32, 3))
    assert len(convs(model, "shortcut")) == projections
    assert np.isfinite(model(random(2, 32, 32, 3))).all()


def test_a_block_adds_its_shortcut():
    """The sum of figure 2 of 1512.03385, from the layers of the block called one by one."""
    model = make_lively(kresnets.build(TINY, input_shape=FREE))
    block = "stage2_block1"
    x = np.maximum(random(2, 9, 9, 16), 0)

    def through(x, *names):
        for name in names:
            x = model.get_layer(f"{block}_{name}")(x)
        return np.asarray(x)

    branch = through(x, "conv1", "bn1", "relu1", "pad2", "conv2", "bn2", "relu2", "conv3", "bn3")
    expected = np.maximum(branch + through(x, "shortcut_conv", "shortcut_bn"), 0)
    np.testing.assert_allclose(between(model, "stage1_block2_out", f"{block}_out")(x), expected, rtol=1e-5, atol=1e-5)


# --- zero-gamma ---


@pytest.mark.parametrize(
    "knobs", [{}, {"block": "basic"}, {"stem": "cifar", "shortcut": "A"}, {"deep_stem": True, "avg_shortcut": True}]
)
def test_with_zero_gamma_a_block_is_the_identity_at_the_start(knobs):
    row = dataclasses.replace(TINY, depths=(3, 2), zero_gamma=True, **knobs)
    model = kresnets.build(row, input_shape=FREE)
    width = row.widths[0] * row.expansion
    x = np.maximum(random(2, 8, 8, width), 0)
    for training in (False, True):
        np.testing.assert_array_equal(between(model, "stage1_block1_out", "stage1_block3_out")(x, training=training), x)
    gammas = [layer.name for layer in model.layers if "bn" in layer.name and not np.any(layer.gamma)]
    last = f"bn{2 if row.block == 'basic' else 3}"
    assert gammas == [
        f"stage{stage}_block{block}_{last}" for stage, depth in ((1, 3), (2, 2)) for block in range(1, depth + 1)
    ]


def test_with_zero_gamma_a_deeper_net_starts_with_the_same_answers():
    short = kresnets.build(dataclasses.replace(TINY, depths=(1, 1), zero_gamma=True))
    deep = kresnets.build(dataclasses.replace(TINY, depths=(4, 3), zero_gamma=True))
    for layer in short.layers:
        deep.get_layer(layer.name).set_weights(layer.get_weights())
    images = random(2, 224, 224, 3)
    np.testing.assert_array_equal(deep(images), short(images))


def test_without_zero_gamma_it_does_not():
    model = kresnets.build(TINY, input_shape=FREE)
    x = np.maximum(random(2, 8, 8, 16), 0)
    assert np.abs(between(model, "stage1_block1_out", "stage1_block2_out")(x) - x).max() > 0.1


def test_a_plain_net_refuses_zero_gamma():
    with pytest.raises(ValueError, match="PlainNet18: residual=False does not go with zero_gamma=True"):
        dataclasses.replace(SPECS["PlainNet18"], zero_gamma=True)


# --- pre-activation ---


def test_a_branch_of_v2_ends_in_the_sum():
    """1603.05027 figure 4e: norm and ReLU before each convolution, nothing after the sum: the identity is untouched."""
    model = kresnets.build(dataclasses.replace(TINY, preactivation=True), input_shape=FREE)
    model.get_layer("stage1_block2_conv3").set_weights([np.zeros((1, 1, 4, 16))])
    x = random(2, 8, 8, 16)
    np.testing.assert_array_equal(between(model, "stage1_block1_add", "stage1_block2_add")(x), x)
    assert [layer.name for layer in model.layers][-4:] == ["stage2_bn", "stage2_relu", "head_pool", "head_dense"]


# --- precision, files ---


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("said_to", ["keras", "build"])
def test_scores_stay_float32_under_a_mixed_policy(policy, said_to):
    if said_to == "keras":
        keras.config.set_dtype_policy(policy)
    try:
        given = {} if said_to == "keras" else {"dtype": policy}
        model = kresnets.build(dataclasses.replace(TINY, dropout=0.1), input_shape=(32, 32, 3), **given)
        assert keras.config.dtype_policy().name == ("float32" if given else policy)
    finally:
        keras.config.set_dtype_policy("float32")
    half = policy.removeprefix("mixed_")
    assert model.output.dtype == model.get_layer("head_dense").compute_dtype == "float32"
    assert {conv.compute_dtype for conv in convs(model)} == {half}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    answer = np.asarray(model(random(2, 32, 32, 3)))
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(-1), 1, rtol=1e-5)


def test_a_dtype_that_is_none_leaves_the_policy_as_it_was():
    with pytest.raises(ValueError, match="`dtype` must be a Keras dtype policy or its name.*'float13'"):
        kresnets.build(TINY, dtype="float13")
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    "knobs",
    [{}, {"stem": "cifar", "shortcut": "A"}, {"deep_stem": True, "avg_shortcut": True}, {"preactivation": True}],
)
def test_a_file_gives_the_same_network(knobs, tmp_path):
    model = make_lively(kresnets.build(dataclasses.replace(TINY, **knobs)))
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    images = random(2, 224, 224, 3)
    np.testing.assert_array_equal(loaded(images), model(images))
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]
