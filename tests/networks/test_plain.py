"""The copy in Keras's own layers computes the same and needs no kresnets."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from families import SMALL, images
from keras import layers
from lively import make_lively

import kresnets
from kresnets import as_plain_keras
from kresnets.task import set_task

SIZE = (16, 16, 3)


def pixels():
    return np.random.default_rng(0).normal(size=(4, *SIZE)).astype("float32")


def flat():
    return kresnets.CifarResNet20(input_shape=SIZE)


def nested():
    """Two levels deep, with a norm of ours outside of the trunk."""
    trunk = kresnets.CifarResNet20(include_top=False, input_shape=SIZE)
    inner = keras.Sequential(
        [keras.Input(SIZE), trunk, kresnets.layers.BatchNormalization(name="norm"), layers.GlobalAveragePooling2D()],
        name="inner",
    )
    image = keras.Input(SIZE)
    return keras.Model(image, layers.Dense(2)(layers.Dropout(0.5)(inner(image))))


def shared():
    """One trunk, called twice."""
    trunk = kresnets.CifarResNet20(include_top=False, input_shape=SIZE, pooling="avg")
    image = keras.Input(SIZE)
    return keras.Model(image, layers.Concatenate()([trunk(image), trunk(layers.Rescaling(-1.0)(image))]))


def wrapped():
    """A trunk over the frames of a film."""
    trunk = kresnets.CifarResNet20(include_top=False, input_shape=SIZE, pooling="avg")
    image = keras.Input(SIZE)
    return keras.Model(image, layers.TimeDistributed(trunk)(layers.Reshape((1, *SIZE))(image)))


def mixed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return kresnets.CifarResNet20(input_shape=SIZE)
    finally:
        keras.config.set_dtype_policy("float32")


def inner_layers(model):
    return list(model._flatten_layers())  # no public door opens a wrapper


@pytest.mark.parametrize("make", [flat, nested, shared, wrapped, mixed])
def test_the_same_numbers_from_kerass_layers_alone(make):
    model = make_lively(make())
    plain = as_plain_keras(model)
    assert {type(layer).__module__.split(".")[0] for layer in inner_layers(plain)} == {"keras"}
    assert "kresnets" not in plain.to_json()
    # bfloat16 rounds each layer to 2**-8, and the two norms may round to either side.
    tolerance = 2e-2 if make is mixed else 1e-5
    np.testing.assert_allclose(
        np.asarray(plain(pixels()), "float32"), np.asarray(model(pixels()), "float32"), rtol=tolerance, atol=tolerance
    )
    assert [weight.path for weight in plain.weights] == [weight.path for weight in model.weights]
    assert plain.name == model.name


def test_it_is_a_copy():
    model = flat()
    before, answer = model.get_weights(), np.asarray(model(pixels()))
    make_lively(as_plain_keras(model))
    assert all(np.array_equal(mine, other) for mine, other in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(model(pixels()), answer)
    assert isinstance(model.get_layer("stem_bn1"), kresnets.layers.BatchNormalization)


@pytest.mark.always("nested")
@pytest.mark.parametrize("make", [flat, nested])
def test_flags_are_kept(make):
    model = kresnets.freeze(make(), through="stage2_block1")
    plain = as_plain_keras(model)
    assert [weight.path for weight in plain.trainable_weights] == [weight.path for weight in model.trainable_weights]
    assert [layer.trainable for layer in inner_layers(plain) if layer.weights] == [
        layer.trainable for layer in inner_layers(model) if layer.weights
    ]


@pytest.mark.parametrize("make", [flat, nested])
def test_the_flag_of_the_model_is_kept(make):
    model = make()
    model.trainable = False
    plain = as_plain_keras(model)
    assert not plain.trainable and not plain.trainable_weights


@pytest.mark.parametrize("model", ["model.keras", None, kresnets.CifarResNet20])
def test_what_is_no_functional_model(model):
    with pytest.raises(ValueError, match="as_plain_keras.*Functional.*Received") as error:
        as_plain_keras(model)
    assert "clone_function" not in str(error.value), "an argument that the caller never gave"


LOAD = """
import sys
sys.modules["kresnets"] = None
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])))
"""


@pytest.mark.slow
def test_its_file_loads_where_kresnets_is_missing(tmp_path):
    model = make_lively(nested())
    as_plain_keras(model).save(tmp_path / "plain.keras")
    np.save(tmp_path / "images.npy", pixels())
    paths = [str(tmp_path / name) for name in ("plain.keras", "answer.npy", "images.npy")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], env=dict(os.environ), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), model(pixels()), rtol=1e-5, atol=1e-5)


def test_a_fine_tuned_model_and_standardized_filters_have_a_plain_copy():
    """A task is no argument of Keras's norm; what BiT does to its filters is done once and for all."""
    for row in (SMALL["v1"], SMALL["bit"]):
        model = make_lively(kresnets.build(row, input_shape=(64, 64, 3)))
        set_task(model, "classes")
        plain = kresnets.as_plain_keras(model)
        assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
        noise = images((64, 64, 3))
        np.testing.assert_allclose(plain(noise), model(noise), rtol=1e-4, atol=1e-5)
