"""Files through the served model = through the Keras model: photographs, odd files, hostile ones, and mutations."""

import importlib.resources
import json
import subprocess
import sys

import keras
import mutations
import numpy as np
import odd_files
import pytest
from PIL import Image
from places import ROOT
from test_export import export, keras_answer, python, small_net

sys.path.insert(0, str(ROOT / "apps"))
from bench.asking import head
from bench.saved_model import opened

CLASSES = 7


def photographs(count):
    """Return (bytes, pixels) of photographs of solar cells, from all over the data."""
    folder = importlib.resources.files("elpv_dataset") / "data" / "images"
    paths = sorted(folder.iterdir())
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    return [(path.read_bytes(), np.asarray(Image.open(path).convert("RGB"))) for path in chosen]


@pytest.fixture(scope="module")
def model():
    """A network whose answers to photographs differ."""
    model = small_net()
    trunk = keras.Model(model.input, model.get_layer("pool").output)
    features = np.stack([keras_answer(trunk, pixels, "torch") for _, pixels in photographs(30)])
    model.layers[-1].set_weights(head(features, CLASSES, seed=0))
    return model


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    return {dtype: export(model, path / dtype, top=CLASSES, dtype=dtype) for dtype in ("float32", "bfloat16")}


def serve(folder, files):
    """Ask as TF Serving does; return the scores in the order of the classes, and what is valid."""
    with opened(folder) as signature:
        ask = signature("serving_default")
        answers = [ask(np.array(files[start : start + 32], object)) for start in range(0, len(files), 32)]
    labels, scores, valid = (np.concatenate(each) for each in zip(*answers, strict=True))
    assert (labels[~valid] == b"").all() and (scores[~valid] == 0).all()
    order = np.argsort(np.where(labels == b"", 0, labels).astype(int), axis=1)
    return np.take_along_axis(scores, order, axis=1), valid


# --- photographs ---


@pytest.mark.parametrize("count", [pytest.param(n, marks=pytest.mark.everything) for n in (30, 500)])
def test_photographs_get_the_answer_of_the_keras_model(model, folders, count):
    chosen = photographs(count)
    expected = np.stack([keras_answer(model, pixels, "torch") for _, pixels in chosen])
    assert len(set(expected.argmax(axis=1))) >= 5 and 0.3 < expected.max(axis=1).mean() < 0.9
    files = [data for data, _ in chosen]
    found, valid = serve(folders["float32"], files)
    assert valid.all()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found, valid = serve(folders["bfloat16"], files)
    assert valid.all()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).sum() >= 0.995 * count
    np.testing.assert_allclose(found, expected, atol=0.02)


# --- odd files ---


def test_odd_files_get_the_answer_of_the_keras_model(model, folders):
    files = odd_files.odd() | {name: found for name, found in odd_files.FILES.items() if name != "6000x4000"}
    found, valid = serve(folders["float32"], [data for data, _ in files.values()])
    assert [name for name, each in zip(files, valid, strict=True) if not each] == []
    for name, (_, pixels), scores in zip(files, files.values(), found, strict=True):
        np.testing.assert_allclose(scores, keras_answer(model, pixels, "torch"), atol=1e-4, err_msg=name)
    assert len(set(found.argmax(axis=1))) >= 3
    assert len(files) + len(odd_files.refused()) >= 50


@pytest.mark.parametrize("name", ["cmyk jpeg", "jpeg", "progressive jpeg", "jpeg without subsampling", "grey jpeg"])
def test_the_jpegs_are_those_that_pillow_sees(name):
    data, pixels = (odd_files.odd() | odd_files.FILES)[name]
    assert np.abs(pixels.astype(int) - odd_files.by_pillow(data)).mean() < 2


def test_what_is_no_picture_is_said_so_and_harms_no_neighbour(folders):
    files, good = odd_files.refused(), odd_files.FILES["jpeg"][0]
    alone, _ = serve(folders["float32"], [good])
    found, valid = serve(folders["float32"], [each for data in files.values() for each in (data, good)])
    assert [name for name, each in zip(files, valid[::2], strict=True) if each] == []
    assert valid[1::2].all()
    np.testing.assert_allclose(found[1::2], alone.repeat(len(files), axis=0), atol=1e-5)


# --- mutations ---


def mutated(folder, first, last):
    """Have a process of its own answer mutations; return what it printed last."""
    arguments = (mutations.__file__, folder, first, last)
    process = python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, errors = process.communicate(timeout=1800)
    lines = [json.loads(line) for line in out.splitlines()]
    asked = lines[-1] if lines else "none"
    assert process.returncode == 0, f"ended with {process.returncode}, last asked: {asked}\n{errors[-2000:]}"
    return lines[-1]


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.everything)])
def test_mutated_files_harm_nobody(folders, count):
    found = mutated(folders["float32"], 0, count)
    assert found["wrong"] == []
    assert 0.05 * count < found["valid"] < 0.95 * count and found["files"] == count
    if count > 1000:  # by then every buffer is there
        assert found["bytes"] - found["bytes at 1000"] < 50e6
