"""The networks compute what their references compute: keras.applications itself, and timm's answers in golden/."""

import json
import math
import pathlib
import zlib

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import kresnets

GOLDEN = pathlib.Path(__file__).parent / "golden"
TOLERANCE = 1e-4  # of the largest value; one filter of the first convolution 5 % larger would move the logits by 1e-3

TIMM = {
    "resnet18": "ResNet18",
    "resnet18d": "ResNet18D",
    "resnet50": "ResNet50B",
    "resnet50c": "ResNet50C",
    "resnet50d": "ResNet50D",
}
KERAS = [
    "ResNet50",
    pytest.param("ResNet101", marks=pytest.mark.slow),
    pytest.param("ResNet152", marks=pytest.mark.slow),
]


def golden_tensor(name, shape):
    """What golden/README.md says of the tensor of that name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_mean"):
        value = rng.normal(0, 0.1, shape)
    elif name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = rng.uniform(0.5, 1.5, shape) * 0.7
    elif len(shape) == 1:
        value = rng.normal(0, 0.05, shape)
    else:
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return value.astype("float32")


def golden_images(size):
    """The two images of golden/README.md."""
    images = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        cell = math.ceil(size / 5)
        grid = rng.normal(0, 1, (5, 5, 3)).repeat(cell, axis=0).repeat(cell, axis=1)[:size, :size]
        images.append(grid + rng.normal(0, 0.1, (size, size, 3)))
    return np.asarray(images, "float32")


def make_lively(model, seed=0):
    """Give a model weights under which every layer shows in the output: no statistic at 0 or 1, no bias at 0."""
    rng = np.random.default_rng(seed)
    draw = {
        "kernel": lambda shape: rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape),
        "bias": lambda shape: rng.normal(0, 0.1, shape),
        "gamma": lambda shape: rng.uniform(0.35, 1.05, shape),
        "beta": lambda shape: rng.normal(0, 0.05, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    for variable in model.weights:
        variable.assign(draw[variable.name](tuple(variable.shape)))
    return model


def save_legacy(model, path, renamed=None):
    """Write weights as Keras 2 wrote the files that keras.applications publishes.

    Their head is called `probs`, though the code says `predictions`.
    """
    renamed = {"predictions": "probs"} if renamed is None else renamed
    with h5py.File(path, "w") as file:
        names = [renamed.get(layer.name, layer.name) for layer in model.layers]
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for name, layer in zip(names, model.layers, strict=True):
            group = file.create_group(name)
            weights = {f"{name}/{variable.name}:0": keras.ops.convert_to_numpy(variable) for variable in layer.weights}
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                group[weight] = value
    return path


def relative_error(found, expected):
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", KERAS)
def test_equals_keras_applications(name, tmp_path):
    reference = make_lively(getattr(keras.applications, name)(weights=None, classifier_activation=None))
    images = golden_images(224)
    expected = np.asarray(reference(images, training=False))
    reference.save_weights(tmp_path / "keras3.weights.h5")
    save_legacy(reference, tmp_path / "keras2.h5")
    for file in ("keras3.weights.h5", "keras2.h5"):
        model = getattr(kresnets, name)(weights=tmp_path / file, classifier_activation=None)
        error = relative_error(model(images, training=False), expected)
        print(f"{name}, {file}: relative error {error:.1e}")
        assert error < TOLERANCE
        assert kresnets.preprocessing_of(model).mode == "caffe"
    biases = sum(layer.bias.shape[0] for layer in reference.layers if isinstance(layer, keras.layers.Conv2D))
    assert _trainable(model) == _trainable(reference) - biases == kresnets.SPECS[name].params


def test_trunk_equals_keras_applications_at_an_odd_size(tmp_path):
    """Odd sizes meet every padding, and strides that leave a rest; the file is like the published `notop` ones."""
    reference = make_lively(keras.applications.ResNet50(weights=None, include_top=False, input_shape=(97, 97, 3)))
    images = golden_images(97)
    expected = np.asarray(reference(images, training=False))
    save_legacy(reference, tmp_path / "notop.h5")
    model = kresnets.ResNet50(weights=tmp_path / "notop.h5", include_top=False)
    assert relative_error(model(images, training=False), expected) < TOLERANCE


@pytest.mark.parametrize("timm_name", TIMM)
def test_equals_timm(timm_name, tmp_path):
    meta = json.loads((GOLDEN / f"{timm_name}.json").read_text())
    expected = np.load(GOLDEN / f"{timm_name}.npz")
    size = meta["input_size"]
    path = tmp_path / "model.safetensors"
    save_file({name: golden_tensor(name, shape) for name, shape in meta["state_dict"].items()}, path)
    model = getattr(kresnets, TIMM[timm_name])(weights=path, classifier_activation=None, input_shape=(size, size, 3))
    both = keras.Model(model.input, [model.get_layer("head_pool").input, model.output])
    features, logits = both(golden_images(size), training=False)
    error = relative_error(logits, expected["logits"])
    print(f"{TIMM[timm_name]}: relative error {error:.1e}")
    assert error < TOLERANCE
    assert tuple(features.shape) == tuple(expected["feature_shape"])
    assert relative_error(np.asarray(features).mean(axis=(1, 2)), expected["feature_mean"]) < TOLERANCE
    assert _trainable(model) == meta["params"] == kresnets.SPECS[TIMM[timm_name]].params
    assert kresnets.preprocessing_of(model).mode == "torch"


@pytest.mark.slow
def test_the_comparison_sees_a_wrong_network(tmp_path):
    """What a misplaced stride does: far above the tolerance."""
    meta = json.loads((GOLDEN / "resnet50.json").read_text())
    path = tmp_path / "model.safetensors"
    save_file({name: golden_tensor(name, shape) for name, shape in meta["state_dict"].items()}, path)
    size = meta["input_size"]
    right = kresnets.ResNet50B(weights=path, classifier_activation=None, input_shape=(size, size, 3))
    wrong = kresnets.ResNet50(weights=None, classifier_activation=None, input_shape=(size, size, 3))
    wrong.set_weights(right.get_weights())
    expected = np.load(GOLDEN / "resnet50.npz")["logits"]
    assert relative_error(wrong(golden_images(size), training=False), expected) > 100 * TOLERANCE


def _trainable(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_weights)
