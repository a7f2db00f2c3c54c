"""The outputs of the groups and their strides, against the papers' tables, timm's `feature_info` and actual sizes."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import tiny

import kresnets
from kresnets import features

# Reductions of timm's `feature_info`: of its resnet50 and resnet18 from layer1 on (the stem ends at the pool), of its
# inception_v3, inception_v4 and inception_resnet_v2 all five; 1512.03385 section 4.2 for CIFAR; the grids of
# keras.applications' v2 nets, which stride in a stage's last block; channels likewise.
PUBLISHED = {
    "ResNet18": ([4, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
    "ResNet50": ([4, 4, 8, 16, 32], [64, 256, 512, 1024, 2048]),
    "ResNet50D": ([4, 4, 8, 16, 32], [64, 256, 512, 1024, 2048]),
    "PlainNet18": ([4, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
    "CifarResNet20": ([1, 1, 2, 4], [16, 16, 32, 64]),
    "CifarResNet164V2": ([1, 1, 2, 4], [16, 64, 128, 256]),
    "ResNet18V2": ([4, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
    "ResNet50V2": ([4, 8, 16, 32, 32], [64, 256, 512, 1024, 2048]),
    "InceptionV3": ([2, 4, 8, 16, 32], [64, 192, 288, 768, 2048]),
    "InceptionV4": ([2, 4, 8, 16, 32], [64, 192, 384, 1024, 1536]),
    "InceptionResNetV2": ([2, 4, 8, 16, 32], [64, 192, 320, 1088, 1536]),
}


def strides(found):
    return {name: feature.stride for name, feature in found.items()}


def extractor(model, found):
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(inputs, {name: feature.output for name, feature in found.items()})


LARGE = ("CifarResNet164V2", "InceptionV4", "InceptionResNetV2")  # seconds each to build


@pytest.mark.always("ResNet50D", "ResNet50V2", "InceptionV3")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.everything if name in LARGE else ()) for name in PUBLISHED]
)
def test_strides_and_channels_are_the_published_ones(name):
    model = getattr(kresnets, name)(weights=None, include_top=False)
    found = features(model)
    assert list(found) == ["stem", *(f"stage{n}" for n in range(1, len(found)))]
    assert list(strides(found).values()) == PUBLISHED[name][0]
    assert [output.shape[-1] for output, _ in found.values()] == PUBLISHED[name][1]
    assert list(found.values())[-1].output is model.output


def strides_of_shapes(model, found, size=225, step=320):
    """Strides by what a larger image adds to each map: no layer is asked."""
    shapes = extractor(model, found).compute_output_shape
    small, large = (shapes((1, side, side + 2, 3)) for side in (size, size + step))
    return {name: step / (large[name][1] - small[name][1]) for name in found}


@pytest.mark.everything
@pytest.mark.parametrize("name", kresnets.list_models())
def test_strides_are_those_that_shapes_show(name):
    model = getattr(kresnets, name)(weights=None, include_top=False)
    found = features(model)
    assert strides(found) == strides_of_shapes(model, found)


@pytest.mark.parametrize(
    "knobs", [dict(strides=(1, 3, 2)), dict(strides=(2, 1, 3), downsample_in="last", preactivation=True)]
)
def test_strides_of_rows_of_ones_own(knobs):
    model = tiny(size=None, **knobs)
    found = features(model)
    shown = strides_of_shapes(model, found, step=36)
    assert strides(found) == shown and set(shown.values()) > {1}


def test_grids_of_the_inception_papers_at_299():
    """1602.07261 figures 3 and 9: 147 and 71 in the stem, then 35, 17 and 8 a side; 1512.00567 table 1 likewise."""
    model = kresnets.InceptionV3(weights=None, include_top=False, input_shape=(299, 299, 3))
    assert [feature.output.shape[1:3] for feature in features(model).values()] == [(s, s) for s in (147, 71, 35, 17, 8)]


ENDS = dict(stem="stem_relu1", stage1="stage1_block1_out", stage2="stage2_block2_out", stage3="stage3_block1_out")


def pyramid(model):
    """A head that takes maps from within stages too, and one of them twice."""
    maps = [model.get_layer(name).output for name in ("stage2_block1_out", "stage2_block1_out", "stage3_block1_out")]
    pooled = [keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1, strides=2)(each)) for each in maps]
    return keras.Model(model.input, keras.layers.Dense(2)(keras.layers.Concatenate()(pooled)))


WAYS = {
    "itself": lambda model, _: model,
    "with a pyramid": lambda model, _: pyramid(model),
    "nested": lambda model, _: keras.Sequential([keras.Input((12, 12, 3)), model, keras.layers.Dense(2)]),
    "cloned": lambda model, _: keras.models.clone_model(model),
    "plain": lambda model, _: kresnets.as_plain_keras(model),
    "saved": lambda model, path: model.save(path) or keras.saving.load_model(path),
}


@pytest.mark.always("with a pyramid", "saved")
@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_those_of_the_layers(way, tmp_path):
    model, image = tiny(), np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")
    built = WAYS[way](model, tmp_path / "model.keras")
    if way == "cloned":
        built.set_weights(model.get_weights())
    layers = [layer.name for layer in built._flatten_layers()]
    found = features(built)
    assert strides(found) == {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4}
    outputs = extractor(built, found).predict(image, verbose=0)
    for name, layer in ENDS.items():
        expected = keras.Model(model.input, model.get_layer(layer).output).predict(image, verbose=0)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [layer.name for layer in built._flatten_layers()] == layers, "the model is not changed"


def test_a_trunk_nested_twice_behind_layers_that_shrink_the_image():
    trunk, image = tiny(), np.random.default_rng(0).normal(size=(2, 30, 30, 3)).astype("float32")
    inner = keras.Sequential([keras.Input((15, 15, 3)), keras.layers.Cropping2D(((1, 2), (2, 1))), trunk])
    whole = keras.Input((30, 30, 3))
    model = keras.Model(whole, keras.layers.Dense(2)(inner(keras.layers.AveragePooling2D(2)(whole))))
    found = features(model)
    assert strides(found) == {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4}
    seen = image.reshape(2, 15, 2, 15, 2, 3).mean((2, 4))[:, 1:13, 2:14]
    expected = keras.Model(trunk.input, trunk.get_layer(ENDS["stage2"]).output).predict(seen, verbose=0)
    outputs = extractor(model, found).predict(image, verbose=0)
    np.testing.assert_allclose(outputs["stage2"], expected, rtol=1e-4, atol=1e-5)


def test_a_part_of_a_network_has_the_features_that_are_in_it():
    model = tiny()
    cut = keras.Model(model.input, model.get_layer("stage2_block1_out").output)
    found = features(cut)
    assert strides(found) == {"stem": 1, "stage1": 1, "stage2": 2}
    assert found["stage2"].output is cut.output


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    try:
        model = kresnets.ResNet50D(weights=None, include_top=False, input_shape=(3, 97, 65))
    finally:
        keras.config.set_image_data_format("channels_last")
    found = features(model)
    assert [feature.stride for feature in found.values()] == [4, 4, 8, 16, 32]
    assert [tuple(feature.output.shape[1:]) for feature in found.values()] == [
        (64, 25, 17), (256, 25, 17), (512, 13, 9), (1024, 7, 5), (2048, 4, 3),
    ]  # fmt: skip


def siamese():
    model, image = tiny(), keras.Input((12, 12, 3))
    return keras.Model(image, keras.layers.Add()([model(image), model(keras.layers.Rescaling(2.0)(image))]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: 3, "Functional or Sequential .* Received: int"),
        (lambda: keras.Sequential(), "has been built. Received: Sequential"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), "no layers named as kresnets"),
        (lambda: keras.applications.MobileNet(weights=None, alpha=0.25), "no layers named as kresnets"),
        (siamese, "several trunks"),
    ],
)
def test_what_has_no_features_gets_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        features(make())


ON_JAX = """
import sys
import keras, kresnets, numpy as np
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
model = kresnets.CifarResNet20(include_top=False, input_shape=(17, 15, 3))
nested = keras.Sequential([keras.Input((17, 15, 3)), model, keras.layers.GlobalAveragePooling2D()])
found = kresnets.features(nested)
outputs = keras.Model(nested.inputs[0], [feature.output for feature in found.values()])(np.ones((1, 17, 15, 3)))
print([feature.stride for feature in found.values()], [tuple(output.shape) for output in outputs])
"""


@pytest.mark.everything
@pytest.mark.jax
def test_on_jax():
    root = str(pathlib.Path(kresnets.__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", ON_JAX], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[1, 1, 2, 4] [(1, 17, 15, 16), (1, 17, 15, 16), (1, 9, 8, 32), (1, 5, 4, 64)]"
