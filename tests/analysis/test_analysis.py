"""`kresnets.summarize` against TensorFlow's profiler and gradients, torchvision's and timm's tables, and papers."""

import csv
import dataclasses
import functools
import io
import math
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from nets import TINY, tiny

import kresnets
from kresnets.analysis import alexnet
from kresnets.networks.resnet import residual_block

L = keras.layers


@functools.cache
def unfilled(name):
    """Build a network whose weights are never given values: for counting, and in no time."""
    with keras.StatelessScope(initialize_variables=False):
        return getattr(kresnets, name)(weights=None)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    yield
    unfilled.cache_clear()
    keras.backend.clear_session()  # what `unfilled` left to be filled


# `_ops` in the meta data of torchvision's weights (torchvision/models/resnet.py, inception.py), in billions.
TORCHVISION = {
    "ResNet18": 1.814, "ResNet34": 3.664, "ResNet50B": 4.089, "ResNet101B": 7.801, "ResNet152B": 11.514,
    "InceptionV3": 5.713,
}  # fmt: skip


@pytest.mark.always("ResNet18", "InceptionV3")
@pytest.mark.parametrize("name", TORCHVISION)
def test_multiply_adds_are_those_of_torchvision(name):
    assert round(kresnets.summarize(unfilled(name)).multiply_adds / 1e9, 3) == TORCHVISION[name]


# timm, results/benchmark-infer-*.csv, infer_gmacs: pixels a side, billions.
TIMM = {
    "ResNet18": (224, 1.82), "ResNet18D": (224, 2.06), "ResNet34": (224, 3.67), "ResNet34D": (224, 3.91),
    "ResNet26D": (224, 2.60), "ResNet50B": (224, 4.11), "ResNet50D": (224, 4.35), "ResNet101B": (224, 7.83),
    "ResNet152B": (224, 11.56), "ResNet101D": (320, 16.48), "ResNet152D": (320, 24.08), "ResNet200D": (320, 31.25),
    "InceptionV3": (299, 5.73), "InceptionV4": (299, 12.28), "InceptionResNetV2": (299, 13.18),
}  # fmt: skip


@pytest.mark.always("ResNet18D", "ResNet50B", "InceptionV4")
@pytest.mark.parametrize("name", TIMM)
def test_multiply_adds_are_those_of_timm_once_the_norms_are_added(name):
    size, published = TIMM[name]
    model = unfilled(name)  # at its own size, and counted at timm's
    counted = kresnets.summarize(model, input_shape=(size, size, 3))
    norms = {layer.name for layer in model.layers if isinstance(layer, L.BatchNormalization)}
    # fvcore, which timm counts with, takes two operations for each element of a norm's output.
    elements = sum(math.prod(row.output) for row in counted.layers if row.name in norms)
    assert round((counted.multiply_adds + 2 * elements) / 1e9, 2) == published


def test_the_stride_on_the_first_1x1_saves_what_the_papers_say():
    a, b = (kresnets.summarize(unfilled(name)).multiply_adds / 1e9 for name in ("ResNet50", "ResNet50B"))
    assert 3.8 <= a <= 3.9 < 4.05 < b < 4.1  # 3.8 in 1512.03385 table 1, 4.1 in 1812.01187 table 5


def profiled(model, shape):
    """Return the operations of convolutions and matrix products in a model's graph, as TensorFlow counts them."""
    tf.config.run_functions_eagerly(True)  # Keras hides a grouped convolution in a function, where it is not seen
    try:
        image = tf.TensorSpec((1, *shape))
        graph = tf.compat.v1.wrap_function(lambda image: model(image, training=False), [image]).graph
    finally:
        tf.config.run_functions_eagerly(False)
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    counted, todo = {}, [profile]
    while todo:
        node = todo.pop()
        counted[node.name] = node.float_ops
        todo.extend(node.children)
    return sum(counted.get(name, 0) for name in ("Conv2D", "DepthwiseConv2dNative", "MatMul"))


def odd():
    """A network with what the residual ones lack: groups, dilation, depthwise, separable and one-dimensional layers."""
    image = keras.Input((35, 28, 3))  # the dilated layer gets even sides, or TensorFlow would pad and count more
    x = L.Conv2D(8, (5, 3), strides=(2, 1), activation="relu")(image)
    x = L.Conv2D(12, 3, groups=4, padding="same")(x)
    x = L.Conv2D(12, 3, dilation_rate=2)(x)
    x = L.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(x)
    x = L.SeparableConv2D(10, 3, depth_multiplier=2)(x)
    x = L.Dense(7)(x)  # on each position
    x = L.Reshape((-1, 7))(x)
    x = L.Conv1D(6, 3, strides=2)(x)
    x = L.Dense(5, activation="softmax")(L.Flatten()(x))
    return keras.Model(image, x)


@pytest.mark.always("resnet18", "tiny", "odd")
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: kresnets.ResNet18(weights=None, input_shape=(64, 96, 3)), None),
        (lambda: kresnets.ResNet50D(weights=None, include_top=False), (97, 64, 3)),
        (lambda: kresnets.InceptionV3(weights=None, include_top=False), (139, 107, 3)),
        (lambda: kresnets.build(TINY, include_top=False), (48, 40, 3)),
        (lambda: keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)), None),
        (lambda: keras.applications.ResNet50V2(weights=None, include_top=False), (65, 65, 3)),
        (odd, None),
        (alexnet, None),
    ],
    ids=["resnet18", "resnet50d", "inceptionv3", "tiny", "mobilenet", "keras", "odd", "alexnet"],
)
def test_multiply_adds_are_those_of_the_profiler_of_tensorflow(build, shape):
    model = build()
    summary = kresnets.summarize(model, input_shape=shape)
    assert summary.not_counted == ()
    assert 2 * summary.multiply_adds == profiled(model, shape or model.input_shape[1:])


def kept_by_tensorflow(model, batch=2):
    """Return the bytes an image that pass from the forward to the backward half of the graph of a training step."""

    @tf.function(jit_compile=False)
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(images, training=True)))
        return tape.gradient(loss, model.trainable_variables)

    def backward(operation):  # AddN: where gradients of several users of a tensor meet
        return operation.name.startswith(("gradient_tape/", "AddN"))

    graph = step.get_concrete_function(tf.TensorSpec((batch, *model.input_shape[1:]))).graph
    passing = {}
    for operation in filter(backward, graph.get_operations()):
        for tensor in operation.inputs:
            while tensor.op.type == "Identity":
                tensor = tensor.op.inputs[0]
            if not backward(tensor.op) and tensor.shape.rank and tensor.shape[0] == batch:
                passing[tensor.name] = math.prod(tensor.shape) * tensor.dtype.size
    return sum(passing.values()) / batch


@pytest.mark.always("A", "v2", "vgg")
@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny(),
        lambda: tiny(preactivation=True, shortcut="C", dropout=0.3, stochastic_depth=0.2),
        lambda: tiny(block="bottleneck", shortcut="B", avg_shortcut=True),
        lambda: kresnets.ResNet18D(weights=None, input_shape=(64, 64, 3)),
        lambda: keras.applications.VGG16(weights=None, input_shape=(32, 32, 3)),
        pytest.param(lambda: kresnets.InceptionV3(weights=None, input_shape=(75, 75, 3)), marks=pytest.mark.slow),
        pytest.param(
            lambda: keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)), marks=pytest.mark.slow
        ),
    ],
    ids=["A", "v2", "D", "resnet18d", "vgg", "inception", "mobilenet"],
)
def test_memory_is_what_the_gradients_of_tensorflow_take_from_the_forward_pass(build):
    model = build()
    assert kresnets.summarize(model).activation_bytes == kept_by_tensorflow(model)


def test_memory_in_bfloat16_is_that_of_tensorflow_too():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(preactivation=True)
        half, kept = kresnets.summarize(model).activation_bytes, kept_by_tensorflow(model)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert half == kept < 0.51 * kresnets.summarize(tiny(preactivation=True)).activation_bytes


# The number in a name is its paper's count. The deep stem of C and D has two layers more than the 7x7 that the name
# counts. Of the Inception nets only v3 has a number that is often told, 48; 1512.00567 says 42 of its Inception-v2.
DEPTHS = {
    "ResNet18": 18, "ResNet34": 34, "ResNet50": 50, "ResNet101": 101, "ResNet152": 152, "ResNet50V2": 50,
    "ResNet26": 26, "CifarResNet20": 20, "CifarResNet110": 110, "CifarResNet164V2": 164, "CifarPlainNet56": 56,
    "PlainNet34": 34,
    "ResNet50D": 52, "InceptionV3": 48,
}  # fmt: skip


@pytest.mark.always("ResNet50", "ResNet26", "CifarPlainNet56", "InceptionV3")
@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_that_of_the_papers(name):
    assert kresnets.summarize(unfilled(name)).depth == DEPTHS[name]


@pytest.mark.everything
def test_depth_of_others():
    assert kresnets.summarize(keras.applications.VGG16(weights=None)).depth == 16
    assert kresnets.summarize(keras.applications.DenseNet121(weights=None)).depth == 121


@pytest.mark.parametrize(("channels", "side"), [(4, 8), (16, 14)])
def test_the_arithmetic_of_the_blocks(channels, side):
    def convolutions(row, width, outside):
        image = keras.Input((side, side, outside), name="stem_input")
        block = residual_block(image, kresnets.SPECS[row], width, 1, name="stage1_block1")
        summary = kresnets.summarize(keras.Model(image, block))
        return sum(row.parameters for row in summary.layers if row.weight_layers), 2 * summary.multiply_adds

    square, area = channels**2, side**2
    assert convolutions("ResNet18", channels, channels) == (18 * square, 36 * square * area)
    assert convolutions("ResNet50B", channels, 4 * channels) == (17 * square, 34 * square * area)
    assert convolutions("ResNet18", 4 * channels, 4 * channels) == (288 * square, 576 * square * area)


def test_alexnet_has_the_parameters_of_its_paper():
    summary = kresnets.summarize(alexnet())
    assert summary.parameters == 60_965_224 == alexnet().count_params()
    assert summary.depth == 8  # "five convolutional and three fully connected layers", its abstract says
    dense = sum(inputs * outputs + outputs for inputs, outputs in ((6 * 6 * 256, 4096), (4096, 4096), (4096, 1000)))
    assert summary.rows[-1].parameters == dense


def test_parameters_are_those_of_keras_and_do_not_depend_on_freezing():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    for trainable in (True, False):
        model.trainable = trainable
        summary = kresnets.summarize(model)
        assert summary.parameters == 25_583_592 and summary.statistics == 53_120  # 25,636,712 together, Keras says
    assert [row.name for row in summary.rows] == ["all"]


def test_rows_and_layers_add_up_to_the_total():
    summary = kresnets.summarize(unfilled("ResNet26D"))
    assert [row.name for row in summary.rows] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    for number in ("parameters", "statistics", "multiply_adds", "activation_bytes"):
        total = getattr(summary, number)
        assert (
            total
            == sum(getattr(row, number) for row in summary.rows)
            == sum(getattr(row, number) for row in summary.layers)
        )
    assert summary.rows[1].output == (56, 56, 256) and summary.rows[-1].output == (1000,)


def test_nested_models_count_as_flat_ones_and_keep_their_groups():
    flat = tiny(size=24)
    trunk = kresnets.build(TINY, include_top=False, pooling="avg", input_shape=(24, 24, 3))
    image = keras.Input((24, 24, 3))
    x = keras.Sequential([trunk, L.Dense(3, activation="softmax")])(image)
    nested, flat = kresnets.summarize(keras.Model(image, x)), kresnets.summarize(flat)
    for number in ("parameters", "statistics", "multiply_adds", "depth", "activation_bytes"):
        assert getattr(nested, number) == getattr(flat, number)
    assert nested.rows == flat.rows
    assert any(row.name.endswith("/tiny/stage1_block1_conv1") for row in nested.layers)


def test_a_layer_called_twice_has_its_weights_once_and_its_work_twice():
    shared = L.Conv2D(4, 3, padding="same")
    image = keras.Input((8, 8, 4))
    once = kresnets.summarize(keras.Model(image, shared(image)))
    twice = kresnets.summarize(keras.Model(image, shared(shared(image))))
    assert twice.parameters == once.parameters == shared.count_params()
    assert twice.multiply_adds == 2 * once.multiply_adds and twice.depth == 2 and len(twice.layers) == 1


def test_counting_changes_nothing_in_the_model():
    model = tiny()
    inside, config = [len(layer._inbound_nodes) for layer in model.layers], model.get_config()
    kresnets.summarize(model, input_shape=(20, 20, 3))
    assert [len(layer._inbound_nodes) for layer in model.layers] == inside and model.get_config() == config


def test_several_inputs_operations_and_groups_of_ones_own():
    one, other = keras.Input((8, 8, 3), name="one"), keras.Input((None, 8, 3), name="other")
    conv = L.Conv2D(4, 3, padding="same", name="body_conv")
    x = keras.ops.relu(conv(one) + keras.ops.mean(conv(other), axis=1, keepdims=True))
    model = keras.Model([one, other], L.Dense(2, name="top")(L.GlobalAveragePooling2D(name="top_pool")(x)))
    summary = kresnets.summarize(model, [(8, 8, 3), (6, 8, 3)], groups={"body": "body.*", "head": "top.*"})
    assert summary.multiply_adds == 9 * 3 * 4 * (64 + 48) + 8
    assert {row.name: row.parameters for row in summary.rows} == {"body": 112, "head": 10}
    assert sum(row.multiply_adds for row in summary.rows) == summary.multiply_adds


def test_what_multiplies_in_an_unknown_way_is_named():
    sequence = keras.Input((6, 4))
    x = L.MultiHeadAttention(2, 4, name="attention")(sequence, sequence)
    x = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
    summary = kresnets.summarize(keras.Model(sequence, x))
    assert "attention" in summary.not_counted and len(summary.not_counted) == 2
    assert "without the multiply-adds of attention" in str(summary)


def test_the_table_and_the_csv_show_the_numbers(tmp_path):
    summary = kresnets.summarize(unfilled("ResNet18"), input_shape=(64, 64, 3))
    lines = str(summary).splitlines()
    assert lines[0].startswith("resnet18 on 64x64x3, depth 18") and "11,689,512" in lines[-1]
    assert len({len(line) for line in lines[1:]}) == 1  # aligned
    summary.to_csv(tmp_path / "layers.csv", by="layer")
    with open(tmp_path / "layers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["name"] == "total" and int(rows[-1]["multiply_adds"]) == summary.multiply_adds
    assert sum(int(row["parameters"]) for row in rows[:-1]) == summary.parameters
    assert [row["name"] for row in csv.DictReader(io.StringIO(summary.to_csv()))][:2] == ["stem", "stage1"]
    assert [path.name for path in tmp_path.iterdir()] == ["layers.csv"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.depth = 1


@pytest.mark.everything
@pytest.mark.jax
def test_jax_and_channels_first_count_the_same():
    code = (
        "import keras, kresnets\n"
        "keras.config.set_image_data_format('channels_first')\n"
        "summary = kresnets.summarize(kresnets.CifarResNet20(input_shape=(3, 64, 64)), (3, 96, 80))\n"
        "print(keras.config.backend(), summary.depth, summary.parameters)\n"
        "print(summary.multiply_adds, summary.activation_bytes)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    mine = kresnets.summarize(kresnets.CifarResNet20(), (96, 80, 3))
    expected = ("jax", mine.depth, mine.parameters, mine.multiply_adds, mine.activation_bytes)
    assert run.stdout.split() == [str(each) for each in expected]


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kresnets.summarize("ResNet50"), "Functional or Sequential Keras model.*Received: str"),
        (lambda: kresnets.summarize(Subclassed()), "Received: Subclassed"),
        (lambda: kresnets.summarize(keras.Sequential([L.Dense(2)])), "has been built"),
        (lambda: kresnets.summarize(kresnets.build(TINY, include_top=False)), "any size.*pass `input_shape`"),
        (lambda: kresnets.summarize(tiny(), input_shape=32), "tuple of whole numbers.*Received: input_shape=32"),
        (lambda: kresnets.summarize(tiny(), input_shape=(32, 32)), "tuple of whole numbers"),
        (lambda: kresnets.summarize(tiny(), input_shape=(0, 32, 3)), "tuple of whole numbers"),
        (lambda: kresnets.summarize(tiny(), input_shape=(32, 32, 4)), "'stem_conv1' are for 3 features.*32, 32, 4"),
        (lambda: kresnets.summarize(alexnet(), input_shape=(300, 300, 3)), "'head_dense1' are for 9216 features"),
        (lambda: kresnets.summarize(alexnet(), input_shape=(8, 8, 3)), "'stem_conv1' cannot take.*another"),
        (lambda: kresnets.summarize(tiny()).to_csv(by="row"), "`by` must be 'group' or 'layer'"),
    ],
)
def test_misuse_is_told_in_one_sentence(call, words):
    with pytest.raises(ValueError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)
