"""Every network goes through the doors of other tools and comes out the same: files, clones, precisions, backends."""

import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import SMALL, images, smallest
from lively import make_lively, relative_error
from places import SUPPORT

import kresnets

ROWS = [pytest.param(row, id=kind) for kind, row in SMALL.items()] + [
    pytest.param(kresnets.SPECS[name], id=name, marks=pytest.mark.everything) for name in kresnets.list_models()
]
ROW = pytest.mark.parametrize("row", ROWS)
MARKED = kresnets.Preprocessing("tf")


@pytest.fixture
def folder():
    """Gone at once: all networks' files together are tens of gigabytes."""
    with tempfile.TemporaryDirectory() as path:
        yield pathlib.Path(path)


def made(row):
    """The network up to its logits, with lively weights that want the preprocessing `MARKED`."""
    model = make_lively(kresnets.build(row, input_shape=smallest(row), classifier_activation=None))
    first = next(layer for layer in model.layers if isinstance(layer, kresnets.layers.BatchNormalization))
    first.preprocessing = MARKED
    return model


def train_a_step(model, row):
    """Fit one batch and give the loss; at this size a graph takes longer to make than it saves."""
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    return model.train_on_batch(images(smallest(row)), np.array([0, 1]))


def assert_same(found, model, row):
    """The same names, weights, answers and wanted preprocessing."""
    assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers]
    assert [weight.path for weight in found.weights] == [weight.path for weight in model.weights]
    x = images(smallest(row))
    np.testing.assert_array_equal(found(x, training=False), model(x, training=False))
    assert kresnets.preprocessing_of(found) == MARKED


@pytest.mark.always("d", "inception")
@ROW
def test_a_keras_file(row, folder):
    """Of a compiled model that has learned."""
    model = made(row)
    assert np.isfinite(train_a_step(model, row))
    model.save(folder / "net.keras")
    loaded = keras.saving.load_model(folder / "net.keras")
    assert_same(loaded, model, row)
    assert loaded.optimizer.iterations == 1


@pytest.mark.always("v2", "cifar")
@ROW
def test_a_saved_model_read_by_tensorflow(row, folder):
    model = made(row)
    model.export(folder / "net", verbose=False)
    served = tf.saved_model.load(folder / "net")
    for count in (1, 3):
        x = images(smallest(row), count)
        assert relative_error(served.serve(x), model(x, training=False)) < 1e-5


@pytest.mark.always("v2", "inception-resnet")
@ROW
def test_a_clone(row):
    model = made(row)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same(clone, model, row)
    assert not {id(weight) for weight in clone.weights} & {id(weight) for weight in model.weights}


@pytest.mark.always("d", "inception")
@ROW
def test_mixed_precision(row):
    """In bfloat16 it answers nearly the same, in float32, and learns."""
    model = made(row)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = kresnets.build(row, input_shape=smallest(row), classifier_activation=None)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    x = images(smallest(row))
    answer = mixed(x, training=False)
    assert answer.dtype == "float32" and {weight.dtype for weight in mixed.weights} == {"float32"}
    assert {layer.compute_dtype for layer in mixed.layers if "conv" in layer.name} == {"bfloat16"}
    # Each layer rounds to 2**-8.
    assert relative_error(answer, model(x, training=False)) < 0.1
    assert np.isfinite(train_a_step(mixed, row))


@pytest.mark.always("v2", "inception-resnet")
@ROW
def test_channels_first_builds(row):
    """TensorFlow runs it on GPUs alone; test_on_jax runs it."""
    last = kresnets.build(row, input_shape=smallest(row))
    keras.config.set_image_data_format("channels_first")
    try:
        first = kresnets.build(row, input_shape=smallest(row))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert [(weight.path, weight.shape) for weight in first.weights] == [
        (weight.path, weight.shape) for weight in last.weights
    ]
    for one, other in zip(first.layers, last.layers, strict=True):
        shape = other.output.shape
        assert one.name == other.name
        assert one.output.shape == ((None, shape[3], *shape[1:3]) if len(shape) == 4 else shape)


# --- in other processes: the small rows together in one, since a start takes seconds ---


def together(*kinds):
    """One case of these small rows for `make test`, one of the other small rows, and one for each builder."""
    parts = {"quick": kinds, "others": [kind for kind in SMALL if kind not in kinds]}
    parts |= {name: [name] for name in kresnets.list_models()}
    rows = SMALL | kresnets.SPECS
    cases = [
        pytest.param(
            {name: rows[name] for name in names}, id=part, marks=() if part == "quick" else pytest.mark.everything
        )
        for part, names in parts.items()
        if names
    ]
    return pytest.mark.parametrize("rows", cases)


def run(script, folder, **environment):
    search = [str(pathlib.Path(kresnets.__file__).parents[1]), str(SUPPORT)]
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


WITHOUT = """
import pathlib, sys
sys.modules["kresnets"] = None
import keras, numpy as np
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    x = np.load(path.with_suffix(".images.npy"))
    model = keras.saving.load_model(path)
    expected = np.load(path.with_suffix(".answer.npy"))
    error = np.abs(model(x, training=False) - expected).max() / np.abs(expected).max()
    assert error < 1e-5, (path.stem, error)
    print(path.stem)
"""


def save(folder, kind, model, x, answer):
    model.save(folder / f"{kind}.keras")
    np.save(folder / f"{kind}.images.npy", x)
    np.save(folder / f"{kind}.answer.npy", answer)


@pytest.mark.everything
@pytest.mark.slow
@together(*SMALL)
def test_a_plain_copy_loads_where_kresnets_is_missing(rows, folder):
    has_copy = {kind: row for kind, row in rows.items() if not getattr(row, "anti_alias", False)}
    for kind, row in has_copy.items():
        model = made(row)
        x = images(smallest(row))
        save(folder, kind, kresnets.as_plain_keras(model), x, model(x, training=False))
    assert {*run(WITHOUT, folder).split()} == {*has_copy}


JAX = """
import pathlib, sys
import keras, numpy as np
import kresnets
from families import SMALL, images, smallest

assert keras.config.backend() == "jax" and "tensorflow" not in sys.modules
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    row = SMALL.get(path.stem) or kresnets.SPECS[path.stem]
    x, labels = np.load(path.with_suffix(".images.npy")), np.array([0, 1])
    model = keras.saving.load_model(path)
    answer, expected = model.predict_on_batch(x), np.load(path.with_suffix(".answer.npy"))
    error = np.abs(answer - expected).max() / np.abs(expected).max()
    assert error < 1e-4, (path.stem, error)

    keras.config.set_image_data_format("channels_first")
    first = kresnets.build(row, input_shape=smallest(row), classifier_activation=None)
    keras.config.set_image_data_format("channels_last")
    first.set_weights(model.get_weights())
    error = np.abs(first.predict_on_batch(x.transpose(0, 3, 1, 2)) - answer).max() / np.abs(answer).max()
    assert error < 1e-4, (path.stem, "channels_first", error)

    before = model.get_weights()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.train_on_batch(x, labels)), path.stem
    after = model.get_weights()
    assert all(np.isfinite(value).all() for value in after), path.stem
    assert any(np.any(old != new) for old, new in zip(before, after)), path.stem
    print(path.stem)
"""


@pytest.mark.everything
@pytest.mark.jax
@together("cifar", "v2", "inception-resnet")
def test_on_jax(rows, folder):
    """A file that TensorFlow wrote answers the same there, in both data formats, and learns."""
    for kind, row in rows.items():
        model, x = made(row), images(smallest(row))
        save(folder, kind, model, x, model(x, training=False))
    out = run(JAX, folder, KERAS_BACKEND="jax", XLA_FLAGS="--xla_backend_optimization_level=0")
    assert {*out.split()} == {*rows}
