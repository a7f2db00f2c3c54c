"""Weights files: every tensor used, every variable filled, or one clear error and the model as it was.

Names and shapes are those that timm (golden/*.json) and keras.applications (its own code) give, for tiny widths.
"""

import dataclasses
import functools
import hashlib
import http.server
import json
import logging
import os
import pathlib
import pickle
import re
import subprocess
import sys
import threading

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from lively import golden_tensor, make_lively, relative_error, save_legacy
from places import GOLDEN, ROOT
from safetensors.numpy import load_file, save_file

import kresnets
from kresnets.preprocess import set_preprocessing
from kresnets.weights import fetch, load, resolve, sources

# As timm's resnet18 and keras.applications' ResNet50 but for the widths, the depths and the classes.
TORCH_WIDTHS = {64: 4, 128: 6, 256: 8, 512: 10, 1000: 5}
TINY = dataclasses.replace(
    kresnets.SPECS["ResNet18"], widths=(4, 6, 8, 10), depths=(1, 1, 1, 1), classes=5, params=None
)
TINY_A = dataclasses.replace(
    kresnets.SPECS["ResNet50"], widths=(2, 3, 4, 5), depths=(2, 1, 1, 1), stem_width=64, classes=5, params=None
)
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")


def build(spec=TINY, weights=None, **arguments):
    return kresnets.build(spec, weights=weights, classifier_activation=None, **{"input_shape": (32, 32, 3)} | arguments)


def predict(model, images=IMAGES):
    return keras.ops.convert_to_numpy(model(images, training=False))


def torch_tensors():
    meta = json.loads((GOLDEN / "resnet18.json").read_text())
    shapes = {name: [TORCH_WIDTHS.get(side, side) for side in shape] for name, shape in meta["state_dict"].items()}
    return {name: golden_tensor(name, shape) for name, shape in shapes.items() if not re.match(r"layer\d\.1\.", name)}


@functools.cache
def keras_tiny(include_top=True):
    """keras.applications' own code with the widths and depths of TINY_A."""
    code = sys.modules[keras.applications.ResNet50.__module__]

    def stages(x):
        for number, (width, depth, stride) in enumerate(
            zip(TINY_A.widths, TINY_A.depths, TINY_A.strides, strict=True), start=2
        ):
            x = code.stack_residual_blocks_v1(x, width, depth, stride1=stride, name=f"conv{number}")
        return x

    arguments = dict(
        weights=None, input_shape=(32, 32, 3), classes=5, classifier_activation=None, include_top=include_top
    )
    return make_lively(code.ResNet(stages, False, True, name="tiny", **arguments))


@pytest.fixture
def torch_file(tmp_path):
    return _saved(torch_tensors(), tmp_path / "tiny.safetensors")


@pytest.fixture
def keras_file(tmp_path):
    return save_legacy(keras_tiny(), tmp_path / "tiny.h5")


def _saved(tensors, path):
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    return path


@functools.cache
def untouched(spec, include_top, classes):
    """A model that files are refused by, and its weights; built once, as it stays as it is."""
    model = build(spec, include_top=include_top, classes=classes)
    return model, model.get_weights()


def assert_refused(spec, path, *words, include_top=True, classes=5):
    """A file gets one sentence that names it and the words, and changes nothing in the model."""
    model, before = untouched(spec, include_top, classes)
    with pytest.raises(ValueError) as caught:
        load(model, spec, resolve(spec, path), include_top=include_top, classes=classes)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    assert "\n" not in message and len(message) < 2000
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- kinds of files -------------------------------------------------------------------------------------------------


def test_every_kind_of_keras_file_gives_keras_outputs(tmp_path):
    reference = keras_tiny()
    save_legacy(reference, tmp_path / "published.h5")
    save_legacy(reference, tmp_path / "saved-by-keras-2.h5", renamed={})
    reference.save(tmp_path / "whole-model.h5")
    reference.save_weights(tmp_path / "keras-3.weights.h5")
    reference.save_weights(tmp_path / "early-keras-3.weights.h5")
    with h5py.File(tmp_path / "early-keras-3.weights.h5", "a") as file:
        file.visititems(lambda _, item: [item.attrs.pop(name) for name in list(item.attrs)] and None)
    for path in sorted(tmp_path.iterdir()):
        model = build(TINY_A, path)
        assert relative_error(predict(model), predict(reference)) < 1e-5, path.name
        assert kresnets.preprocessing_of(model).mode == "caffe"


def test_kresnets_file_round_trip_with_a_trained_optimizer(tmp_path):
    model = make_lively(build())
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=True,
    )
    model.fit(IMAGES, np.asarray([1, 3]), epochs=2, verbose=0)
    model.save_weights(tmp_path / "mine.weights.h5")
    model.save(tmp_path / "mine.h5")
    for path in (tmp_path / "mine.weights.h5", tmp_path / "mine.h5"):
        again = build(weights=path)
        for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert kresnets.preprocessing_of(again).mode == "torch"


def test_file_of_a_model_with_a_head_of_ones_own_gives_its_trunk(tmp_path):
    trunk = make_lively(build(include_top=False, pooling="avg"))
    outputs = keras.layers.Dense(3, name="mine")(keras.layers.Dense(7, activation="relu", name="hidden")(trunk.output))
    keras.Model(trunk.input, outputs).save_weights(tmp_path / "grown.weights.h5")
    keras.Sequential([keras.Input((32, 32, 3)), trunk, keras.layers.Dense(3)]).save_weights(
        tmp_path / "nested.weights.h5"
    )
    for file in ("grown.weights.h5", "nested.weights.h5"):
        again = build(weights=tmp_path / file, include_top=False, pooling="avg")
        np.testing.assert_array_equal(predict(trunk), predict(again))
    assert_refused(TINY, tmp_path / "grown.weights.h5", "head_dense/kernel", "mine/kernel")


@pytest.mark.parametrize("said, mode", [('{"mode": "caffe", "crop": 0.875}', "caffe"), (None, "torch")])
def test_kresnets_file_says_how_images_are_preprocessed(said, mode, tmp_path, caplog):
    path = tmp_path / "mine.weights.h5"
    build().save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs.clear()
        if said:
            file.attrs["preprocessing"] = said
    with caplog.at_level(logging.INFO, logger="kresnets"):
        assert kresnets.preprocessing_of(build(weights=path)).mode == mode
    assert ("does not say how" in caplog.text) == (said is None)


def test_load_weights_of_keras_takes_the_preprocessing_along(tmp_path):
    source, target = build(TINY_A), build(TINY_A)
    set_preprocessing(source, kresnets.Preprocessing("caffe", crop=0.9))
    source.save_weights(tmp_path / "a.weights.h5")
    assert kresnets.preprocessing_of(target).mode == "torch"
    target.load_weights(tmp_path / "a.weights.h5")
    assert kresnets.preprocessing_of(target) == kresnets.Preprocessing("caffe", crop=0.9)


@pytest.mark.parametrize("said", ["{not json", "[1]", '{"mode": "unheard of"}', '{"unheard of": 1}'])
def test_kresnets_file_with_an_unreadable_preprocessing_is_refused(said, tmp_path):
    path = tmp_path / "mine.weights.h5"
    build().save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs["preprocessing"] = said
    assert_refused(TINY, path, "preprocessed")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(dtype, torch_file, tmp_path, caplog):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    cast = {name: value.astype(dtype) for name, value in torch_tensors().items()}
    with caplog.at_level(logging.INFO, logger="kresnets"):
        model = build(weights=_saved(cast, tmp_path / "cast.safetensors"))
    assert f"{dtype.name} of" in caplog.text and "float32" in caplog.text
    kernel = keras.ops.convert_to_numpy(model.get_layer("stem_conv1").kernel)
    np.testing.assert_array_equal(kernel, cast["conv1.weight"].astype("float32").transpose(2, 3, 1, 0))


def test_bfloat16_keras_file(tmp_path):
    reference = keras.models.clone_model(keras_tiny())
    keras.config.set_dtype_policy("bfloat16")
    try:
        half = keras.models.model_from_json(keras_tiny().to_json().replace('"float32"', '"bfloat16"'))
    finally:
        keras.config.set_dtype_policy("float32")
    values = [value.astype(ml_dtypes.bfloat16) for value in keras_tiny().get_weights()]
    half.set_weights(values)
    half.save_weights(tmp_path / "half.weights.h5")
    reference.set_weights([value.astype("float32") for value in values])
    assert relative_error(predict(build(TINY_A, tmp_path / "half.weights.h5")), predict(reference)) < 1e-5


def test_counts_of_training_steps_are_no_weights(torch_file, tmp_path):
    counted = torch_tensors() | {
        "bn1.num_batches_tracked": np.asarray(7),
        "layer1.0.bn1.num_batches_tracked": np.asarray(7),
    }
    model = build(weights=_saved(counted, tmp_path / "counted.safetensors"))
    np.testing.assert_array_equal(predict(model), predict(build(weights=torch_file)))


# --- strictness -----------------------------------------------------------------------------------------------------


def _without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


def _with(tensors, name, change):
    return tensors | {name: change(tensors[name].copy())}


def _put(value):
    def change(array):
        array.flat[-1] = value
        return array

    return change


BROKEN = {
    "missing": lambda tensors, name: (_without(tensors, name), [f"lacks {name}"]),
    "extra": lambda tensors, name: (tensors | {f"{name}2": tensors[name]}, [f"no {name}2"]),
    "renamed": lambda tensors, name: (
        _without(tensors, name) | {f"{name}2": tensors[name]},
        [f"lacks {name}", f"no {name}2"],
    ),
    "shape": lambda tensors, name: (_with(tensors, name, lambda v: v[:-1]), [name, str(tensors[name].shape)]),
    "flat": lambda tensors, name: (
        _with(tensors, name, lambda v: v.reshape(-1, 1, 1)),
        [name, str(tensors[name].shape)],
    ),
    "scalar": lambda tensors, name: (_with(tensors, name, lambda v: v.sum()), [name, str(tensors[name].shape)]),
    "integers": lambda tensors, name: (_with(tensors, name, lambda v: v.astype("int8")), [f"{name} (int8)"]),
    "nan": lambda tensors, name: (_with(tensors, name, _put(np.nan)), ["NaN", name]),
    "infinity": lambda tensors, name: (_with(tensors, name, _put(-np.inf)), ["infinity", name]),
    "overflow": lambda tensors, name: (
        _with(tensors, name, lambda v: _put(1e300)(v.astype("float64"))),
        ["infinity", name],
    ),
}


@pytest.mark.parametrize(
    "name", ["conv1.weight", "layer2.0.downsample.1.running_var", "layer4.0.conv2.weight", "fc.weight", "fc.bias"]
)
@pytest.mark.parametrize("damage", BROKEN)
def test_damaged_safetensors_is_refused(damage, name, tmp_path):
    tensors, words = BROKEN[damage](torch_tensors(), name)
    words = [word.replace("int8", "I8") for word in words]
    assert_refused(TINY, _saved(tensors, tmp_path / "damaged.safetensors"), *words)


@pytest.mark.parametrize(
    "name", ["conv1_conv/kernel", "conv1_conv/bias", "conv3_block1_0_bn/moving_mean", "predictions/kernel"]
)
@pytest.mark.parametrize("damage", BROKEN)
def test_damaged_h5_is_refused(damage, name, tmp_path):
    model = keras_tiny()
    tensors = {f"{layer.name}/{v.name}": keras.ops.convert_to_numpy(v) for layer in model.layers for v in layer.weights}
    tensors, words = BROKEN[damage](tensors, name)
    with h5py.File(tmp_path / "damaged.h5", "w") as file:
        for full, value in tensors.items():
            file[f"{full.partition('/')[0]}/{full}:0"] = value
    assert_refused(TINY_A, tmp_path / "damaged.h5", *words)


def test_an_error_lists_both_sides_and_stays_short(torch_file, tmp_path):
    deeper = dataclasses.replace(TINY, depths=(1, 1, 1, 2), name="Deeper")
    assert_refused(deeper, torch_file, "Deeper", "lacks layer4.1.conv1.weight", "layer4.1.bn2.weight", " more")
    shallower = dataclasses.replace(TINY, widths=(4, 6, 8), depths=(1, 1, 1), strides=(1, 2, 2))
    assert_refused(shallower, torch_file, "no layer4.0.", " more", include_top=False)
    wider = dataclasses.replace(TINY, widths=(4, 6, 8, 12))
    assert_refused(wider, torch_file, "layer4.0.conv1.weight (10, 8, 3, 3) in place of (12, 8, 3, 3)")
    assert_refused(dataclasses.replace(TINY, deep_stem=True), torch_file, "lacks conv1.0.weight", "no conv1.weight")


@pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".weights.h5"])
def test_a_file_that_is_half_there_is_refused(suffix, torch_file, tmp_path):
    path = tmp_path / f"half{suffix}"
    if suffix == ".weights.h5":
        build().save_weights(path)
    elif suffix == ".h5":
        save_legacy(build(), path)
    whole = (torch_file if suffix == ".safetensors" else path).read_bytes()
    for length in [0, 1, 7, 8, 9, *np.linspace(10, len(whole) - 1, 16, dtype=int)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="half there") as caught:
            resolve(TINY, path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".weights.h5"])
def test_what_is_no_weights_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"no{suffix}"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for content in (
        b"",
        pickle.dumps(Trap()),
        b"<html>404</html>",
        b"\x89HDF\r\n\x1a\n" + bytes(600),
        (2**63).to_bytes(8, "little"),
    ):
        path.write_bytes(content)
        assert_refused(TINY, path)
    assert not (tmp_path / "sprung").exists()
    path.unlink()
    path.mkdir()
    assert_refused(TINY, path, "directory")
    path.rmdir()
    assert_refused(TINY, path, "not there")


def test_a_builder_raises_what_loading_raises(tmp_path):
    damaged = _saved(_without(torch_tensors(), "bn1.bias"), tmp_path / "damaged.safetensors")
    with pytest.raises(
        ValueError, match="does not fit ResNet18, and nothing of it was loaded: the file lacks bn1.bias"
    ):
        build(weights=damaged)
    with pytest.raises(ValueError, match="does not fit ResNet18"):
        kresnets.ResNet18(weights=damaged, input_shape=(32, 32, 3))


def test_files_of_other_networks_are_refused(tmp_path):
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="block1_conv1")])
    other.save_weights(tmp_path / "vgg.weights.h5")
    save_legacy(other, tmp_path / "vgg.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for file, word in (
        ("vgg.weights.h5", "block1_conv1/kernel"),
        ("vgg.h5", "block1_conv1/kernel"),
        ("empty.h5", "no tensors"),
    ):
        assert_refused(TINY, tmp_path / file, word)


UNSAFE = {
    "soft link": lambda file, path: file.__setitem__("conv1_conv/conv1_conv/kernel:0", h5py.SoftLink("/elsewhere")),
    "external link": lambda file, path: file.__setitem__(
        "conv1_conv/conv1_conv/kernel:0", h5py.ExternalLink(str(path), "/x")
    ),
    "external data": lambda file, path: file.create_dataset(
        "conv1_conv/conv1_conv/kernel:0", (7, 7, 3, 64), "float32", external=[(str(path), 0, h5py.h5f.UNLIMITED)]
    ),
    "virtual data": lambda file, path: file.create_virtual_dataset(
        "conv1_conv/conv1_conv/kernel:0", h5py.VirtualLayout((7, 7, 3, 64), "float32"), fillvalue=0
    ),
    "cycle": lambda file, path: file.__setitem__("conv1_conv/conv1_conv/again", file["conv1_conv"]),
    "objects": lambda file, path: file.create_dataset(
        "conv1_conv/conv1_conv/kernel:0", (7, 7, 3, 64), h5py.string_dtype()
    ),
    "a shape of 4 TB": lambda file, path: file.create_dataset(
        "conv1_conv/conv1_conv/kernel:0", (1 << 20, 1 << 20), "float32", chunks=(64, 64), compression="gzip"
    ),
    "a chunk of 1 GB": lambda file, path: file.create_dataset(
        "conv1_conv/conv1_conv/kernel:0",
        (7, 7, 3, 64),
        "float32",
        chunks=(1 << 10, 1 << 10, 4, 64),
        maxshape=(None,) * 4,
        compression="gzip",
    ),
    "nothing": lambda file, path: file.create_dataset("conv1_conv/conv1_conv/kernel:0", data=h5py.Empty("float32")),
}


@pytest.mark.parametrize("trick", UNSAFE)
def test_unsafe_h5_is_refused(trick, keras_file, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(7 * 7 * 3 * 64 * 4))
    with h5py.File(keras_file, "a") as file:
        del file["conv1_conv/conv1_conv/kernel:0"]
        UNSAFE[trick](file, secret)
    assert_refused(TINY_A, keras_file, "conv1_conv")


# --- which network takes which file ---------------------------------------------------------------------------------


def test_rows_that_compute_otherwise_refuse_a_file(torch_file, keras_file):
    def check(spec, path, *words, **knobs):
        with pytest.raises(ValueError) as caught:
            resolve(dataclasses.replace(spec, **knobs), path)
        for word in (str(path), *words):
            assert word in str(caught.value)

    row_b = dataclasses.replace(TINY_A, stride_on="3x3", name="ResNet50B")
    check(row_b, torch_file, "strides=(1, 2, 2, 2)", strides=(1, 2, 2, 1))
    check(TINY_A, keras_file, "strides=(1, 2, 2, 2)", strides=(1, 2, 2, 1))
    check(row_b, torch_file, "epsilon=1e-5", epsilon=1e-3)
    check(TINY_A, torch_file, "build ResNet50B", "3x3")
    check(TINY_A, torch_file, "stride_on='3x3'", name="Mine")
    check(row_b, keras_file, "build ResNet50", "1x1")
    check(row_b, keras_file, "stride_on='1x1'", name="Mine")
    check(TINY, keras_file, "no such network")
    for knobs in (
        dict(shortcut="A"),
        dict(shortcut="C"),
        dict(residual=False),
        dict(stem="cifar"),
    ):
        check(TINY, torch_file, "no such network", **knobs)
    check(TINY, torch_file, "bare stem", preactivation=True)
    check(TINY, torch_file, "stem_pool_border='nothing'", preactivation=True, stem_norm=False)
    check(kresnets.SPECS["InceptionV3"], torch_file, "counts the padding in its average pools")
    for knobs in (dict(deep_stem=True), dict(avg_shortcut=True), dict(shortcut="A", stem_width=4)):
        check(TINY_A, keras_file, "no such network", **knobs)
    assert len([name for name in kresnets.list_models() if name.startswith(("Cifar", "Plain"))]) == 15
    for name in kresnets.list_models():
        if name.startswith(("Cifar", "Plain")):
            check(kresnets.SPECS[name], torch_file, f"{name} can't take", "no such network")


def test_a_kresnets_file_is_not_taken_by_a_row_of_the_same_shapes(tmp_path):
    row_b = dataclasses.replace(TINY_A, stride_on="3x3", name="ResNet50B")
    build(row_b).save_weights(tmp_path / "b.weights.h5")
    assert_refused(TINY_A, tmp_path / "b.weights.h5", "ResNet50B")
    assert build(dataclasses.replace(row_b, name="Mine"), tmp_path / "b.weights.h5")


@pytest.mark.parametrize(
    "weights", ["imagenet1k", "", "weights.pth", "model.keras", b"x.h5", 7, True, ["imagenet"], np.zeros(2)]
)
def test_other_weights_arguments_are_refused(weights):
    with pytest.raises(ValueError, match=r"`weights` must be None .*imagenet.* path .*Received") as caught:
        resolve(TINY, weights)
    assert "\n" not in str(caught.value)


def test_a_path_may_begin_at_home(torch_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(TINY, f"~/{torch_file.name}").path == torch_file
    assert resolve(TINY, str(torch_file)) == resolve(TINY, torch_file)
    assert resolve(TINY, None) is None


# --- head and image channels ----------------------------------------------------------------------------------------


def test_another_number_of_classes_keeps_the_trunk_and_says_so(torch_file, keras_file, tmp_path, caplog):
    build().save_weights(tmp_path / "mine.weights.h5")
    for spec, path in ((TINY, torch_file), (TINY_A, keras_file), (TINY, tmp_path / "mine.weights.h5")):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="kresnets"):
            model = build(spec, path, classes=7)
        assert "head for 7 classes starts afresh" in caplog.text and str(path) in caplog.text
        trunk = build(spec, path, include_top=False, pooling="avg")
        pooled = keras.Model(model.input, model.get_layer("head_pool").output)
        np.testing.assert_array_equal(predict(pooled), predict(trunk))
        assert model.output_shape == (None, 7) and np.ptp(predict(model)) > 0
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="kresnets"):
            build(spec, path)
        assert "afresh" not in caplog.text


def test_a_file_without_a_head(tmp_path):
    torch = {name: value for name, value in torch_tensors().items() if not name.startswith("fc.")}
    notop = _saved(torch, tmp_path / "notop.safetensors")
    keras_notop = save_legacy(keras_tiny(include_top=False), tmp_path / "notop.h5")
    for spec, path in ((TINY, notop), (TINY_A, keras_notop)):
        assert build(spec, path, classes=7).output_shape == (None, 7)
        build(spec, path, include_top=False)
    assert_refused(TINY, notop, "lacks fc.weight, fc.bias")
    assert_refused(TINY_A, keras_notop, "lacks predictions/kernel, predictions/bias")


def test_a_damaged_head_is_not_taken_for_one_of_other_classes(tmp_path):
    """Weight and bias of different numbers of classes, or of other features."""
    for change in (
        {"fc.bias": np.zeros(6, "float32")},
        {"fc.weight": np.zeros((7, 11), "float32"), "fc.bias": np.zeros(7, "float32")},
    ):
        assert_refused(TINY, _saved(torch_tensors() | change, tmp_path / "damaged.safetensors"), "fc.")
    assert_refused(
        TINY,
        _saved(torch_tensors() | {"fcx.weight": np.zeros(1, "float32")}, tmp_path / "x.safetensors"),
        "no fcx.weight",
        classes=7,
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_first_convolution_takes_other_channels(channels, torch_file, keras_file, caplog):
    rgb = torch_tensors()["conv1.weight"].transpose(2, 3, 1, 0)
    with caplog.at_level(logging.INFO, logger="kresnets"):
        model = build(weights=torch_file, input_shape=(32, 32, channels))
    assert f"first convolution was made one for {channels} channels" in caplog.text
    expected = {
        1: rgb[:, :, :1] + rgb[:, :, 1:2] + rgb[:, :, 2:],
        2: rgb[:, :, :2] * 1.5,
        4: rgb[:, :, [0, 1, 2, 0]] * 0.75,
        6: np.concatenate([rgb, rgb], axis=2) / 2,
    }[channels]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model.get_layer("stem_conv1").kernel), expected, rtol=1e-6, atol=1e-7
    )
    for spec, path in ((TINY, torch_file), (TINY_A, keras_file)):
        if channels in (1, 6):  # what the rule is for: a grey image as its RGB copy, twice the image as the image
            images = IMAGES[..., :1] if channels == 1 else np.concatenate([IMAGES, IMAGES], axis=-1)
            shown = IMAGES[..., [0, 0, 0]] if channels == 1 else IMAGES
            adapted = build(spec, path, input_shape=(32, 32, channels))
            assert relative_error(predict(adapted, images), predict(build(spec, path), shown)) < 1e-5


def test_a_file_for_other_channels_fills_only_its_like(tmp_path, caplog):
    path = tmp_path / "four.weights.h5"
    model = make_lively(build(input_shape=(32, 32, 4)))
    model.save_weights(path)
    with caplog.at_level(logging.INFO, logger="kresnets"):
        again = build(weights=path, input_shape=(32, 32, 4))
    assert "first convolution" not in caplog.text
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert_refused(TINY, path, "stem_conv1/kernel (7, 7, 4, 4) in place of (7, 7, 3, 4)")


def test_a_layer_that_the_user_put_before_the_stem_is_left_alone(torch_file):
    scale = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0])
    mix = keras.layers.Conv2D(3, 1, name="mix")
    inputs = keras.Input((32, 32, 3))
    mixed = mix(scale(inputs))
    model = build(weights=torch_file, input_tensor=mixed, input_shape=None)
    shown = predict(keras.Model(inputs, mixed))
    assert relative_error(predict(model), predict(build(weights=torch_file), shown)) < 1e-5


# --- "imagenet" and tags --------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A server on this machine in place of the real one, with the published files of TINY_A, and an empty cache."""
    row = sources.find("ResNet50", "keras")
    folder = tmp_path / "host" / row.repository
    folder.mkdir(parents=True)
    save_legacy(keras_tiny(), folder / row.file)
    save_legacy(keras_tiny(include_top=False), folder / row.trunk_file)
    md5s = [hashlib.md5((folder / name).read_bytes()).hexdigest() for name in (row.file, row.trunk_file)]
    monkeypatch.setattr(sources, "PUBLISHED", (dataclasses.replace(row, md5=md5s[0], trunk_md5=md5s[1]),))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(pathlib.PurePosixPath(self.path).name)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path / "host"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(fetch, "KERAS_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    yield requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_published_weights_are_fetched_once_and_loaded(host):
    row = sources.find("ResNet50", "keras")
    for weights in ("imagenet", "keras"):
        model = build(TINY_A, weights)
        assert relative_error(predict(model), predict(keras_tiny())) < 1e-5
        assert kresnets.preprocessing_of(model) == kresnets.Preprocessing("caffe", size=224)
    assert build(TINY_A, "imagenet", classes=7).output_shape == (None, 7)
    build(TINY_A, "imagenet", include_top=False)
    assert host == [row.file, row.trunk_file]


def test_a_tag_gives_the_preprocessing_of_its_row(torch_file, monkeypatch):
    """The layout of a file alone says nothing about the means of timm's ra4 files."""
    monkeypatch.setattr(fetch, "fetch", lambda published, trunk_only: torch_file)
    halves = dataclasses.replace(sources.find("ResNet18D", "timm/resnet18d.ra4_e3600_r224_in1k"), network="ResNet18")
    monkeypatch.setattr(sources, "PUBLISHED", (halves,))
    model = build(weights=halves.tag)
    np.testing.assert_array_equal(predict(model), predict(build(weights=torch_file)))
    wanted = kresnets.preprocessing_of(model)
    assert wanted == kresnets.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.9, size=224)


def test_an_unknown_tag_lists_the_known_ones():
    for weights, words in (
        ("timm/resnet50d.ra9_in1k", ["timm/resnet50d.ra2_in1k", "timm/resnet50d.a1_in1k"]),
        ("keras", ["timm/resnet50d.ra2_in1k", "tag of ResNet50, ResNet101"]),
        ("timm/resnet50.tv2_in1k", ["tag of ResNet50B"]),
    ):
        with pytest.raises(ValueError, match="`weights` must be None") as caught:
            resolve(kresnets.SPECS["ResNet50D"], weights)
        assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in [weights, *words])


def test_networks_without_published_weights_offer_a_way_on():
    names = set(kresnets.list_models()) - {row.network for row in sources.PUBLISHED}
    assert {"PlainNet34", "CifarResNet20", "ResNet18C"} <= names
    for name in names:
        with pytest.raises(ValueError, match=rf"{name}: no ImageNet weights .*weights=None.* path"):
            resolve(kresnets.SPECS[name], "imagenet")


@pytest.mark.slow
def test_importing_kresnets_does_not_import_the_readers():
    code = "import keras, sys; before = set(sys.modules); import kresnets; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "kresnets" in imported
    assert not imported & {"safetensors", "huggingface_hub", "torch", "timm"}


def test_safetensors_file_as_timm_wrote_it_stays_as_it_was(torch_file):
    before = torch_file.read_bytes()
    build(weights=torch_file)
    assert torch_file.read_bytes() == before and load_file(torch_file).keys() == torch_tensors().keys()
