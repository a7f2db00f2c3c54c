"""The learning-rate range test: what it leaves untouched, what it suggests, what it refuses."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import data, tiny
from PIL import Image

import kresnets
from kresnets import find_learning_rate
from kresnets.transfer.lr_range_test import suggest


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels


def dense(optimizer="adam", dropout=0.0):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, activation="relu"), keras.layers.BatchNormalization()] if dropout else []
    layers = layers or [keras.layers.Dense(32, activation="relu")]
    drop = [keras.layers.Dropout(dropout)] if dropout else []
    model = keras.Sequential([keras.Input((64,)), *layers, *drop, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    arrays = [np.array(v.numpy()) for v in variables]
    return [v.path for v in variables], [v.trainable for v in variables], arrays, np.random.get_state()[1].tolist()


def same(one, other):
    return one[:2] == other[:2] and one[3] == other[3] and all(map(np.array_equal, one[2], other[2]))


def judge_of(model, train, validation, epochs):
    """Return a function from a learning rate to the best validation loss of a training from the model's weights."""
    model.optimizer.build(model.trainable_variables)
    first = [(v, np.array(v.numpy())) for v in (*model.variables, *model.optimizer.variables)]

    def judged(rate):
        keras.utils.set_random_seed(0)
        for variable, value in first:
            variable.assign(value)
        model.optimizer.learning_rate = rate
        history = model.fit(*train, batch_size=32, epochs=epochs, verbose=0, validation_data=validation).history
        for variable, value in first:
            variable.assign(value)
        return float(np.nan_to_num(min(history["val_loss"]), nan=np.inf))

    return judged


class Interrupting(keras.utils.PyDataset):
    """Serve noise, and have the user press Ctrl-C, or anything else, after some batches."""

    def __init__(self, error=None, after=7, batches=3):
        super().__init__()
        self.error, self.after, self.served, self.batches = error, after, 0, batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        self.served += 1
        if self.error is not None and self.served > self.after:
            raise self.error
        rng = np.random.default_rng(index)
        return rng.normal(size=(8, 64)).astype("float32"), np.arange(8) % 10


OPTIMIZERS = {
    "schedule": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), 8.0),
    "averages": lambda: keras.optimizers.Adam(0.01, use_ema=True),
}


@pytest.mark.parametrize(
    ("name", "error"),
    [("schedule", None), ("loss scale", KeyboardInterrupt()), ("averages", OSError("no such photograph"))],
    ids=str,
)
def test_the_model_its_optimizer_and_its_random_state_stay_bit_equal(name, error):
    optimizer = OPTIMIZERS[name]()
    model = dense(optimizer, dropout=0.3)
    model.layers[0].trainable = False
    model.compile(optimizer, "sparse_categorical_crossentropy")
    x, y = digits()
    model.fit(x[:64], y[:64], verbose=0)
    before = state(model)
    if error is None:
        found = find_learning_rate(model, Interrupting(), steps=20, end=0.1)
        assert len(found.rates) == 20 and not found.diverged
    else:
        with pytest.raises(type(error)):
            find_learning_rate(model, Interrupting(error), steps=20)
    assert same(before, state(model)) and model.optimizer is optimizer
    assert not any(name.startswith("kresnets") for name in vars(model))


@pytest.mark.everything
def test_it_trains_what_trains_at_the_rates_it_says_from_the_state_that_is_there():
    # The copy's first losses are those of the model trained by Keras at those very rates.
    model = kresnets.freeze(tiny(dropout=0.2), through="stage1", batchnorm="train")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x, y = data()
    model.fit(x, y, batch_size=6, epochs=2, shuffle=False, verbose=0)

    class Parts(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return x[index * 6 : index * 6 + 6], y[index * 6 : index * 6 + 6]

    found = find_learning_rate(model, Parts(), steps=20, start=1e-4, end=1e-2)
    for step, rate in enumerate(found.rates):
        model.optimizer.learning_rate = rate
        model.reset_metrics()
        loss = float(model.train_on_batch(*Parts()[step % 4], return_dict=True)["loss"])
        assert loss == pytest.approx(found.losses[step], rel=1e-3)
    assert found.rates[0] == pytest.approx(1e-4) and found.rates[-1] == pytest.approx(1e-2)


def test_ratios_scale_the_groups_and_preprocessing_is_that_of_the_weights():
    x, y = data()
    images = np.clip(x * 40 + 100, 0, 255)
    model = tiny()
    frozen = dict.fromkeys(["stem", "stage1", "stage2", "stage3"], 0.0)
    options = {"optimizer": "sgd", "steps": 20, "start": 1e-3, "end": 1.0}
    with_ratios = find_learning_rate(model, (images, y), preprocess=True, ratios=frozen, **options)
    preprocessed = kresnets.preprocessing_of(model)(images, "channels_last")
    by_hand = find_learning_rate(model, (preprocessed, y), ratios=frozen, **options)
    np.testing.assert_allclose(with_ratios.losses, by_hand.losses, rtol=1e-5)
    all_train = find_learning_rate(model, (preprocessed, y), **options)
    assert not np.allclose(by_hand.losses, all_train.losses, rtol=1e-3)


@pytest.mark.everything
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: keras.optimizers.Adam(rate),
        pytest.param(lambda rate: keras.optimizers.SGD(rate), marks=pytest.mark.everything),
        pytest.param(lambda rate: keras.optimizers.SGD(rate, momentum=0.9), marks=pytest.mark.everything),
    ],
    ids=["adam", "sgd", "momentum"],
)
def test_the_suggestion_is_within_the_best_third_of_a_grid(make, tmp_path):
    x, y = digits()
    found = find_learning_rate(dense(make(0.1)), (x[:1200], y[:1200]))
    assert found.diverged or found.rates[-1] == pytest.approx(10)

    judged = judge_of(dense(make(0.1)), (x[:1200], y[:1200]), (x[1200:], y[1200:]), epochs=2)
    grid = [judged(rate) for rate in np.geomspace(1e-5, 10, 7)]
    assert sum(loss < judged(found.suggestions["valley"]) for loss in grid) <= 2
    found.plot(tmp_path / "rate.png")
    assert Image.open(tmp_path / "rate.png").size == (900, 420)
    with pytest.raises(ValueError, match="must be one of steepest, valley"):
        found.plot(tmp_path / "rate.png", "minimum")


def test_the_rules_on_a_curve_with_known_places():
    rates = np.geomspace(1e-5, 1, 51)
    # Flat but for noise that never falls twice, 24 steps down, then up: the middle of the descent, and its steepest.
    losses = np.concatenate([2 + 0.01 * (np.arange(16) % 2), np.linspace(1.9, 0.5, 24), np.linspace(0.6, 5, 11)])
    losses[30:] -= 0.3
    found = suggest(rates, losses)
    assert found["steepest"] == rates[29]
    assert rates[25] <= found["valley"] <= rates[28]


def test_tf_data_and_arrays_with_weights_and_fewer_batches_than_steps():
    import tensorflow as tf

    x, y = digits()
    dataset = tf.data.Dataset.from_tensor_slices((x[:70], y[:70], np.ones(70, "float32"))).batch(32)
    by_dataset = find_learning_rate(dense(), dataset, steps=25, end=1.0)
    endless = find_learning_rate(dense(), dataset.repeat(), steps=25, end=1.0)
    np.testing.assert_array_equal(by_dataset.losses, endless.losses)
    weighted = find_learning_rate(dense(), (x[:70], y[:70], np.zeros(70)), steps=25, end=1.0)
    assert len(by_dataset.rates) == 25 and not weighted.losses.any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"start": 0}, "`start` must be a number above 0"),
        ({"end": 1e-7}, "`end` must be a number above `start`"),
        ({"steps": 5}, "`steps` must be"),
        ({"smoothing": 1}, "`smoothing` must be"),
        ({"stop": 1}, "`stop` must be"),
        ({"start": 1e6, "end": 1e9}, "too early to read a rate off"),
        ({"optimizer": "adamm"}, "must be a Keras optimizer"),
        ({"train": [1, 2]}, "`train` must be a tf.data.Dataset"),
        ({"train": (np.zeros((3, 64)), np.zeros(2))}, "of one length"),
        ({"train": Interrupting(batches=0)}, "has no batches"),
        ({"model": "frozen"}, "has nothing that trains"),
        ({"model": keras.Model()}, "Functional or Sequential"),
        ({"model": "raw"}, "is not compiled: give `optimizer`"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, sentence):
    model = arguments.pop("model", None) or dense("sgd")
    if model == "raw":
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    elif model == "frozen":
        model = dense()
        model.trainable = False
    x, y = digits()
    train = arguments.pop("train", (x[:64], y[:64]))
    with pytest.raises(ValueError, match=sentence) as caught:
        find_learning_rate(model, train, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.everything
@pytest.mark.jax
def test_the_same_on_jax():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-m", "not everything"]
    chosen = "bit_equal or tf_data"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([*command, "-k", chosen], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) == 4


def _elpv():
    from kresnets.data import load_data

    part = load_data("elpv", limit=480, progress=False)
    return [
        [np.concatenate(parts) for parts in zip(*((x.numpy(), y.numpy()) for x, y in one.batches(64, 32)))]
        for one in (part.train, part.validation)
    ]


ELPV = {
    "CifarResNet20, AdamW": ("CifarResNet20", lambda: keras.optimizers.AdamW(), None),
    "CifarResNet20, SGD with momentum": ("CifarResNet20", lambda: keras.optimizers.SGD(momentum=0.9), None),
    "CifarPlainNet20, AdamW": ("CifarPlainNet20", lambda: keras.optimizers.AdamW(), None),
    "CifarResNet20, last stage, Adam": ("CifarResNet20", lambda: keras.optimizers.Adam(), "stage2"),
    "CifarResNet20, head, AdamW": ("CifarResNet20", lambda: keras.optimizers.AdamW(), "stage3"),
}


@pytest.mark.everything
def test_on_elpv_the_suggestion_is_within_the_best_third_in_4_of_5_settings():
    (x, y), (vx, vy) = _elpv()
    good = 0
    for name, (network, make, frozen) in ELPV.items():
        keras.utils.set_random_seed(0)
        model = getattr(kresnets, network)(classes=2)
        if frozen:
            kresnets.freeze(model, frozen, "train")
        model.compile(make(), "sparse_categorical_crossentropy")
        as_wanted = kresnets.preprocessing_of(model)
        train, judge = as_wanted(x, "channels_last"), as_wanted(vx, "channels_last")
        judged = judge_of(model, (train, y), (judge, vy), epochs=6)
        found = find_learning_rate(model, (train, y))
        losses = {float(rate): judged(rate) for rate in np.geomspace(1e-5, 10, 7)}
        at = {rule: judged(rate) for rule, rate in found.suggestions.items()}
        better = {rule: sum(loss < one for loss in losses.values()) for rule, one in at.items()}
        good += better["valley"] <= 2
        print(name, found.suggestions, at, "better of 7:", better, losses, flush=True)
    assert good >= 4
