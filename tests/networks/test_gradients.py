"""Training computes what it does in keras.applications; stochastic depth leaves out what its paper says.

The gradients of a whole network are compared twice. In float64 exactly as it is, where our norm runs Keras's own code.
In float32, where it runs the fused kernel, with SiLU for ReLU in both networks: rounding turns a few ReLUs on or off,
each with its path, so that two runs of keras.applications itself differ by 2 % there.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import SMALL
from lively import make_lively

import kresnets
from kresnets.weights import layouts

# Smallest sizes whose last grid is 2 x 2 pixels, so that no statistic is of a handful of values.
SIZES = {"ResNet50": 64, "ResNet50V2": 64, "InceptionV3": 107, "InceptionResNetV2": 107}
BATCH, CLASSES = 4, 20
# A max pool among rounded numbers takes another pixel now and then, and the Inceptions have four.
TOLERANCES = {"float64": 1e-6, "float32": 1e-3, "float32, Inception": 1e-2}


@pytest.fixture
def dtype(request):
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def keras_names(reference, model, name):
    """Give the name that keras.applications' published file has for each variable, by the id of the variable."""
    spec = kresnets.SPECS[name]
    family = layouts.KERAS_APPLICATIONS.family(spec)
    theirs = {id(v): f"{layer.name}/{v.name}" for layer in reference.layers for v in layer.weights}
    known = family.known(list(theirs.values()))
    modules = layouts.modules(family, model, spec)
    ours = {id(v): family.tensor(module, v.name) for layer, module in modules.items() for v in layer.weights}
    return {key: known[path] for key, path in theirs.items()}, ours


def train(model, names, images, labels):
    """Take the gradients of one training step, which moves the statistics: name -> array, for both."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    learned = {names[id(v)]: np.asarray(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}
    return learned, {names[id(v)]: np.asarray(v) for v in model.non_trainable_variables if id(v) in names}


def smooth(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu:
            layer.activation = keras.activations.silu


CASES = [
    pytest.param(
        name,
        dtype,
        id=f"{name}-{dtype}",
        marks=pytest.mark.everything
        if name == "InceptionResNetV2" or dtype == "float32" and name != "ResNet50"
        else (),
    )
    for name in SIZES
    for dtype in ("float64", "float32")
]


@pytest.mark.always("ResNet50V2-float64")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), CASES, indirect=["dtype"])
def test_a_training_step_is_that_of_keras_applications(name, dtype, tmp_path):
    """Each gradient by its norm, and the moving statistics afterwards."""
    reference, model = both(name, tmp_path / "reference.weights.h5")
    tolerance = TOLERANCES[dtype]
    if dtype == "float32":
        smooth(reference), smooth(model)
        tolerance = TOLERANCES["float32, Inception"] if "Inception" in name else tolerance
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, *model.input_shape[1:])).astype(dtype)
    labels = rng.integers(0, CLASSES, BATCH)
    their_names, our_names = keras_names(reference, model, name)
    theirs, their_statistics = train(reference, their_names, images, labels)
    ours, our_statistics = train(model, our_names, images, labels)

    # keras.applications' v1 nets have biases under their norms, which take them out again: so they can't learn. Its
    # Inceptions have no gammas.
    only_theirs, only_ours = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    assert only_theirs == ({n for n in theirs if n.endswith("conv/bias")} if name == "ResNet50" else set())
    assert only_ours == ({n for n in ours if n.endswith("gamma")} if "Inception" in name else set())
    assert all(error(0, theirs[n], of=theirs[kernel(n)]) < tolerance for n in only_theirs)

    # A bias may have no gradient in exact arithmetic, where a norm takes it out later: its kernel's is the measure.
    errors = {n: error(ours[n], g, of=theirs[kernel(n)]) for n, g in theirs.items() if n in ours}
    worst = max(errors, key=errors.get)
    print(f"{name}, {dtype}: largest relative error {errors[worst]:.1e} ({worst}) of {len(errors)} gradients")
    assert errors[worst] < tolerance

    # Ours hold the mean before those biases.
    biases = {their_names[id(v)]: np.asarray(v) for v in reference.trainable_variables if v.name == "bias"}
    for statistic, value in their_statistics.items():
        bias = biases[statistic.replace("_bn/moving_mean", "_conv/bias")] if only_theirs and "mean" in statistic else 0
        assert error(our_statistics[statistic], value - bias, of=value) < 1e-5, statistic


def both(name, path):
    """The network of keras.applications, and ours with its weights from a file."""
    arguments = dict(input_shape=(SIZES[name], SIZES[name], 3), classes=CLASSES, classifier_activation=None)
    reference = make_lively(getattr(keras.applications, name)(weights=None, **arguments))
    for variable in reference.weights:
        variable.assign(np.asarray(variable).astype("float32"))  # as files have them
    reference.save_weights(path)
    model = getattr(kresnets, name)(weights=path, **arguments)
    # A file for other than 1000 classes leaves our head fresh.
    model.get_layer("head_dense").set_weights(reference.get_layer("predictions").get_weights())
    return reference, model


def kernel(name):
    return name.replace("_conv/bias", "_conv/kernel")


def error(found, expected, of):
    return np.linalg.norm(found - expected) / np.linalg.norm(of)


# --- stochastic depth (1603.09382 section 3) ---

DROPPING = {
    "v1": dict(depths=(2, 1, 1, 2)),
    "v2": dict(depths=(2, 1, 1, 2)),
    "cifar": dict(depths=(2, 1, 1)),
    "inception-resnet": {},
}
RATE = 0.6


def dropping(kind, rate):
    row = dataclasses.replace(SMALL[kind], **DROPPING[kind], stochastic_depth=rate)
    model = kresnets.build(row, input_shape=(row.min_size, row.min_size, 3), classifier_activation=None)
    return row, make_lively(model)


def drops(model):
    """The layers that leave out, in the order of the network."""
    return [layer for layer in model.layers if layer.name.endswith("_drop")]


@pytest.mark.parametrize("kind", DROPPING)
def test_blocks_are_left_out_ever_more_often(kind, count=600):
    """Block l of L with probability rate * l / L, and then the block is the identity; else its branch is scaled up."""
    row, model = dropping(kind, RATE)
    layers = drops(model)
    total = sum(row.depths) if hasattr(row, "block") else row.residuals
    assert len(layers) == total
    adds = [model.get_layer(layer.name.replace("_drop", "_add")) for layer in layers]
    ends = [(layer.input, layer.output, add.input[0], add.output) for layer, add in zip(layers, adds, strict=True)]
    watched = keras.Model(model.input, ends)
    images = np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype("float32")
    for number, tensors in enumerate(watched(images, training=True), start=1):
        before, after, shortcut, out = map(np.asarray, tensors)
        probability = RATE * number / total
        dropped = ~after.any(axis=(1, 2, 3)) & before.any(axis=(1, 2, 3))
        deviation = (probability * (1 - probability) / count) ** 0.5
        assert abs(dropped.mean() - probability) < 4 * deviation
        np.testing.assert_array_equal(out[dropped], shortcut[dropped])
        np.testing.assert_allclose(after[~dropped], before[~dropped] / (1 - probability), rtol=1e-5)


@pytest.mark.parametrize("kind", DROPPING)
def test_inference_leaves_out_nothing(kind):
    (_, model), (_, whole) = dropping(kind, RATE), dropping(kind, 0.0)
    for layer in whole.layers:  # by name: the order differs where a branch has one layer more than its shortcut
        layer.set_weights(model.get_layer(layer.name).get_weights())
    images = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(model(images, training=False), whole(images, training=False))
    assert drops(model) and not drops(whole)
    assert {weight.path for weight in model.weights} == {weight.path for weight in whole.weights}
    assert np.abs(model(images, training=True) - whole(images, training=True)).max() > 1e-3
