"""The networks compute what their references compute: keras.applications itself, and timm's answers in golden/."""

import dataclasses
import json
import math

import h5py
import keras
import numpy as np
import pytest
from lively import golden_images, golden_tensor, make_lively, relative_error, save_legacy
from places import GOLDEN
from safetensors.numpy import save_file

import kresnets

TOLERANCE = 1e-4  # of the largest value; one filter of the first convolution 5 % larger would move the logits by 1e-3

SPECS = kresnets.SPECS
# The name of a golden file -> the row. The last ones are rows that a user makes.
TIMM = {
    "resnet18": SPECS["ResNet18"],
    "resnet34": SPECS["ResNet34"],
    "resnet26": SPECS["ResNet26"],
    "resnet50": SPECS["ResNet50B"],
    "resnet101": SPECS["ResNet101B"],
    "resnet50c": SPECS["ResNet50C"],
    "resnet101c": SPECS["ResNet101C"],
    "resnet18d": SPECS["ResNet18D"],
    "resnet26d": SPECS["ResNet26D"],
    "resnet34d": SPECS["ResNet34D"],
    "resnet50d": SPECS["ResNet50D"],
    "resnet101d": SPECS["ResNet101D"],
    "resnet152d": SPECS["ResNet152D"],
    "resnet200d": SPECS["ResNet200D"],
    "resnetv2_18": SPECS["ResNet18V2"],
    "resnetv2_34": SPECS["ResNet34V2"],
    "inception_v4": SPECS["InceptionV4"],
    "inception_resnet_v2": SPECS["InceptionResNetV2"],
    "resnext50_32x4d": SPECS["ResNeXt50_32x4d"],
    "resnext101_32x4d": SPECS["ResNeXt101_32x4d"],
    "resnext101_64x4d": SPECS["ResNeXt101_64x4d"],
    "wide_resnet50_2": SPECS["WideResNet50_2"],
    "wide_resnet101_2": SPECS["WideResNet101_2"],
    "seresnet50": SPECS["SEResNet50"],
    "resnetblur50": SPECS["ResNetBlur50"],
    "resnetrs50": SPECS["ResNetRS50"],
    "resnetrs101": SPECS["ResNetRS101"],
    "resnetrs152": SPECS["ResNetRS152"],
    "resnetv2_50x1_bit": SPECS["BiT50x1"],
    "resnetv2_101x1_bit": SPECS["BiT101x1"],
    "resnetv2_50": dataclasses.replace(
        SPECS["ResNet50B"], preactivation=True, stem_norm=False, stem_pool_border="nothing", params=25_549_352
    ),
    "resnet50_gn": dataclasses.replace(SPECS["ResNet50B"], norm="group"),
    "resnet18_silu": dataclasses.replace(SPECS["ResNet18"], activation="silu"),
    "resnet18_os16": dataclasses.replace(SPECS["ResNet18"], output_stride=16),
    "resnet50d_os8": dataclasses.replace(SPECS["ResNet50D"], output_stride=8),
}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# Networks of keras.applications -> the mode that its documentation gives their files.
KERAS = {
    "ResNet50": "caffe",
    "ResNet101": "caffe",
    "ResNet152": "caffe",
    "ResNet50V2": "tf",
    "ResNet101V2": "tf",
    "ResNet152V2": "tf",
    "InceptionV3": "tf",
    "InceptionResNetV2": "tf",
}
QUICK = ("resnet18", "resnet18d", "resnetv2_18", "ResNet50")
# One of a kind; the others are as these but for the number of blocks or groups.
SLOW = (
    "seresnet50",
    "resnetblur50",
    "resnetrs50",
    "resnetv2_50x1_bit",
    "resnet50_gn",
    "resnet18_silu",
    "resnet18_os16",
    "resnet50d_os8",
    "resnet50",
    "resnet50d",
    "resnetv2_50",
    "resnext50_32x4d",
    "inception_resnet_v2",
    "ResNet50V2",
    "InceptionV3",
)


def _mark(name):
    return () if name in QUICK else pytest.mark.slow if name in SLOW else pytest.mark.everything


CASES = [
    pytest.param(reference, name, id=f"{reference}-{name}", marks=_mark(name))
    for reference, names in (("timm", TIMM), ("keras", KERAS))
    for name in names
]


@dataclasses.dataclass
class Reference:
    """What a reference computes, and its weights in the files that it has."""

    spec: kresnets.specs.Spec
    files: list
    preprocessing: kresnets.Preprocessing
    images: np.ndarray
    logits: np.ndarray
    params: int
    features: dict | None = None


def timm_reference(name, folder):
    meta = json.loads((GOLDEN / f"{name}.json").read_text())
    golden = np.load(GOLDEN / f"{name}.npz")
    gain = 1.0 if name.startswith("inception") else 0.7
    path = folder / "model.safetensors"
    save_file({tensor: golden_tensor(tensor, shape, gain) for tensor, shape in meta["state_dict"].items()}, path)
    halves = HALVES if name.startswith(("inception", "resnetv2")) else {}
    return Reference(
        TIMM[name],
        [path],
        kresnets.Preprocessing("torch", **halves),
        golden_images(meta["input_size"]),
        golden["logits"],
        meta["params"],
        golden,
    )


def keras_reference(name, folder):
    # The deep ones at a smaller, odd size and from one kind of file: the code is that of the others.
    side = None if name in ("ResNet50", "ResNet50V2", "InceptionV3") else 97
    model = getattr(keras.applications, name)(
        weights=None, classifier_activation=None, input_shape=side and (side, side, 3)
    )
    images = golden_images(make_lively(model).input_shape[1])
    model.save_weights(folder / "keras3.weights.h5")
    files = [folder / "keras3.weights.h5"]
    if side is None:
        files += [
            save_legacy(model, folder / "keras2.h5"),
            without_names(model, folder / "early.weights.h5"),
        ]
    logits = np.asarray(model(images, training=False))
    params = _trainable(model) + _difference(model)
    return Reference(SPECS[name], files, kresnets.Preprocessing(KERAS[name]), images, logits, params)


def _difference(model):
    """What kresnets has more in place of keras.applications' model: no biases before norms, a gamma in each norm."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    gammas = sum(norm.beta.shape[0] for norm in norms if not norm.scale)
    normed = [norm.input._keras_history.operation for norm in norms]
    biases = sum(conv.bias.shape[0] for conv in normed if isinstance(conv, keras.layers.Conv2D) and conv.use_bias)
    return gammas - biases


def without_names(model, path):
    """Write a `.weights.h5` as the first versions of Keras 3 did, which named layers by class and place alone."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        groups = []
        file.visititems(lambda name, item: groups.append(item) if name.endswith("/vars") else None)
        for group in groups:
            group.attrs.pop("name", None)
    return path


@pytest.mark.always("timm-resnet18", "timm-resnet50d", "timm-resnetv2_50", "keras-ResNet50")
@pytest.mark.parametrize(("reference", "name"), CASES)
def test_equals_its_reference(reference, name, tmp_path):
    known = {"timm": timm_reference, "keras": keras_reference}[reference](name, tmp_path)
    shape = known.images.shape[1:]
    for file in known.files:
        model = kresnets.build(known.spec, weights=file, classifier_activation=None, input_shape=shape)
        both = keras.Model(model.input, [model.get_layer("head_pool").input, model.output])
        features, logits = both(known.images, training=False)
        error = relative_error(logits, known.logits)
        print(f"{known.spec.name}, {reference}, {file.name}: relative error {error:.1e}")
        assert error < TOLERANCE
        if known.features is not None:
            assert tuple(features.shape) == tuple(known.features["feature_shape"])
            means = np.asarray(features).mean(axis=(1, 2))
            assert relative_error(means, known.features["feature_mean"]) < TOLERANCE
        carried = kresnets.preprocessing_of(model)
        assert (carried.mode, carried.mean, carried.std) == (
            known.preprocessing.mode,
            known.preprocessing.mean,
            known.preprocessing.std,
        )
        assert _trainable(model) == known.params == known.spec.params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("timm", "resnetv2_18"),
        *(pytest.param("timm", name, marks=pytest.mark.everything) for name in ("resnet18", "inception_v4")),
        *(pytest.param("keras", name, marks=pytest.mark.everything) for name in ("ResNet50V2", "InceptionV3")),
    ],
)  # fmt: skip
def test_a_file_gives_its_trunk_to_other_heads_and_channels(reference, name, tmp_path, caplog):
    """Without a head, with one for other classes (which starts afresh, and is said), and for grey or 4-channel
    images."""
    known = {"timm": timm_reference, "keras": keras_reference}[reference](name, tmp_path)
    file, side = known.files[0], known.spec.min_size + 2
    images = golden_images(side)
    shape = (side, side, 3)

    def build(channels=3, **arguments):
        return kresnets.build(known.spec, weights=file, input_shape=(*shape[:2], channels), **arguments)

    whole = build(classifier_activation=None)
    expected = np.asarray(keras.Model(whole.input, whole.get_layer("head_pool").output)(images))
    np.testing.assert_allclose(build(include_top=False, pooling="avg")(images), expected, rtol=1e-5, atol=1e-6)
    with caplog.at_level("INFO", logger="kresnets"):
        other = build(classes=7)
    assert "the head for 7 classes starts afresh" in caplog.text and other.output_shape == (None, 7)
    trunk = keras.Model(other.input, other.get_layer("head_pool").output)
    np.testing.assert_allclose(trunk(images), expected, rtol=1e-5, atol=1e-6)
    assert kresnets.preprocessing_of(other) == kresnets.preprocessing_of(whole)
    # One channel takes the sum over R, G and B: a grey image gives what its copy in three channels gives.
    grey = build(channels=1, include_top=False, pooling="avg")
    features = keras.Model(whole.input, whole.get_layer("head_pool").output)
    copies = features(np.repeat(images[..., :1], 3, axis=-1))
    np.testing.assert_allclose(grey(images[..., :1]), copies, rtol=1e-4, atol=1e-4 * np.abs(copies).max())
    # Four take R, G, B, R at 3/4.
    four = build(channels=4, include_top=False).get_layer("stem_conv1").kernel
    kernel = np.asarray(whole.get_layer("stem_conv1").kernel)
    np.testing.assert_allclose(four, kernel[:, :, [0, 1, 2, 0]] * 0.75, rtol=1e-6)


def test_trunk_equals_keras_applications_at_an_odd_size(tmp_path):
    """Odd sizes meet every padding, and strides that leave a rest; the file is like the published `notop` ones."""
    reference = make_lively(keras.applications.ResNet50(weights=None, include_top=False, input_shape=(97, 97, 3)))
    images = golden_images(97)
    expected = np.asarray(reference(images, training=False))
    save_legacy(reference, tmp_path / "notop.h5")
    model = kresnets.ResNet50(weights=tmp_path / "notop.h5", include_top=False)
    assert relative_error(model(images, training=False), expected) < TOLERANCE


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
