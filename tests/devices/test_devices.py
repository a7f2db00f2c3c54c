"""Several devices of one machine train as one device does: the processor, divided in two, against the whole."""

import dataclasses
import logging
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import SHORT, Stop, StopAfter, data, photographs, tiny, unchanged_groups, weights
from places import python_path

import kresnets
from kresnets import fine_tune
from kresnets.devices import all_devices

SGD = dataclasses.replace(SHORT, optimizer="sgd", weight_decay=None)
ALL = dataclasses.replace(SGD, optimizer="adamw", weight_decay=0.1, ema=0.8, label_smoothing=0.1, augment="light")
LISTENING = dataclasses.replace(
    SGD, schedule="constant", advance="plateau", patience=1, max_epochs_per_stage=2, trunk_learning_rate=0.5
)


def divide():
    """Have TensorFlow's processor count as two devices; JAX's is divided by XLA_FLAGS before it starts."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)


def batches(images, labels, size):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(size)


def trained(source, validation, recipe, several, **options):
    """Fine-tune on one device or on both; return the model and its history."""
    kept = [options.pop("stop", None)]
    if not several:
        model = tiny()
        return model, fine_tune(
            model, source, validation, recipe, callbacks=[c for c in kept if c], verbose=0, **options
        )
    with all_devices() as devices:
        assert devices.count == 2
        with devices.scope():
            model = tiny()
        before = weights(model)
        callbacks = [callback for callback in kept if callback]
        history = fine_tune(model, source, validation, recipe, callbacks=callbacks, verbose=0, **options)
        assert unchanged_groups(model, before)[:2] == ["stem", "stage1"]
    assert keras.distribution.distribution() is None
    return model, history


def same(one, two, tolerance):
    (model, history), (other, other_history) = one, two
    assert set(history.history) == set(other_history.history) - {"seconds"} and history.epoch == other_history.epoch
    for name, column in history.history.items():
        np.testing.assert_allclose(other_history.history[name], column, rtol=tolerance, atol=tolerance, err_msg=name)
    for path, value in weights(model).items():
        np.testing.assert_allclose(weights(other)[path], value, rtol=tolerance, atol=tolerance, err_msg=path)


def check_history():
    two_stages = dataclasses.replace(SGD, stages=("stage3",))
    x, y = photographs(45)  # batches of 32 and of 13, which two do not divide
    validation = photographs(21, seed=1)
    same(*(trained((x, y), validation, two_stages, several) for several in (False, True)), 1e-4)


def check_all_there_is():
    x, y = photographs(33)
    sources = batches(x, y, 16), batches(*photographs(21, seed=1), 16)  # the last batch is one image
    weighted = {"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}}
    same(*(trained(*sources, ALL, several, **weighted) for several in (False, True)), 1e-3)


def check_resumes(folder):
    sources = batches(*photographs(29), 8), batches(*photographs(21, seed=1), 8)
    whole = trained(*sources, LISTENING, True)
    same(trained(*sources, LISTENING, False), whole, 1e-4)
    for stop in (3, 9, 6):
        with pytest.raises(Stop):
            trained(*sources, LISTENING, True, state_dir=folder, stop=StopAfter(stop))
    same(whole, trained(*sources, LISTENING, True, state_dir=folder), 1e-5)


def check_ratios_and_cache():
    x, y = data(22)
    with all_devices() as devices:
        with devices.scope():
            model = tiny()
            model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        before = weights(model)
        ours = [kresnets.StagedUnfreezing({0: "head", 1: "stage3"}), kresnets.LayerwiseLearningRate({"stage3": 0})]
        history = model.fit(x, y, batch_size=22, epochs=2, verbose=0, callbacks=ours).history
        assert unchanged_groups(model, before) == ["stem", "stage1", "stage2", "stage3"]
        assert history["learning_rate/stage3"] == [0, 0]
        np.testing.assert_allclose(history["learning_rate/head"], [0.05, 0.05], rtol=1e-6)
        notes = []
        handler = logging.Handler()
        handler.emit = lambda record: notes.append(record.getMessage())
        logging.getLogger("kresnets").addHandler(handler)
        fine_tune(model, photographs(8), recipe=SGD, cache=True, verbose=0)
        assert len([note for note in notes if note.startswith("Training goes uncached: ")]) == 1


def check_sentences():
    if keras.config.backend() == "jax":
        sentence = "batch of 33 does not divide among 2 devices: take 32 or 34"
        with pytest.raises(ValueError, match=sentence), all_devices(batch_size=33):
            pass
        with pytest.raises(ValueError, match="among 2 devices: take 2 "), all_devices(batch_size=1):
            pass


BACKENDS = pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.jax)])


def run(backend, checks):
    pytest.importorskip(backend)
    code = f"import test_devices as t; t.divide(); {checks}; print('as one')"
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": python_path(__file__)}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=900)
    assert done.stdout.endswith("as one\n"), done.stderr[-3000:]


@pytest.mark.always("tensorflow")
@pytest.mark.slow
@BACKENDS
def test_two_devices_are_as_one(backend):
    run(backend, "t.check_history(); t.check_sentences()")


@pytest.mark.everything
@BACKENDS
def test_two_devices_are_as_one_with_all_that_a_recipe_has(backend, tmp_path):
    run(backend, f"t.check_all_there_is(); t.check_ratios_and_cache(); t.check_resumes({str(tmp_path)!r})")


def test_one_device_is_left_as_it_is():
    with all_devices(batch_size=33) as devices:
        assert devices.count == 1
        with devices.scope():
            model = tiny()
    assert keras.distribution.distribution() is None
    assert getattr(model, "distribute_strategy", None) is None or model.distribute_strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize("form", ["numpy", "tensorflow"])
def test_images_of_one_sigmoid_unit_are_weighed_by_their_class(form):
    """Their labels are floats in a column; Keras rounds blended ones to find the class, and so do the shares."""
    import tensorflow as tf

    from kresnets.devices import shares

    weigher = shares._Shares.__new__(shares._Shares)
    weigher._class_weight = {0: 1.0, 1: 3.0}
    labels = np.array([[0.0], [1.0], [0.9]], "float32")
    ops = shares._ARRAYS if form == "numpy" else shares._TENSORS
    given = labels if form == "numpy" else tf.constant(labels)
    np.testing.assert_array_equal(ops.take(weigher._weight_of_class(), weigher._classes(given, ops), axis=0), [1, 3, 3])
