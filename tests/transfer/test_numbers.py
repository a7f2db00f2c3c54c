"""Regression: what it learns, in which units, and that it goes on where it was cut off."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from nets import SHORT, photographs, tiny, weights

import kresnets
from kresnets.export import read_card
from kresnets.transfer.labels import Standardized
from kresnets.transfer.trunk import with_trunk

X, CLASSES = photographs(48)
PRICES = (1000.0 * CLASSES + 5000).astype("float32")


def network(scale=1.0, mean=0.0):
    """Return the tiny network with a linear head, its output brought to a mean and a spread."""
    model = tiny(classes=1)
    outputs = keras.layers.Dense(1, name="head_number")(model.get_layer("head_pool").output)
    return keras.Model(model.input, keras.layers.Rescaling(scale, mean, name="head_rescaling")(outputs))


def tuned(model, labels, **more):
    return kresnets.fine_tune(model, (X, labels), (X, labels), SHORT, task="numbers", verbose=0, **more)


def test_the_loss_is_kerass_in_units_of_the_spread():
    truth, answers = np.array([[5.0, 100.0], [7.0, 300.0]]), np.array([[6.0, 100.0], [4.0, 500.0]])
    scaled = truth / (2, 100), answers / (2, 100)
    for kind, known in (
        ("mse", keras.losses.MeanSquaredError()),
        ("mae", keras.losses.MeanAbsoluteError()),
        ("huber", keras.losses.Huber()),
    ):
        loss = Standardized(kind, (2.0, 100.0))
        assert float(loss(truth, answers)) == pytest.approx(float(known(*scaled)), rel=1e-6)
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert float(again(truth, answers)) == float(loss(truth, answers))


@pytest.mark.everything
def test_dollars_and_thousands_learn_alike():
    """The same run whatever the unit: the loss to the last digits, the error in the unit itself."""
    one, other = network(1000.0, 6000.0), network(1.0, 6.0)
    first, last = tuned(one, PRICES).history, tuned(other, PRICES / 1000).history
    np.testing.assert_allclose(first["loss"], last["loss"], rtol=1e-3)
    np.testing.assert_allclose(first["mae"], np.multiply(last["mae"], 1000), rtol=1e-3)
    said = one.predict(kresnets.preprocess_input(X.astype("float32"), mode="torch"), verbose=0)
    assert first["val_mae"][-1] == pytest.approx(np.abs(said[:, 0] - PRICES).mean(), rel=1e-3)
    assert kresnets.task_of(one) == "numbers"


@pytest.mark.everything
def test_cut_off_it_goes_on_to_the_same_bits(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole, resumed = network(1000.0, 6000.0), network(1000.0, 6000.0)
    tuned(whole, PRICES, loss="huber")
    with pytest.raises(KeyboardInterrupt):
        tuned(network(1000.0, 6000.0), PRICES, loss="huber", callbacks=[Stop()], state_dir=tmp_path)
    with pytest.raises(ValueError, match=r"another run \(loss differ\)"):
        tuned(network(1000.0, 6000.0), PRICES, state_dir=tmp_path)
    tuned(resumed, PRICES, loss="huber", state_dir=tmp_path)
    for path, value in weights(whole).items():
        np.testing.assert_array_equal(weights(resumed)[path], value, err_msg=path)


@pytest.mark.everything
def test_it_is_served_in_its_own_units(tmp_path):
    model = with_trunk(
        kresnets.SPECS["SmallResNet20"],
        "kresnets/drawn48",
        48,
        2,
        task="numbers",
        numbers=([10.0, 5000.0], [2.0, 900.0]),
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    folder = kresnets.export_saved_model(again, tmp_path / "served", labels=["age", "price"])
    served = tf.saved_model.load(str(folder)).signatures
    assert {*served} == {"serving_default", "predict_tensor", "features"} and read_card(folder)["task"] == "numbers"
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype="uint8")
    pngs = [tf.io.encode_png(image).numpy() for image in images]
    answer = served["serving_default"](image_bytes=tf.constant([pngs[0], b"none", *pngs[1:]]))
    expected = model(kresnets.preprocessing_of(model)(images.astype("float32")))
    np.testing.assert_allclose(answer["values"].numpy()[[0, 2, 3]], expected, rtol=1e-4)
    assert answer["valid"].numpy().tolist() == [True, False, True, True] and not answer["values"][1].numpy().any()
    with pytest.raises(ValueError, match="exported as a SavedModel alone"):
        kresnets.export_file(again, tmp_path / "a.onnx", "onnx")


@pytest.mark.parametrize(
    ("labels", "more", "sentence"),
    [
        (np.where(CLASSES == 1, np.nan, 1.0), {}, "must be finite numbers"),
        (np.ones((48, 2)), {}, r"labels must be 1 number an image, \(n, 1\)"),
        (PRICES, {"class_weight": "balanced"}, "`class_weight` goes with task='classes'"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(labels, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        tuned(network(), labels, **more)
