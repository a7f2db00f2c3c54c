"""The fused norm computes Keras's numbers wherever Keras computes any; padding is that of the papers."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import kresnets
from kresnets.networks.layers import BatchNormalization, conv, pad_channels

SHAPE = (4, 6, 5, 3)
# float32 sums in another order. bfloat16 has 8 bits: a result rounded to it may fall on either side, so differ 2**-8;
# whatever stays float32 (statistics, gradients of gamma and beta) does not.
FLOAT32, BFLOAT16 = 1e-5, 2**-8


def images(shape=SHAPE, mean=0.0, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype("float32")


def pair(shape=SHAPE, **arguments):
    """Ours and Keras's with the same random weights."""
    layers = [cls(**arguments) for cls in (BatchNormalization, keras.layers.BatchNormalization)]
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.build((None, *shape[1:]))
    for weights in zip(*(layer.weights for layer in layers), strict=True):
        value = rng.uniform(0.5, 1.5, weights[0].shape)
        for weight in weights:
            weight.assign(value)
    return layers


def numbers(layer, x, training, how="eager", **call):
    """Everything that the layer computes: output, gradients of x, gamma and beta, and the statistics afterwards."""

    def step(x, scale):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training, **call)
            loss = tf.reduce_sum(tf.cast(outputs, scale.dtype) * scale)
        weights = [weight.value for weight in layer.trainable_weights]
        return outputs, tape.gradient(loss, [x, *weights])

    x = tf.convert_to_tensor(x)
    scale = tf.constant(images(x.shape, seed=2), tf.float64 if x.dtype == tf.float64 else tf.float32)
    outputs, gradients = (step if how == "eager" else tf.function(step, jit_compile=how == "xla"))(x, scale)
    assert outputs.dtype == layer.compute_dtype
    found = {"output": outputs, "gradient of x": gradients[0]}
    found |= {
        f"gradient of {w.name}": gradient for w, gradient in zip(layer.trainable_weights, gradients[1:], strict=True)
    }
    found |= {weight.name: weight for weight in layer.non_trainable_weights}
    return {name: np.asarray(tf.cast(value, tf.float64)) for name, value in found.items()}


def assert_same(found, expected, tolerance, but_for=FLOAT32):
    """Within `tolerance` of the largest value for what is in the compute dtype, `but_for` for what stays float32."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = tolerance if name in ("output", "gradient of x") else but_for
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=limit * max(np.abs(value).max(initial=0), 1e-3), err_msg=name
        )


def is_fused(layer, x):
    """Whether TensorFlow's kernel is in the graph."""
    graph = (
        tf.function(lambda x: layer(x, training=True), jit_compile=False)
        .get_concrete_function(tf.convert_to_tensor(x))
        .graph
    )
    return any(operation.type == "FusedBatchNormV3" for operation in graph.get_operations())


# --- the kernel ---


@pytest.mark.parametrize("how", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", FLOAT32), ("mixed_bfloat16", BFLOAT16)])
def test_equals_keras(policy, tolerance, training, how):
    ours, theirs = pair(dtype=policy, momentum=0.7, epsilon=1e-2)
    x = tf.cast(images(), ours.compute_dtype)
    assert is_fused(ours, x) and not is_fused(theirs, x)
    ours, theirs = pair(dtype=policy, momentum=0.7, epsilon=1e-2)
    for _ in range(3):  # the statistics move on
        assert_same(numbers(ours, x, training, how), numbers(theirs, x, training, how), tolerance)
    moved = np.abs(np.asarray(ours.moving_mean) - np.asarray(pair()[0].moving_mean)).max()
    assert (moved > 0.1) == training


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 1, 3), (1, 2, 1, 3), (3, 16, 16, 1), (2, 3, 4, 70)])
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", FLOAT32), ("mixed_bfloat16", BFLOAT16)])
def test_equals_keras_at_other_sizes(shape, policy, tolerance):
    """One value a channel included: no division by n - 1 = 0."""
    ours, theirs = pair(shape, dtype=policy)
    x = tf.cast(images(shape), ours.compute_dtype)
    assert_same(numbers(ours, x, True), numbers(theirs, x, True), tolerance)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_without_gamma_or_beta(scale, center):
    ours, theirs = pair(scale=scale, center=center)
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]
    for training in (True, False):
        assert_same(numbers(ours, images(), training), numbers(theirs, images(), training), FLOAT32)


def test_a_large_mean_costs_no_more_digits_than_in_keras():
    """Mean 1000, deviation 1: E[x^2] - E[x]^2 would leave one digit of the variance in float32; neither does that."""
    x = images((16, 8, 8, 3), mean=1000)
    ours, theirs = (numbers(layer, x, True) for layer in pair(epsilon=1e-5))
    exact = numbers(pair(epsilon=1e-5, dtype="float64")[1], x.astype("float64"), True)
    error = {name: np.abs(ours[name] - exact[name]).max() / np.abs(exact[name]).max() for name in exact}
    keras_error = {name: np.abs(theirs[name] - exact[name]).max() / np.abs(exact[name]).max() for name in exact}
    assert all(error[name] < max(2 * keras_error[name], 1e-6) for name in exact), (error, keras_error)
    assert max(error.values()) < 1e-3


def test_a_frozen_norm_stands_still_and_computes_from_its_statistics():
    ours, theirs = pair()
    ours.trainable = theirs.trainable = False
    before = [np.asarray(weight) for weight in ours.weights]
    found, expected = numbers(ours, images(), True), numbers(theirs, images(), True)
    assert_same(found, expected, FLOAT32)
    np.testing.assert_allclose(found["output"], numbers(pair()[1], images(), False)["output"], rtol=1e-5, atol=1e-5)
    assert all(np.array_equal(weight, value) for weight, value in zip(ours.weights, before, strict=True))


def test_second_derivatives():
    """A gradient penalty differentiates the gradient."""

    def penalty(layer):
        x = tf.constant(images())
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 3)
            loss = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(loss, x).numpy()

    ours, theirs = map(penalty, pair())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_an_empty_batch_does_what_it_does_in_keras():
    for training in (True, False):
        ours, theirs = pair()
        outputs = [layer(np.zeros((0, *SHAPE[1:]), "float32"), training=training) for layer in (ours, theirs)]
        assert outputs[0].shape == outputs[1].shape == (0, *SHAPE[1:])
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_not_a_number_spreads_as_in_keras():
    x = images()
    x[0, 0, 0, 0] = np.nan
    ours, theirs = (layer(x, training=True).numpy() for layer in pair())
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))


# --- Keras's own code where the kernel does not apply ---


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        pytest.param((4, 3), {}, id="rank 2"),
        pytest.param((4, 5, 3), {}, id="rank 3"),
        pytest.param((2, 3, 4, 5, 3), {}, id="rank 5"),
        pytest.param(SHAPE, dict(axis=1), id="axis 1"),
        pytest.param(SHAPE, dict(axis=2), id="axis 2"),
        pytest.param(SHAPE, dict(axis=-2), id="axis -2"),
        pytest.param(SHAPE, dict(dtype="mixed_float16"), id="mixed_float16"),
        pytest.param(SHAPE, dict(dtype="float16"), id="float16"),
        pytest.param(SHAPE, dict(dtype="bfloat16"), id="bfloat16"),
        pytest.param(SHAPE, dict(dtype="float64"), id="float64"),
        pytest.param(SHAPE, dict(renorm=True), id="renorm"),
        pytest.param(
            SHAPE, dict(renorm=True, renorm_clipping={"rmax": 1.5, "rmin": 0.5, "dmax": 1.0}), id="renorm clipped"
        ),
        pytest.param(SHAPE, dict(synchronized=True), id="synchronized"),
    ],
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_elsewhere_it_is_keras(shape, arguments, training):
    ours, theirs = pair(shape, **arguments)
    x = tf.cast(images(shape), ours.compute_dtype)
    assert not is_fused(pair(shape, **arguments)[0], x)
    for _ in range(2):
        assert_same(numbers(ours, x, training), numbers(theirs, x, training), 0, but_for=0)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_a_masked_input(training):
    mask = np.random.default_rng(3).random(SHAPE[:-1]) > 0.4
    ours, theirs = pair()
    assert_same(
        numbers(ours, images(), training, mask=mask), numbers(theirs, images(), training, mask=mask), 0, but_for=0
    )
    assert (
        np.abs(
            numbers(pair()[0], images(), True)["moving_mean"]
            - numbers(pair()[0], images(), True, mask=mask)["moving_mean"]
        ).max()
        > 1e-4
    )


def test_a_mask_that_travels_with_the_tensor():
    """A Masking layer in front: Keras hands the mask to the norm by itself."""
    x = images()
    x[:, :3] = 0
    answers = []
    for norm in pair():
        inputs = keras.Input(SHAPE[1:])
        model = keras.Model(inputs, norm(keras.layers.Masking()(inputs)))
        answers.append([np.asarray(model(x, training=True)), np.asarray(norm.moving_mean)])
    for mine, other in zip(*answers, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(None, 3), (None, None, None, 3)])
def test_unknown_sizes(shape):
    ours, theirs = pair(shape)
    x = images((2, 7, 4, 3)[: 1 if len(shape) == 2 else 3] + (3,))
    models = []
    for layer in (ours, theirs):
        inputs = keras.Input(shape[1:])
        models.append(keras.Model(inputs, layer(inputs)))
    mine, other = (model(x, training=True) for model in models)
    np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-5)


# --- in a model ---


def small_model(norm, policy):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, dtype=policy),
        norm(dtype=policy),
        keras.layers.Activation("relu", dtype=policy),
    ]
    head = [keras.layers.GlobalAveragePooling2D(dtype=policy), keras.layers.Dense(2, dtype="float32")]
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *layers, keras.layers.Conv2D(8, 3, dtype=policy), norm(dtype=policy), *head]
    )


# In 8 steps at this rate weights move by some 1e-1; bfloat16 rounds each step to 2**-8 of it, 8 times: under 1e-2.
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 1e-2)])
def test_training_ends_where_keras_ends(policy, tolerance):
    x, y = images((32, 8, 8, 3)), np.arange(32) % 2
    weights = []
    for norm in (BatchNormalization, keras.layers.BatchNormalization):
        model = small_model(norm, policy)
        start = model.get_weights()
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert max(np.abs(end - begin).max() for end, begin in zip(weights[0], start, strict=True)) > 0.02
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance)


def test_a_file_brings_it_back(tmp_path):
    preprocessing = kresnets.Preprocessing("tf", 0.9)
    norm = BatchNormalization(
        momentum=0.8, epsilon=1e-2, scale=False, gamma_regularizer="l2", name="mine", preprocessing=preprocessing
    )
    model = keras.Sequential([keras.Input(SHAPE[1:]), norm])
    model(images(mean=3), training=True)
    model.save(tmp_path / "norm.keras")
    loaded = keras.saving.load_model(tmp_path / "norm.keras")
    again = loaded.get_layer("mine")
    assert type(again) is BatchNormalization and again.preprocessing == preprocessing
    assert again.get_config() == norm.get_config()
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_its_config_is_kerass_and_its_own_key():
    ours, theirs = (layer.get_config() for layer in pair(name="norm", momentum=0.5))
    assert ours == theirs, "nothing of ours unless it carries a preprocessing"
    before = kresnets.Preprocessing("tf", 0.5, decoding=kresnets.Decoding.before())  # of a file that says no decoding
    assert BatchNormalization(preprocessing={"mode": "tf", "crop": 0.5}).preprocessing == before
    assert issubclass(BatchNormalization, keras.layers.BatchNormalization)


def test_a_wrong_argument_is_kerass_own_error():
    with pytest.raises((TypeError, ValueError), match="momentumm"):
        BatchNormalization(momentumm=0.9)


# Each replica has the statistics of its own part of the batch; Keras gathers the moving ones.
MIRRORED = """
import keras, numpy as np, tensorflow as tf
from kresnets.networks.layers import BatchNormalization

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
x, y = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32"), np.arange(16) % 2
weights = []
for norm in (BatchNormalization, keras.layers.BatchNormalization):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [keras.layers.Conv2D(4, 3), norm(), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    start = model.get_weights()
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    weights.append(model.get_weights())
for mine, other in zip(*weights):
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)
assert max(np.abs(mine - before).max() for mine, before in zip(weights[0], start)) > 0.02
print("done")
"""


@pytest.mark.everything
@pytest.mark.slow
def test_on_two_devices():
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": str(pathlib.Path(kresnets.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout.split()[-1:] == ["done"], done.stderr[-2000:]


JAX = """
import sys
import keras, numpy as np
from kresnets.networks.layers import BatchNormalization

x = np.random.default_rng(0).normal(size=(4, 6, 5, 3)).astype("float32")
layers = BatchNormalization(dtype="mixed_bfloat16"), keras.layers.BatchNormalization(dtype="mixed_bfloat16")
for training in (True, False):
    mine, other = (np.asarray(layer(x, training=training), "float32") for layer in layers)
    np.testing.assert_array_equal(mine, other)
np.testing.assert_array_equal(layers[0].moving_variance, layers[1].moving_variance)
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
print("done")
"""


@pytest.mark.slow
@pytest.mark.jax
def test_on_jax_it_is_keras_and_tensorflow_stays_out():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(pathlib.Path(kresnets.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split()[-1:] == ["done"], done.stderr[-2000:]


# --- convolution and padding ---


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 9), (11, 7)])
def test_padding_is_symmetric(kernel, stride, size):
    """Against SciPy: kernel // 2 zeros on each side, every stride-th place; Keras's "same" would shift by a pixel."""
    from scipy.signal import correlate2d

    inputs = keras.Input((*size, 2))
    model = keras.Model(inputs, conv(inputs, 3, kernel, "conv1", stride))
    x = images((1, *size, 2))
    weight = np.asarray(model.get_layer("conv1").kernel)
    pad = kernel // 2
    padded = np.pad(x[0], [(pad, pad), (pad, pad), (0, 0)])
    expected = [
        sum(correlate2d(padded[..., i], weight[..., i, o], "valid") for i in range(2))[::stride, ::stride]
        for o in range(3)
    ]
    np.testing.assert_allclose(model(x)[0], np.stack(expected, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pad_channels(data_format):
    keras.config.set_image_data_format(data_format)
    try:
        inputs = keras.Input((4, 5, 6))
        model = keras.Model(inputs, pad_channels(inputs, 2, "pad"))
    finally:
        keras.config.set_image_data_format("channels_last")
    x = images((2, 4, 5, 6))
    axis = 3 if data_format == "channels_last" else 1
    np.testing.assert_array_equal(model(x), np.pad(x, [(0, 2 if i == axis else 0) for i in range(4)]))


def test_a_blur_keeps_the_data_format_that_it_was_made_for():
    """As SciPy blurs; read back where the other format is the usual one."""
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    line = np.array([0.25, 0.5, 0.25])
    blurred = ndimage.correlate(images, np.outer(line, line)[None, :, :, None], mode="mirror")[:, ::2, ::2]
    for data_format, axes in (("channels_last", (0, 1, 2, 3)), ("channels_first", (0, 3, 1, 2))):
        made = kresnets.layers.BlurPooling2D(data_format)
        again = kresnets.layers.BlurPooling2D.from_config(made.get_config())
        assert again.data_format == data_format
        assert made.compute_output_shape(images.transpose(axes).shape) == blurred.transpose(axes).shape
        if data_format == "channels_last":  # which alone TensorFlow convolves on a CPU
            np.testing.assert_allclose(again(images), blurred, atol=1e-6)
