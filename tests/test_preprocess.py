"""Preprocessing is keras.applications' own, in every mode, and stays with the model that wants it."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import kresnets
from kresnets import Preprocessing, preprocess_input, preprocessing_of
from kresnets.preprocess import MODES as ALL_MODES
from kresnets.preprocess import preprocessing_for, set_preprocessing

REFERENCE = keras.applications.imagenet_utils.preprocess_input
MODES = [mode for mode in ALL_MODES if mode != "none"]  # those of keras.applications
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


def test_none_leaves_the_numbers():
    for x in (pixels("uint8"), pixels("float32"), tf.constant(pixels("float16"))):
        found = preprocess_input(x, mode="none")
        assert type(found) is type(x) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(found.dtype))
        np.testing.assert_array_equal(np.asarray(found, "float32"), np.asarray(x, "float32"))
    assert preprocess_input(keras.Input((8, 8, 3)), mode="none").shape == (None, 8, 8, 3)
    with pytest.raises(ValueError, match="`mean` goes with mode='torch' or 'caffe', and the mode is 'none'"):
        preprocess_input(pixels(), mode="none", mean=HALF)


@pytest.mark.parametrize("mode", ALL_MODES)
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_bfloat16_as_keras_applications(mode, data_format):
    x = pixels("float32", data_format=data_format).astype(ml_dtypes.bfloat16)
    for kind in (np.array, tf.constant):  # numpy does not know bfloat16: keras.applications makes float32 of it
        expected = REFERENCE(kind(x), data_format=data_format, mode=mode)
        found = preprocess_input(kind(x), data_format=data_format, mode=mode)
        assert type(found) is type(expected) and found.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found, "float32"), np.asarray(expected, "float32"))


HALF = (0.5, 0.5, 0.5)  # of timm's files whose name has `ra4`


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_torch_with_means_of_a_half_is_the_tf_mode(dtype, data_format):
    x = pixels(dtype, data_format=data_format)
    expected = REFERENCE(x.copy(), data_format=data_format, mode="tf")
    for kind in (np.array, tf.constant) if dtype != "uint8" else (np.array,):
        found = preprocess_input(kind(x), data_format, "torch", mean=HALF, std=HALF)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(Preprocessing(mean=HALF, std=HALF)(kind(x), data_format), found)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_caffe_with_means_of_ones_own_takes_them_off_in_its_order(data_format):
    x = pixels("float32", data_format=data_format)
    shift = np.array((103.939, 116.779, 123.68)) - (104, 117, 123)  # B, G, R, as the reference subtracts them
    shift = shift.reshape((3,) if data_format == "channels_last" else (3, 1, 1))
    expected = REFERENCE(x.copy(), data_format=data_format, mode="caffe") + shift
    np.testing.assert_allclose(
        preprocess_input(x, data_format, "caffe", mean=(104, 117, 123)), expected, rtol=0, atol=1e-4
    )
    found = Preprocessing("caffe", mean=(104, 117, 123))
    np.testing.assert_allclose(found(x, data_format), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="of B, G and R"):
        Preprocessing("caffe", mean=(104, 117))


def test_means_and_deviations_are_those_of_each_channel():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    layer = keras.layers.Normalization(mean=np.array(mean), variance=np.array(std) ** 2)
    x = pixels()
    np.testing.assert_allclose(preprocess_input(x, mean=mean, std=std), layer(x / 255), rtol=1e-5, atol=1e-6)
    own = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    for kept in own:  # one alone leaves the mode's own other
        assert_close(preprocess_input(x, **{kept: own[kept]}), REFERENCE(x.copy(), mode="torch"))


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


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (2, 3, 30, 40), (5, 3), (3,)])
def test_what_has_no_channels_there(shape):
    for x in (pixels(shape=shape), tf.constant(pixels(shape=shape))):
        with pytest.raises(ValueError, match=r"3 channels \(RGB\), or 1 to 8, on axis -1 .*Received: shape="):
            preprocess_input(x)


@pytest.mark.parametrize("x", [[[[1, 2, 3]]], None, "cat.jpg"])
def test_what_is_no_array(x):
    with pytest.raises(ValueError, match="preprocess_input.*array or tensor"):
        preprocess_input(x)


@pytest.mark.parametrize("crop", [0, -1, 1.01, float("nan")])
def test_a_crop_that_is_none(crop):
    with pytest.raises(ValueError, match="`crop` must be above 0 and at most 1. Received"):
        Preprocessing("torch", crop)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(mode="tf", mean=HALF), dict(mode="caffe", std=HALF), dict(mean=0.5), dict(mean=(0.5, 0.5)),
        dict(mean="abc"), dict(mean=(0, 0, float("nan"))), dict(std=(1, 1, 0)), dict(std=(1, 1, -1)),
        dict(std=("1", 1, 1)),
    ],
)  # fmt: skip
def test_means_that_are_none(wrong):
    name = next(key for key in wrong if key != "mode")
    for call in (Preprocessing, lambda **wrong: preprocess_input(pixels(), **wrong)):
        with pytest.raises(ValueError, match=f"`{name}`") as error:
            call(**wrong)
        assert repr(wrong.get("mode", wrong[name])) in str(error.value)


@pytest.mark.parametrize("size", [0, -1, 2.5, "224", True, (224, 224)])
def test_a_size_that_is_none(size):
    with pytest.raises(ValueError, match="`size` must be a whole number of pixels from 1, or None. Received: "):
        Preprocessing(size=size)


def test_it_survives_json_and_old_notes_are_read():
    whole = Preprocessing("torch", np.float32(0.5), list(HALF), np.array(HALF), np.int64(224))
    assert whole.mean == whole.std == HALF and type(whole.size) is int
    assert Preprocessing(**json.loads(json.dumps(dataclasses.asdict(whole)))) == whole
    assert hash(whole) == hash(dataclasses.replace(whole))
    assert Preprocessing(mode="tf", crop=0.9) == Preprocessing("tf", 0.9, None, None, None)


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


@pytest.mark.always("cloned", "nested, cloned, saved", "serialized")
@pytest.mark.parametrize("way", WAYS)
def test_it_survives(way, tmp_path):
    for wanted in (Preprocessing("caffe", 0.875), Preprocessing("torch", 0.95, HALF, HALF, 256)):
        assert preprocessing_of(WAYS[way](trunk(wanted), tmp_path)) == wanted


def test_weights_alone_bring_it_too(tmp_path):
    wanted = Preprocessing("torch", 0.95, HALF, HALF, 256)
    trunk(wanted).save_weights(tmp_path / "trunk.weights.h5")
    again = kresnets.CifarResNet20(include_top=False, weights=tmp_path / "trunk.weights.h5")
    assert preprocessing_of(again) == wanted


def test_the_plain_copy_and_foreign_models_have_none():
    assert preprocessing_of(kresnets.as_plain_keras(trunk(Preprocessing("tf")))) is None
    assert preprocessing_of(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])) is None


def test_a_copied_trunk_brings_it():
    source, target = trunk(Preprocessing("tf", 0.5)), with_a_head(trunk(Preprocessing("torch")))
    kresnets.copy_trunk(source, target)
    assert preprocessing_of(target) == Preprocessing("tf", 0.5)


# --- what a user forces, and what the weights want ---

WANTED = Preprocessing("torch", 0.95, HALF, HALF, 224)


@pytest.mark.parametrize(
    ("forced", "used"),
    [
        (None, WANTED),
        ("torch", WANTED),  # the mode that they have, with their means
        (Preprocessing("torch", 1.0, HALF, HALF), Preprocessing("torch", 1.0, HALF, HALF)),
        (Preprocessing("tf"), Preprocessing("tf")),  # the same numbers by another name
    ],
)
def test_what_agrees_is_silent(forced, used):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert preprocessing_for(trunk(WANTED), forced) == used
        assert preprocessing_for(trunk(Preprocessing()), Preprocessing(mean=(0.485, 0.456, 0.406))).mode == "torch"
        assert preprocessing_for(kresnets.as_plain_keras(trunk(WANTED)), "tf") == Preprocessing("tf")


@pytest.mark.parametrize(
    ("forced", "used"),
    [
        ("caffe", Preprocessing("caffe", 0.95, size=224)),
        (Preprocessing("torch"), Preprocessing("torch")),
        (Preprocessing("caffe", 0.9), Preprocessing("caffe", 0.9)),
    ],
)
def test_what_differs_is_said_aloud_and_used(forced, used):
    model = trunk(WANTED)
    with pytest.warns(UserWarning) as said:
        assert preprocessing_for(model, forced) == used
    sentence = str(said[0].message)
    assert len(said) == 1
    assert all(part in sentence for part in (repr(forced), repr(WANTED), "leave `preprocess` out"))
    assert preprocessing_of(model) == WANTED


def test_a_model_that_does_not_say_needs_to_be_told():
    plain = kresnets.as_plain_keras(trunk(WANTED))
    with pytest.raises(ValueError, match="does not say .*'caffe', 'tf', 'torch'"):
        preprocessing_for(plain)
    with pytest.raises(ValueError, match="Unknown preprocessing mode 'keras'"):
        preprocessing_for(plain, "keras")
    set_preprocessing(plain, WANTED)
    assert preprocessing_of(plain) is None


# --- names of classes ---

NAMES = {str(index): [f"n{index:08}", f"name {index}"] for index in range(1000)}


def test_decode_predictions_names_the_highest(monkeypatch):
    """The list of names is fetched from the network: one that stands in for it, where Keras keeps what it fetched."""
    reference = keras.applications.imagenet_utils.decode_predictions
    monkeypatch.setitem(reference.__globals__, "CLASS_INDEX", NAMES)
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(1000) / 499500, (3, 1)), axis=1).astype("float32")
    for top in (1, 5, 1000):
        best = [sorted(range(1000), key=lambda index: -row[index])[:top] for row in scores]
        expected = [
            [(f"n{index:08}", f"name {index}", row[index]) for index in indices]
            for row, indices in zip(scores, best, strict=True)
        ]
        for preds in (scores, tf.constant(scores)):
            assert kresnets.decode_predictions(preds, top=top) == expected == reference(preds, top=top)
    assert kresnets.decode_predictions(scores) == reference(scores) and len(reference(scores)[0]) == 5


def test_decode_predictions_refuses_other_shapes():
    for scores in (np.zeros((1, 10)), np.zeros(1000), [[0.0] * 1000], None):
        with pytest.raises(ValueError, match=r"`preds` must be .*1000.* Received: "):
            kresnets.decode_predictions(scores)
    for top in (0, -1, 1001, 2.5, "5", True):
        with pytest.raises(ValueError, match="`top` must be a whole number from 1 to 1000. Received: top="):
            kresnets.decode_predictions(np.zeros((1, 1000)), top=top)


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


@pytest.mark.everything
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


ON_JAX = """
import sys
import keras, jax.numpy as jnp, numpy as np
import kresnets
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
reference = keras.applications.imagenet_utils.preprocess_input
x = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3))
for mode in ("caffe", "tf", "torch"):
    for dtype in ("float32", "float16", "bfloat16", "uint8"):
        pixels = jnp.asarray(x, dtype)
        expected = reference(pixels if dtype != "uint8" else pixels.astype("float32"), "channels_last", mode)
        found = kresnets.preprocess_input(pixels, "channels_last", mode)
        assert found.dtype == expected.dtype, (mode, dtype, found.dtype)
        limit = {"float16": 2**-9, "bfloat16": 2**-6}.get(dtype, 1e-6) * float(abs(expected).max())
        assert float(abs(found.astype("float32") - expected.astype("float32")).max()) <= limit, (mode, dtype)
"""


@pytest.mark.everything
@pytest.mark.jax
def test_jax_arrays_equal_keras_applications():
    root = str(pathlib.Path(kresnets.__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", ON_JAX], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
