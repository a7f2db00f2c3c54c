"""The cases of Keras's own `applications_test.py`, here for every builder.

That file asks every network of keras.applications for its channels without the head: at 1 and 4 image channels, on a
shape and on a tensor of the user's, pooled; and for its head; under both data formats.
"""

import keras
import numpy as np
import pytest
from families import images, smallest

import kresnets

QUICK = ("ResNet18D", "ResNet18V2", "CifarResNet20")
BUILDERS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.everything) for name in kresnets.list_models()
]


@pytest.fixture(params=["channels_last", "channels_first"])
def shape(request):
    """Arrange height, width and channels as the data format of the test has them."""
    keras.config.set_image_data_format(request.param)
    first = request.param == "channels_first"
    yield lambda height, width, channels: (channels, height, width) if first else (height, width, channels)
    keras.config.set_image_data_format("channels_last")


def features(name):
    """Channels of the last feature map, as the papers' tables give them.

    1512.03385 table 1 and section 4.2, 1603.05027's appendix for the bottlenecks on CIFAR; 1512.00567 table 1;
    1602.07261 figures 9 and 15, and the authors' code for Inception-ResNet-v2, whose figure says 1792.
    """
    inception = {"InceptionV3": 2048, "InceptionV4": 1536, "InceptionResNetV1": 1792, "InceptionResNetV2": 1536}
    if name in inception:
        return inception[name]
    if name == "SmallResNet18D":
        return 160
    if name.startswith(("Cifar", "SmallResNet20")):
        return 256 if "164" in name else 64
    whole = name.removesuffix("Thin")  # of which a thin one has half
    return (512 if whole.removesuffix("V2").rstrip("BCD").endswith(("18", "34")) else 2048) // (1 + (whole != name))


def grid(name):
    """Pixels a side of the last feature map at the default size: 7 for 224, 8 for 299 and for CIFAR's 32."""
    if name.startswith("Small"):
        return {"SmallResNet20": 6, "SmallResNet18D": 2}[name]
    if name == "ResNet18DThin":
        return 4
    return 8 if name.startswith(("Inception", "Cifar")) else 7


def build(network, **arguments):
    return getattr(kresnets, network)(**{"weights": None, **arguments})


@pytest.mark.parametrize("name", BUILDERS)
def test_input_shapes_and_channels_without_the_head(name, shape):
    free, fixed = shape(None, None, 1), shape(123, 123, 4)
    model = build(name, include_top=False, input_shape=free)
    assert (model.input_shape, model.output_shape) == ((None, *free), (None, *shape(None, None, features(name))))
    model = build(name, include_top=False, input_shape=fixed, pooling="max")
    assert (model.input_shape, model.output_shape) == ((None, *fixed), (None, features(name)))


@pytest.mark.parametrize("name", BUILDERS)
def test_default_arguments(name, shape):
    """But for the weights: `"imagenet"` would fetch them."""
    spec = kresnets.SPECS[name]
    model = build(name) if spec.imagenet else getattr(kresnets, name)()
    side, classes = spec.input_size, 10 if name.startswith(("Cifar", "Small")) else 1000
    assert (model.input_shape, model.output_shape) == ((None, *shape(side, side, 3)), (None, classes))
    assert model.get_layer("head_pool").input.shape == (None, *shape(grid(name), grid(name), features(name)))
    assert model.layers[-1].activation.__name__ == "softmax"
    if keras.config.image_data_format() == "channels_last":  # the one that TensorFlow runs on a processor
        scores = model(images((side, side, 3), 1), training=False)
        np.testing.assert_allclose(np.sum(scores, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_custom_input_tensor_without_the_head(name, shape):
    """Four channels, halved and made three by a convolution of the user's."""
    image = keras.Input(shape(200, 200, 4), name="custom_input")
    own = keras.layers.Conv2D(3, 2, strides=2, padding="valid")(image)
    model = build(name, include_top=False, input_tensor=own)
    assert model.input_shape == (None, *shape(200, 200, 4))
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    assert model.output_shape[axis] == features(name)
    assert model.get_layer("stem_conv1").kernel.shape[2] == 3


@pytest.mark.parametrize("name", BUILDERS)
def test_the_models_name_classes_and_activation(name):
    model = build(name, name="mine", classes=7, classifier_activation=None)
    assert (model.name, model.output_shape) == ("mine", (None, 7))
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_for_other_classes_and_of_no_file(name, tmp_path):
    """In keras.applications both raise; here a file for other classes gives its trunk and a fresh head."""
    size, path = smallest(kresnets.SPECS[name]), tmp_path / "three.weights.h5"
    three = build(name, input_shape=size, classes=3)
    three.save_weights(path)
    four = build(name, weights=path, input_shape=size, classes=4)
    path.unlink()
    assert four.output_shape == (None, 4)
    for its, kept in zip(four.weights[:-2], three.weights[:-2], strict=True):
        np.testing.assert_array_equal(its, kept)
    with pytest.raises(ValueError, match=rf"{name}: .*three.weights.h5 is not there"):
        build(name, weights=path)
    with pytest.raises(ValueError, match=rf"{name}: `weights` must be None .*Received: 'imagenette'"):
        build(name, weights="imagenette")
