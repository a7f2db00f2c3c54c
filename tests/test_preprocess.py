"""Preprocessing is keras.applications' own, in every mode, and stays with the model that wants it."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kresnets
from kresnets import Preprocessing, preprocess_input, preprocessing_of
from kresnets.preprocess import MODES

REFERENCE = keras.applications.imagenet_utils.preprocess_input
# float32 rounds each of the three operations to 2**-24 of numbers up to 255; float16 to 2**-11.
TOLERANCE = {"float16": 2**-9, "float32": 1e-6, "float64": 1e-12}


def pixels(dtype="float32", shape=(2, 5, 7, 3), data_format="channels_last"):
    x = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    return x if data_format == "channels_last" else np.moveaxis(x, -1, -3)


def assert_close(found, expected, dtype="float32"):
    limit = TOLERANCE.get(dtype, 1e-6) * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found, "float64"), np.asarray(expected, "float64"), rtol=0, atol=limit)


# --- the numbers ---


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_arrays_equal_keras_applications(mode, data_format, shape, dtype):
    x = pixels(dtype, shape, data_format)
    expected = REFERENCE(x.copy(), data_format=data_format, mode=mode)
    found = preprocess_input(x, data_format=data_format, mode=mode)
    assert isinstance(found, np.ndarray) and found.dtype == expected.dtype and found.shape == expected.shape
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_equal_keras_applications(mode, data_format, dtype):
    x = tf.constant(pixels(dtype, data_format=data_format))
    expected = REFERENCE(x, data_format=data_format, mode=mode)
    found = preprocess_input(x, data_format=data_format, mode=mode)
    assert tf.is_tensor(found) and found.dtype == expected.dtype == dtype
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("mode", MODES)
def test_symbolic_tensors_and_pipelines(mode):
    x = pixels("uint8")
    expected = REFERENCE(x.astype("float32"), mode=mode)
    image = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(image, preprocess_input(image, mode=mode))
    assert_close(model(x), expected)
    batches = tf.data.Dataset.from_tensor_slices(x).map(lambda image: preprocess_input(image, mode=mode)).batch(2)
    assert batches.element_spec.dtype == "float32"
    assert_close(next(iter(batches)), expected)


def test_the_default_mode_is_torch_and_the_default_format_that_of_the_moment():
    x = pixels()
    assert_close(preprocess_input(x), REFERENCE(x.copy(), mode="torch"))
    keras.config.set_image_data_format("channels_first")
    try:
        assert_close(
            preprocess_input(np.moveaxis(x, -1, 1), mode="caffe"), REFERENCE(np.moveaxis(x, -1, 1).copy(), mode="caffe")
        )
    finally:
        keras.config.set_image_data_format("channels_last")


def test_more_leading_axes():
    """Frames of a film, `(batch, time, height, width, 3)`: keras.applications takes only 3 or 4 axes channels first."""
    x = pixels(shape=(2, 3, 4, 4, 3))
    for mode in MODES:
        each = np.stack([REFERENCE(film.copy(), mode=mode) for film in x])
        assert_close(preprocess_input(x, mode=mode), each)
        assert_close(preprocess_input(np.moveaxis(x, -1, -3), "channels_first", mode=mode), np.moveaxis(each, -1, -3))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_never_in_place(mode, dtype):
    x = pixels(dtype)
    before = x.copy()
    found = preprocess_input(x, mode=mode)
    np.testing.assert_array_equal(x, before)
    found += 1
    np.testing.assert_array_equal(x, before, err_msg="a view of the caller's array")
    x.setflags(write=False)
    preprocess_input(x, mode=mode)


# --- what is refused ---


@pytest.mark.parametrize("mode", ["Torch", "imagenet", None, 3, ["tf"]])
def test_an_unknown_mode(mode):
    with pytest.raises(ValueError, match="mode .*'caffe', 'tf', 'torch'") as error:
        preprocess_input(pixels(), mode=mode)
    assert repr(mode) in str(error.value)
    with pytest.raises(ValueError, match="mode"):
        Preprocessing(mode)


@pytest.mark.parametrize("data_format", ["NHWC", 3, "last"])
def test_an_unknown_data_format(data_format):
    with pytest.raises(ValueError, match="`data_format` must be 'channels_last' or 'channels_first'. Received: "):
        preprocess_input(pixels(), data_format)


@pytest.mark.parametrize("shape", [(2, 5, 7, 1), (2, 5, 7, 4), (5, 3), (3,), (2, 3, 5, 7)])
def test_other_than_three_channels(shape):
    for x in (pixels(shape=shape), tf.constant(pixels(shape=shape))):
        with pytest.raises(ValueError, match=r"3 channels \(RGB\) on axis -1 .*Received: shape="):
            preprocess_input(x)


@pytest.mark.parametrize("x", [[[[1, 2, 3]]], None, "cat.jpg"])
def test_what_is_no_array(x):
    with pytest.raises(ValueError, match="preprocess_input.*array or tensor"):
        preprocess_input(x)


@pytest.mark.parametrize("crop", [0, -1, 1.01, float("nan")])
def test_a_crop_that_is_none(crop):
    with pytest.raises(ValueError, match="`crop` must be above 0 and at most 1. Received"):
        Preprocessing("torch", crop)


# --- it stays with the model ---


def trunk(preprocessing):
    """A trunk whose weights want `preprocessing`, as a file of weights would say."""
    model = kresnets.CifarResNet20(include_top=False, input_shape=(16, 16, 3))
    model.get_layer("stem_bn1").preprocessing = preprocessing
    return model


def test_a_random_start_wants_the_torch_mode():
    for name in ("CifarResNet20", "ResNet18", "PlainNet18"):
        assert preprocessing_of(getattr(kresnets, name)(weights=None)) == Preprocessing("torch", 1.0)


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def with_a_head(model):
    return keras.Model(model.input, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(model.output)))


def nested(model):
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.RandomFlip(),
            model,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )


WAYS = {
    "saved": saved_and_loaded,
    "cloned": lambda model, _: keras.models.clone_model(model),
    "with a head": lambda model, _: with_a_head(model),
    "nested": lambda model, _: nested(model),
    "cut": lambda model, _: keras.Model(model.input, model.get_layer("stage2_block1_out").output),
    "nested, cloned, saved": lambda model, folder: saved_and_loaded(keras.models.clone_model(nested(model)), folder),
    "with a head, saved": lambda model, folder: saved_and_loaded(with_a_head(model), folder),
    "serialized": lambda model, _: keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model)),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_survives(way, tmp_path):
    wanted = Preprocessing("caffe", 0.875)
    assert preprocessing_of(WAYS[way](trunk(wanted), tmp_path)) == wanted


def test_the_plain_copy_and_foreign_models_have_none():
    assert preprocessing_of(kresnets.as_plain_keras(trunk(Preprocessing("tf")))) is None
    assert preprocessing_of(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])) is None


def test_a_copied_trunk_brings_it():
    source, target = trunk(Preprocessing("tf", 0.5)), with_a_head(trunk(Preprocessing("torch")))
    kresnets.copy_trunk(source, target)
    assert preprocessing_of(target) == Preprocessing("tf", 0.5)


# --- names of classes ---


def test_decode_predictions_is_that_of_keras_applications(monkeypatch):
    """The list of names is fetched from the network: here what Keras makes of it is stood in for."""
    asked = []
    monkeypatch.setattr(
        keras.applications.imagenet_utils,
        "decode_predictions",
        lambda preds, top: asked.append((preds, top)) or [["cat"]],
    )
    scores = np.eye(1000)[:1]
    assert kresnets.decode_predictions(scores, top=2) == [["cat"]]
    assert asked == [(scores, 2)]
    kresnets.decode_predictions(scores)
    assert asked[1][1] == 5


def test_decode_predictions_refuses_other_shapes():
    for scores in (np.zeros((1, 10)), np.zeros(1000)):
        with pytest.raises(ValueError, match=r"1000"):
            kresnets.decode_predictions(scores)


OFFLINE = """
import socket, sys

def unreachable(*_, **__):
    raise socket.gaierror(-2, "Name or service not known")

socket.getaddrinfo = socket.create_connection = unreachable
import numpy as np
import kresnets
try:
    kresnets.decode_predictions(np.eye(1000)[:1])
except RuntimeError as error:
    print("said:", error)
"""


@pytest.mark.slow
def test_without_a_network_it_says_where_to_put_the_list(tmp_path):
    """Keras's own download, cut off: which file, where it goes (KERAS_HOME heeded) and the reason, in one sentence."""
    environment = {
        **os.environ,
        "KERAS_HOME": str(tmp_path),
        "PYTHONPATH": str(pathlib.Path(kresnets.__file__).parents[1]),
    }
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.split("said: ")[1]
    assert "could not be fetched" in said and str(tmp_path / "models" / "imagenet_class_index.json") in said
    assert "Name or service not known" in said and said.count("\n") == 1
