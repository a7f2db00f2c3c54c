"""Folding changes no answer: every family, layer by layer, and what must stay as it is."""

import keras
import numpy as np
import pytest
from families import SMALL, images, smallest
from keras import layers
from lively import golden_images, make_lively, relative_error

import kresnets
from kresnets.export import fold
from kresnets.export.fold import fold_batchnorms
from kresnets.export.precision import in_bfloat16, in_float32, in_half

NORMS = (layers.BatchNormalization,)
TOLERANCE = 1e-4


def norms(model):
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, NORMS)]


def before_an_activation(model):
    """The norms that no convolution directly precedes, which is where a v2 network has them."""
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, NORMS) and not isinstance(layer.input._keras_history.operation, layers.Conv2D)
    ]


def same_layers(model, folded):
    """Compare what the layers of two models give that compute the same thing under one name."""
    names = [layer.name for layer in model.layers if not isinstance(layer, (layers.Conv2D, layers.InputLayer))]
    noise = images(model.input_shape[1:])
    found, expected = (
        keras.Model(each.input, [by_name(each)[name].output for name in names])(noise) for each in (folded, model)
    )
    for name, one, other in zip(names, found, expected, strict=True):
        assert relative_error(one, np.asarray(other)) < TOLERANCE, name
    return names


def by_name(model):
    return {layer.name: layer for layer in model.layers}


@pytest.mark.always("d", "v2", "inception-resnet")
@pytest.mark.parametrize("family", SMALL)
def test_each_family_layer_by_layer(family):
    row = SMALL[family]
    model = make_lively(kresnets.build(row, input_shape=smallest(row)))
    before = model.get_weights()
    folded = fold_batchnorms(model)
    kept = before_an_activation(model)
    assert norms(folded) == kept and (len(kept) > 0) == (family == "v2")
    assert len(same_layers(model, folded)) > len(model.layers) / 3
    assert folded.count_params() < model.count_params()
    for mine, its in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.everything
@pytest.mark.parametrize("name", kresnets.list_models())
def test_every_network(name):
    row = kresnets.SPECS[name]
    model = make_lively(kresnets.build(row, input_shape=smallest(row), classifier_activation=None))
    folded = fold_batchnorms(model)
    assert norms(folded) == before_an_activation(model)
    noise = golden_images(row.min_size)
    assert relative_error(folded(noise), np.asarray(model(noise))) < TOLERANCE


@pytest.mark.everything
@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2", "InceptionV3", "MobileNetV2", "Xception"])
def test_networks_of_keras(name):
    model = make_lively(getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3)))
    folded = fold_batchnorms(model)
    assert len(norms(folded)) < len(norms(model)) / 2
    noise = golden_images(96)
    np.testing.assert_allclose(folded(noise), model(noise), atol=TOLERANCE)


def network(*stack, shape=(9, 9, 4)):
    return make_lively(keras.Sequential([keras.Input(shape), *stack]))


def norm(**arguments):
    return layers.BatchNormalization(**arguments)


FOLDED = {
    "with a bias": (layers.Conv2D(5, 3), norm()),
    "without": (layers.Conv2D(5, 3, use_bias=False, padding="same"), norm(epsilon=0.1)),
    "without gamma and beta": (layers.Conv2D(5, 3), norm(scale=False, center=False)),
    "in groups": (layers.Conv2D(6, 3, groups=2), norm()),
    "dilated": (layers.Conv2D(5, (3, 2), dilation_rate=2), norm()),
    "with strides": (layers.Conv2D(5, 2, strides=3), norm()),
    "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=3), norm()),
    "separable": (layers.SeparableConv2D(5, 3, depth_multiplier=2), norm()),
    "dense": (layers.Flatten(), layers.Dense(5), norm()),
    "dense over a map": (layers.Dense(5), norm()),
    "two norms": (layers.Conv2D(5, 3), norm(), norm()),
    "a norm and a scale": (layers.Conv2D(5, 3), norm(), layers.Rescaling(0.3, 0.1)),
    "a scale alone": (layers.DepthwiseConv2D(3), layers.Rescaling(-2.0)),
    "ours": (layers.Conv2D(5, 3), kresnets.layers.BatchNormalization()),
    "dropout behind": (layers.Conv2D(5, 3), norm(), layers.Dropout(0.5)),
    "in a model within": (keras.Sequential([layers.Conv2D(5, 3), norm()]),),
    "in one two levels down": (keras.Sequential([keras.Sequential([layers.Conv2D(5, 3), norm()]), layers.ReLU()]),),
}


@pytest.mark.parametrize("case", FOLDED)
def test_what_is_folded(case):
    model = network(*FOLDED[case])
    folded = fold_batchnorms(model)
    assert not norms(folded) and not [
        layer for layer in folded._flatten_layers() if isinstance(layer, layers.Rescaling)
    ]
    noise = images(model.input_shape[1:])
    np.testing.assert_allclose(folded(noise), model(noise), atol=TOLERANCE)
    assert np.abs(model(noise)).max() > 0.1


class Standardized(layers.Conv2D):
    """A subclass that computes something else with its kernel."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))


def used_twice():
    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(5, 3)(inputs)
    return keras.Model(inputs, layers.Add()([norm()(x), x]))


def called_twice():
    inputs, conv = keras.Input((9, 9, 4)), layers.Conv2D(4, 3, padding="same")
    return keras.Model(inputs, norm()(conv(layers.ReLU()(conv(inputs)))))


def one_norm_twice():
    inputs, shared = keras.Input((9, 9, 4)), norm()
    return keras.Model(inputs, layers.Add()([shared(layers.Conv2D(5, 3)(inputs)), shared(layers.Conv2D(5, 3)(inputs))]))


def an_output():
    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(5, 3)(inputs)
    return keras.Model(inputs, [x, norm()(x)])


def low_rank():
    """A convolution whose kernel is the sum of two, and one with a norm that is folded all the same."""
    model = network(layers.Conv2D(5, 3), norm(), layers.ReLU(), layers.Conv2D(6, 3), norm())
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.random.default_rng(0).normal(size=model.layers[0].lora_kernel_b.shape))
    return model


def test_only_a_layer_of_low_rank_stays():
    model = low_rank()
    folded = fold_batchnorms(model)
    assert norms(folded) == norms(model)[:1] and len(norms(model)) == 2
    noise = images(model.input_shape[1:])
    np.testing.assert_allclose(folded(noise), model(noise), atol=TOLERANCE)


KEPT = {
    "an activation between": lambda: network(layers.Conv2D(5, 3, activation="relu"), norm()),
    "a pooling between": lambda: network(layers.Conv2D(5, 3), layers.MaxPooling2D(), norm()),
    "nothing before": lambda: network(norm(), layers.Conv2D(5, 3)),
    "another axis": lambda: network(layers.Conv2D(5, 3), norm(axis=1)),
    "a subclass": lambda: network(Standardized(5, 3), norm()),
    "transposed": lambda: network(layers.Conv2DTranspose(5, 3), norm()),
    "used twice": lambda: make_lively(used_twice()),
    "called twice": lambda: make_lively(called_twice()),
    "one norm twice": lambda: make_lively(one_norm_twice()),
    "an output": lambda: make_lively(an_output()),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_stays(case):
    model = KEPT[case]()
    copy = fold_batchnorms(model)
    assert norms(copy) == norms(model) and copy.count_params() == model.count_params()
    noise = images(model.input_shape[1:])
    for found, expected in zip(keras.tree.flatten(copy(noise)), keras.tree.flatten(model(noise)), strict=True):
        assert relative_error(found, np.asarray(expected)) < TOLERANCE


def test_a_norm_stays_where_float32_does_not_carry_the_fold():
    """A large bias moves the channels away and a large mean moves them back, so that little of them is left."""
    model = network(layers.Conv2D(5, 3), norm())
    model.layers[0].bias.assign(np.full(5, 1e6))
    model.layers[1].moving_mean.assign(np.full(5, 1e6))
    assert norms(fold_batchnorms(model)) == norms(model)


def test_a_fold_that_computes_something_else_is_not_taken(monkeypatch):
    model = network(layers.Conv2D(5, 3), norm())
    monkeypatch.setattr(fold, "_affine", lambda layer: (np.float64(1.0), np.float64(0.01)))
    assert norms(fold_batchnorms(model)) == norms(model)


def test_nothing_of_the_users_is_touched():
    import random

    model = kresnets.CifarResNet8(input_shape=(16, 16, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    keras.utils.set_random_seed(3)
    expected = random.random(), layers.Dense(3, name="a").name
    keras.utils.set_random_seed(3)
    folded = fold_batchnorms(model)
    assert (random.random(), layers.Dense(3, name="a").name) == expected
    assert model.compiled and not folded.compiled and norms(model)
    assert not [layer for layer in model.layers if len(layer._inbound_nodes) > 1]


@keras.saving.register_keras_serializable("test_export_fold")
class Secret(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self._function = function

    def call(self, inputs):
        return self._function(inputs)


def test_a_layer_that_cannot_be_made_again_is_named():
    model = network(layers.Conv2D(5, 3), norm(), Secret(keras.ops.abs, name="mine"))
    with pytest.raises(ValueError, match="'mine' .Secret. cannot be made again .*get_config"):
        fold_batchnorms(model)


# --- dtypes ---


@pytest.mark.parametrize("family", ["v1", "v2", pytest.param("inception-resnet", marks=pytest.mark.everything)])
def test_bfloat16_from_the_first_convolution_to_the_head(family):
    row = SMALL[family]
    model = make_lively(kresnets.build(row, input_shape=smallest(row)))
    folded = fold_batchnorms(model)
    half = in_bfloat16(folded, folded.get_layer("head_dense"))
    dtypes = {layer.name: layer.compute_dtype for layer in half.layers}
    assert dtypes["stem_conv1"] == "bfloat16" and dtypes["head_dense"] == dtypes["head_pool"] == "float32"
    assert {layer.variable_dtype for layer in half.layers if isinstance(layer, layers.Conv2D)} == {"bfloat16"}
    assert {layer.variable_dtype for layer in half.layers if isinstance(layer, NORMS)} <= {"float32"}
    noise = images(model.input_shape[1:])
    np.testing.assert_allclose(half(noise), model(noise), atol=0.02)
    assert in_half(half) and not in_half(in_float32(half))


def test_a_model_trained_in_half_precision_is_float32_again():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_lively(kresnets.build(SMALL["cifar"]))
    finally:
        keras.config.set_dtype_policy("float32")
    plain = make_lively(kresnets.build(SMALL["cifar"]))
    full = in_float32(model)
    noise = images((32, 32, 3))
    np.testing.assert_allclose(full(noise), plain(noise), atol=1e-6)
    assert in_half(model) and not in_half(full)


@pytest.mark.parametrize(
    "then",
    [keras.ops.relu, lambda x: x + x, lambda x: x * 0.5, lambda x: keras.ops.softmax(x, axis=-1)],
    ids=["relu", "sum", "product", "softmax"],
)
def test_operations_that_are_no_layers_stay(then):
    x = inputs = keras.Input((9, 9, 3))
    x = then(layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    x = then(layers.Conv2D(4, 3)(x))
    model = make_lively(keras.Model(inputs, x))
    folded, noise = fold_batchnorms(model), golden_images(9)
    assert len(norms(model)) == 1 and norms(folded) == []
    np.testing.assert_allclose(folded(noise), model(noise), atol=TOLERANCE)
