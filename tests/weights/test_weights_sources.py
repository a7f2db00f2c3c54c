"""The table of published weights, against keras.applications' source, timm's and the published numbers."""

import ast
import inspect
import sys

import keras
import numpy as np
import pytest

import kresnets
from kresnets.weights import fetch, layouts, sources

KERAS = [row for row in sources.PUBLISHED if row.host == "keras"]

# The highest of each network's numbers in timm's results-imagenet.csv and in keras.io/api/applications.
HIGHEST = {
    "ResNet18": ("timm/resnet18.a1_in1k", 71.50),
    "ResNet18D": ("timm/resnet18d.ra4_e3600_r224_in1k", 74.36),
    "ResNet26D": ("timm/resnet26d.bt_in1k", 76.70),
    "ResNet34": ("timm/resnet34.ra4_e3600_r224_in1k", 77.49),
    "ResNet34D": ("timm/resnet34d.ra2_in1k", 77.11),
    "ResNet50": ("keras", 74.9),
    "ResNet50B": ("timm/resnet50.tv2_in1k", 80.85),
    "ResNet50D": ("timm/resnet50d.ra4_e3600_r224_in1k", 80.96),
    "ResNet50V2": ("keras", 76.0),
    "ResNet101": ("keras", 76.4),
    "ResNet101B": ("timm/resnet101.a1h_in1k", 81.95),
    "ResNet101D": ("timm/resnet101d.ra2_in1k", 82.25),
    "ResNet101V2": ("keras", 77.2),
    "ResNet152": ("keras", 76.6),
    "ResNet152B": ("timm/resnet152.a1h_in1k", 82.82),
    "ResNet152D": ("timm/resnet152d.ra2_in1k", 83.16),
    "ResNet152V2": ("keras", 78.0),
    "ResNet200D": ("timm/resnet200d.ra2_in1k", 83.25),
    "ResNeXt50_32x4d": ("timm/resnext50_32x4d.a1h_in1k", 82.01),
    "ResNeXt101_64x4d": ("timm/resnext101_64x4d.c1_in1k", 83.16),
    "WideResNet50_2": ("timm/wide_resnet50_2.racm_in1k", 82.28),
    "WideResNet101_2": ("timm/wide_resnet101_2.tv2_in1k", 82.50),
    "SEResNet50": ("timm/seresnet50.ra2_in1k", 81.28),
    "BiT50x1": ("timm/resnetv2_50x1_bit.goog_distilled_in1k", 82.82),
    "InceptionV3": ("keras", 77.9),
    "InceptionV4": ("timm/inception_v4.tf_in1k", 80.14),
    "InceptionResNetV2": ("timm/inception_resnet_v2.tf_in1k", 80.43),
}


def _keras_module(row):
    return sys.modules[getattr(keras.applications, row.network).__module__]


@pytest.mark.parametrize("row", KERAS, ids=lambda row: row.network)
def test_files_and_hashes_are_those_of_keras_applications(row):
    names = dict.fromkeys(
        cls.__module__ for cls in (keras.applications.ResNet50, getattr(keras.applications, row.network))
    )
    constants = [
        node.value
        for name in names
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[name])))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    hashes = [value for value in constants if value in (row.md5, row.trunk_md5)]
    assert hashes == [row.md5, row.trunk_md5]
    url = f"{fetch.KERAS_URL}/{row.repository}/"
    if row.repository == "resnet":
        assert url in constants and f"{row.network.lower()}_weights_tf_dim_ordering_tf_kernels.h5" == row.file
        assert keras.applications.ResNet50.__globals__["WEIGHTS_HASHES"][row.network.lower()] == tuple(hashes)
    else:
        assert any(value in constants for value in (url, url + row.file))
        assert all(any(value.endswith(file) for value in constants) for file in (row.file, row.trunk_file))
    assert row.trunk_file == row.file.replace(".h5", "_notop.h5")


@pytest.mark.parametrize("row", KERAS, ids=lambda row: row.network)
def test_preprocessing_is_that_of_keras_applications(row):
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    ours = row.preprocessing(images)
    name = _keras_module(row).__name__.rpartition(".")[2]
    np.testing.assert_allclose(ours, getattr(keras.applications, name).preprocess_input(images.copy()), atol=1e-5)


@pytest.mark.slow
def test_rows_agree_with_timm():
    timm = pytest.importorskip("timm")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3))
    for row in sources.PUBLISHED:
        if row.host == "hub":
            config = timm.get_pretrained_cfg(row.repository.removeprefix("timm/"))
            assert (config.hf_hub_id, config.license) == (row.repository, row.licence.lower())
            assert config.input_size == (3, row.input_size, row.input_size), row.tag
            assert (config.test_input_size and config.test_input_size[-1]) == row.test_size, row.tag
            wants = row.preprocessing
            assert wants.crop == (config.crop_pct if wants.size == row.input_size else config.test_crop_pct), row.tag
            np.testing.assert_allclose(wants(pixels), (pixels / 255 - config.mean) / config.std, atol=1e-6)


def test_imagenet_is_the_highest_published_top1():
    for network, (tag, top1) in HIGHEST.items():
        best = sources.best(network)
        assert (best.tag, best.top1) == (tag, top1)
        assert best.top1 == max(row.top1 or 0 for row in sources.of(network))
    for network in {row.network for row in sources.PUBLISHED} - set(HIGHEST):
        rows = [row for row in sources.of(network) if row.imagenet]
        assert len(rows) <= 1  # with no number to choose by, there must be nothing to choose
    assert sources.best("ResNet18C") is None


def test_rows_are_sound():
    assert len({(row.network, row.tag) for row in sources.PUBLISHED}) == len(sources.PUBLISHED)
    for row in sources.PUBLISHED:
        assert row.licence in ("Apache-2.0", "BSD-3-Clause", "BSD-2-Clause") and "fb_" not in row.tag
        assert (row.licence == "BSD-3-Clause") == (".tv" in row.tag)
        assert (row.host == "pypi") == (row.sha256 is not None)
        # Yahoo's own file, and what learned from it.
        assert (row.licence == "BSD-2-Clause") == (row.host == "pypi" or row.tag == "kresnets/distilled")
        assert (row.licence == "BSD-2-Clause") == bool(row.notice)
        assert "inception_v3" not in row.tag
        assert row.preprocessing.size == (row.top1_size or row.preprocessing.size)
        assert (row.top1 is None) == (row.top1_size is None) == (row.top1_from is None)
        assert row.test_top1 is None or row.test_top1 > row.top1
        assert ("ra4" in row.tag or "_bit." in row.tag) == (
            row.preprocessing.mean == (0.5,) * 3 == row.preprocessing.std
        )


def test_the_rows_of_networks_agree_with_those_of_weights():
    for row in sources.PUBLISHED:
        by_host = {
            "keras": layouts.KERAS_APPLICATIONS,
            "hub": layouts.TORCH,
            "package": layouts.KRESNETS,
            "pypi": layouts.ONNX,
        }
        layout = by_host[row.host]
        assert layout.refusal(kresnets.SPECS[row.network]) is None
    for name, spec in kresnets.SPECS.items():
        assert spec.imagenet == any(row.imagenet for row in sources.of(name)), name
        assert spec.input_size == 299 or not any(row.input_size == 299 for row in sources.of(name))


def test_list_is_data_and_a_table():
    everything = kresnets.weights.list()
    assert everything == list(sources.PUBLISHED)
    one = kresnets.weights.list("ResNet50D")
    assert [row.tag for row in one] == [row.tag for row in everything if row.network == "ResNet50D"]
    lines = str(one).splitlines()
    assert lines[0].split()[:3] == ["network", "tag", "source"] and str(one) == repr(one)
    (best,) = [line for line in lines if "ra4_e3600_r224_in1k *" in line]
    assert all(word in best for word in ("Apache-2.0", "mean 0.5", "crop 0.95", "80.96 at 224", "81.84 at 288"))
    (keras_row,) = [line for line in str(kresnets.weights.list("InceptionV3")).splitlines() if "keras *" in line]
    assert all(word in keras_row for word in ("[_notop].h5", "md5 9a0d5805", "299", "tf", "77.90"))
    assert str(kresnets.weights.list("CifarResNet20")) == "no published weights"
    with pytest.raises(ValueError, match="ResNet50D.*Received: 'resnet50d'"):
        kresnets.weights.list("resnet50d")
