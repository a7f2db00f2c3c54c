"""A recomputing model trains as the model it was made of, in less memory."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import TINY, data, photographs, tiny, weights
from places import python_path

import kresnets

EVERYTHING = {"stochastic_depth": 0.4, "dropout": 0.3}


def trained(recompute, epochs=2, through=None, callbacks=(), optimizer=None, **knobs):
    """Train a tiny network and return its weights and its losses."""
    model = tiny(**knobs)
    if recompute:
        model = kresnets.recompute(model)
    if through is not None:
        kresnets.freeze(model, through=through)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer is None else optimizer()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    images, labels = data(16)
    history = model.fit(
        images, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )
    return weights(model), history.history["loss"], model


def compare(**settings):
    (ours, losses, _), (theirs, expected, _) = trained(True, **settings), trained(False, **settings)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        np.testing.assert_allclose(ours[path], value, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.mixed_precision.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.mixed_precision.set_dtype_policy("float32")


@pytest.mark.always("stage2_block1-knobs1")
@pytest.mark.parametrize(
    "through, knobs",
    [
        (None, EVERYTHING),
        ("stage2_block1", EVERYTHING),
        pytest.param(None, {"preactivation": True, "stem_norm": False}, marks=pytest.mark.everything),
    ],
)
def test_it_trains_as_the_model_itself(float64, through, knobs):
    (ours, losses, _), (theirs, expected, _) = (
        trained(recompute, through=through, **knobs) for recompute in (True, False)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    for path, value in theirs.items():  # what random layers draw from included
        np.testing.assert_allclose(ours[path], value, rtol=1e-9, atol=1e-12, err_msg=path)


@pytest.mark.everything
def test_it_thaws_in_stages_as_the_model_itself():
    compare(
        epochs=3,
        callbacks=[
            kresnets.StagedUnfreezing({0: "head", 1: "stage3", 2: "stage2"}),
            kresnets.LayerwiseLearningRate(0.5),
        ],
        optimizer=lambda: keras.optimizers.AdamW(1e-2),
    )


@pytest.mark.everything
def test_in_bfloat16_it_trains_as_far_from_float32_as_the_model_itself():
    _, exact, _ = trained(False)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        _, ours, model = trained(True)
        assert model.layers[1].compute_dtype == "bfloat16"
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    np.testing.assert_allclose(ours, exact, rtol=0.05)


@pytest.mark.everything
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_what_is_frozen_within_a_block_stays_as_it_is_under_mixed_precision(policy, tmp_path):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        made = kresnets.recompute(tiny())
        made.save(tmp_path / "made.keras")
        for model in (made, keras.models.load_model(tmp_path / "made.keras"), keras.models.clone_model(made)):
            for layer in model.layers:
                layer.trainable = isinstance(layer, keras.layers.BatchNormalization) or layer.name == "head_dense"
            before = weights(model)
            model.compile("sgd", "sparse_categorical_crossentropy")
            model.fit(*data(8), verbose=0)
            changed = {path for path, value in weights(model).items() if not np.array_equal(value, before[path])}
            assert changed and not any("conv" in path for path in changed)
            assert model.get_layer("stage1_block1_conv1").compute_dtype == policy.removeprefix("mixed_")
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


@pytest.mark.everything
def test_operations_on_tensors_stay_with_the_block_before_them(float64):
    images, labels = data(8)
    found = {}
    for recompute in (True, False):
        inputs = keras.Input((12, 12, 3))
        keras.utils.set_random_seed(0)
        scaled = kresnets.build(TINY, input_tensor=inputs * 2.0 - 1.0, classes=3)
        model = keras.Model(inputs, keras.ops.softmax(scaled.output * 3.0))
        model = kresnets.recompute(model) if recompute else model
        model.compile("sgd", "sparse_categorical_crossentropy")
        found[recompute] = model.fit(images, labels, epochs=2, verbose=0, shuffle=False).history["loss"]
    np.testing.assert_allclose(found[True], found[False], rtol=1e-12)


def test_every_block_is_run_a_second_time_and_only_those_that_learn():
    import tensorflow as tf

    def count(recompute, through=None):
        model = tiny()
        model = kresnets.recompute(model) if recompute else model
        if through:
            kresnets.freeze(model, through=through)

        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(images, training=True) ** 2)
            return tape.gradient(loss, [v.value for v in model.trainable_variables])

        graph = gradients.get_concrete_function(tf.TensorSpec((8, 12, 12, 3))).graph
        return sum(op.type == "Conv2D" for op in graph.get_operations())

    convolutions = sum(isinstance(layer, keras.layers.Conv2D) for layer in tiny().layers)
    assert count(False) == convolutions
    assert count(True) == 2 * convolutions
    assert count(True, through="stem") == 2 * convolutions - 1


@pytest.mark.everything
def test_prediction_files_and_copies(tmp_path):
    model = kresnets.build(kresnets.SPECS["CifarResNet20"], recompute=True)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        kresnets.as_plain_keras(model),
    ):
        copy.set_weights(model.get_weights())
        np.testing.assert_allclose(copy.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.segments) == len(model.segments) == 11  # the stem, 9 blocks, the head
    assert [layer.name for layer in model.layers] == [layer.name for layer in kresnets.CifarResNet20().layers]
    assert kresnets.preprocessing_of(loaded) == kresnets.preprocessing_of(model)
    plain = kresnets.as_plain_keras(model)
    assert type(plain).__module__.startswith("keras")


def test_what_cannot_be_recomputed_is_refused_in_one_sentence():
    inputs = keras.Input((12, 12, 3))
    nested = keras.Model(inputs, tiny()(inputs), name="outer")
    regular = tiny()
    regular.get_layer("stage1_block1_conv1").activity_regularizer = keras.regularizers.L2(0.1)
    strange = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="strange")
    for model, message in (
        (nested, "'outer' has the model .* nested"),
        (regular, "'stage1_block1_conv1' has an activity_regularizer"),
        (strange, "strange"),
        ("resnet", "takes a Functional model with one input and one output tensor. Received: 'resnet'"),
        (keras.Model(inputs, {"scores": tiny()(inputs)}, name="dict"), "one output tensor. Received: 'dict'"),
    ):
        with pytest.raises(ValueError, match=message):
            kresnets.recompute(model)
    with pytest.raises(ValueError, match="`recompute` must be True or False. Received: recompute='yes'"):
        kresnets.build(kresnets.SPECS["CifarResNet20"], recompute="yes")


@pytest.mark.everything
@pytest.mark.jax
def test_it_trains_as_the_model_itself_on_jax():
    pytest.importorskip("jax")
    code = "import test_recompute as t; t.compare(through='stem', **t.EVERYTHING); print('equal')"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": python_path(__file__)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]


@pytest.mark.everything
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_it_takes_half_of_the_memory():
    code = (
        "import re, sys, numpy as np, kresnets\n"
        "def peak(): return int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "model = kresnets.build(kresnets.SPECS['ResNet50'], recompute=sys.argv[1] == 'True')\n"
        "model.compile('sgd', 'sparse_categorical_crossentropy')\n"
        "images, labels = np.ones((16, 224, 224, 3), 'float32'), np.zeros(16)\n"
        "model.train_on_batch(images[:1], labels[:1]); before = peak()\n"
        "model.train_on_batch(images, labels); print(peak() - before)"
    )
    added = {
        which: int(
            subprocess.run([sys.executable, "-c", code, which], capture_output=True, text=True, check=True).stdout
        )
        for which in ("True", "False")
    }
    assert added["True"] < 0.6 * added["False"]


def test_fine_tune_trains_it_uncached_and_says_why(caplog):
    recipe = kresnets.Recipe.textbook(head_epochs=1, stages=("stage3",), epochs_per_stage=1, augment="none")
    caplog.set_level("INFO", "kresnets")
    images, labels = photographs(16)
    found = {}
    for recompute in (True, False):
        model = kresnets.recompute(tiny()) if recompute else tiny()
        found[recompute] = kresnets.fine_tune(model, (images, labels), recipe=recipe, verbose=0).history["loss"]
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)
    (told,) = [one.getMessage() for one in caplog.records if "uncached" in one.getMessage()]
    assert told.startswith("Training goes uncached: the model computes its blocks again to save memory")
