"""What labels and scores mean, the loss that goes with them, numbers that are none, and images preprocessed twice."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import SHORT, photographs, tiny
from places import ROOT
from sklearn.metrics import accuracy_score, log_loss

import kresnets
from kresnets.export import read_card
from kresnets.transfer.labels import Labels

L = keras.layers
HEADS = {
    "dense": lambda x: L.Dense(3, "softmax", name="d")(x),
    "layer": lambda x: L.Softmax()(L.Dense(3, name="d")(x)),
    "operation": lambda x: keras.ops.softmax(L.Dense(3, name="d")(x)),
    "float32 activation": lambda x: L.Activation("softmax", dtype="float32")(L.Dense(3, name="d")(x)),
    "linear behind it": lambda x: L.Activation("linear", dtype="float32")(L.Dense(3, "softmax", name="d")(x)),
    "cast behind it": lambda x: keras.ops.cast(L.Dense(3, "softmax", name="d")(x), "float32"),
    "sequential": lambda x: keras.Sequential([L.Dense(3, name="d"), L.Activation("softmax")])(x),
    "ensemble": lambda x: (L.Dense(3, "softmax", name="d")(x) * 2 + 0) / 2,
}
LOGITS = {"logits": lambda x: L.Dense(3, name="d")(x), "cooled": lambda x: L.Dense(3, name="d")(x) / 1.0}


def losses(head):
    """The losses of two epochs of fine-tuning a small net with this end, always the same but for how it is said."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, strides=2, activation="relu", name="c")(x)
    model = keras.Model(inputs, head(L.GlobalAveragePooling2D(name="p")(x)))
    rng = np.random.default_rng(0)
    for layer in (one for one in model._flatten_layers() if one.name in "cd"):
        layer.set_weights([rng.normal(size=weight.shape) * 0.3 for weight in layer.get_weights()])
    images, labels = rng.integers(0, 256, (24, 16, 16, 3)), np.arange(24) % 3
    recipe = kresnets.Recipe(head="trained", stages=(), head_epochs=2, learning_rate=0.05, augment="none", mixup=0.0)
    groups = {"early": "c", "head": "d|.*sequential.*"}
    return kresnets.fine_tune(
        model, (images, labels), recipe=recipe, preprocess="tf", groups=groups, verbose=0, pretrained=True
    ).history["loss"]


@pytest.mark.always("float32")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_the_same_however_the_softmax_is_said(policy):
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        wanted = losses(LOGITS["logits"])
        for name, head in (HEADS | LOGITS).items():
            np.testing.assert_allclose(losses(head), wanted, atol=2e-3 if policy == "float32" else 2e-2, err_msg=name)
    finally:
        keras.mixed_precision.set_dtype_policy(before)


@pytest.mark.everything
@pytest.mark.jax
@pytest.mark.slow
def test_on_jax_too():
    script = (
        "import numpy as np, test_labels as t\nwanted = t.losses(t.LOGITS['logits'])\n"
        "for name, head in (t.HEADS | t.LOGITS).items():\n"
        "    np.testing.assert_allclose(t.losses(head), wanted, atol=2e-3, err_msg=name)\n"
    )
    run = [sys.executable, "-c", f"import sys; sys.path[:0] = ['tests/transfer', 'tests/support']\n{script}"]
    import os

    done = subprocess.run(run, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def small(units=3, end="softmax", seed=0):
    """A small net that carries its preprocessing, with a head of so many units."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, strides=4, activation="relu", name="c")(x)
    x = kresnets.layers.BatchNormalization(preprocessing={"mode": "tf"}, name="n")(x)
    return keras.Model(inputs, L.Dense(units, end, name="d")(L.GlobalAveragePooling2D(name="p")(x)), name="small")


GROUPS = {"early": "c|n", "head": "d"}
QUICK = kresnets.Recipe(head="trained", stages=(), head_epochs=2, learning_rate=0.05, augment="none")
RNG = np.random.default_rng(0)
Y = np.arange(24) % 2
X = np.clip(RNG.normal(80 + 60 * Y[:, None, None, None], 30, (24, 16, 16, 3)), 0, 255).astype("uint8")


def tuned(model, labels, recipe=QUICK, images=X, **options):
    """Fine-tune, quickly; return the history."""
    options = dict(groups=GROUPS, pretrained=True, verbose=0) | options
    return kresnets.fine_tune(model, (images, labels), options.pop("validation", None), recipe, **options)


def answers(model, images=X):
    return model.predict(kresnets.preprocess_input(images.astype("float32"), mode="tf"), verbose=0)


def test_one_sigmoid_unit_learns_two_classes_in_whatever_form_they_come():
    expected = log_loss(Y, answers(small(1, "sigmoid"))[:, 0])  # scikit-learn's
    forms = [Y, Y[:, None], Y.astype(bool), Y.astype("float32"), np.eye(2)[Y]]
    model = small(1, "sigmoid")
    wanted = tuned(model, Y, validation=(X, Y)).history
    assert wanted["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert wanted["val_loss"][-1] == pytest.approx(log_loss(Y, answers(model)[:, 0]), rel=1e-4)
    assert wanted["val_accuracy"][-1] == pytest.approx(accuracy_score(Y, answers(model)[:, 0] > 0.5))
    assert kresnets.task_of(model) == "classes"
    for labels in forms[1:]:
        np.testing.assert_allclose(tuned(small(1, "sigmoid"), labels).history["loss"], wanted["loss"], rtol=1e-5)
    with pytest.raises(ValueError, match="has 1 output without a sigmoid.*task='classes'"):
        tuned(small(1, None), Y)
    logits = tuned(small(1, None), Y, task="classes", validation=(X, Y)).history
    for name in ("loss", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(logits[name], wanted[name], rtol=1e-4, err_msg=name)


def test_a_solved_sigmoid_is_the_solved_softmax_of_two():
    recipe = dataclasses.replace(QUICK, head="solved", head_epochs=1, learning_rate=1e-9)
    one, two = small(1, "sigmoid"), small(2)
    two.get_layer("c").set_weights(one.get_layer("c").get_weights())
    for model in (one, two):
        assert tuned(model, Y, recipe, cache=True).plan.facts.solvable
    np.testing.assert_allclose(answers(one)[:, 0], answers(two)[:, 1], atol=1e-4)
    assert accuracy_score(Y, answers(one)[:, 0] > 0.5) == 1


@pytest.mark.always("{'head': 'solved'}")
@pytest.mark.parametrize("extra", [{}, {"mixup": 0.2}, {"head": "solved"}, {"label_smoothing": 0.1}], ids=str)
def test_one_hot_labels_are_the_classes_that_they_stand_for(extra):
    labels = np.arange(24) % 3
    recipe, rows = dataclasses.replace(QUICK, **extra), np.eye(3)[labels]
    weights = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}
    wanted = tuned(small(), labels, recipe, validation=(X, labels), **weights).history
    forms = [(rows, rows), (rows.astype(bool), labels)]
    if "label_smoothing" in extra:  # smoothed by hand; or one-hot, to be smoothed
        with_own = dataclasses.replace(recipe, label_smoothing=0.0)
        found = tuned(small(), rows * 0.9 + 0.1 / 3, with_own, **weights).history
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    for given, judged in forms:
        found = tuned(small(), given, recipe, validation=(X, judged), **weights).history
        for name in ("loss", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


def test_datasets_of_one_hot_labels_and_balanced_weights():
    import tensorflow as tf

    labels = np.minimum(np.arange(24), 20) % 3
    wanted = tuned(small(), labels, class_weight="balanced").history["loss"]
    dataset = tf.data.Dataset.from_tensor_slices((X, np.eye(3)[labels])).batch(24)
    # Of unknown shape too, as `py_function` leaves it.
    unknown = dataset.map(lambda x, y: (x, tf.py_function(lambda one: one, [y], tf.float64)))
    for source in (dataset, unknown):
        history = kresnets.fine_tune(
            small(), source, recipe=QUICK, groups=GROUPS, pretrained=True, verbose=0, class_weight="balanced"
        )
        np.testing.assert_allclose(history.history["loss"], wanted, rtol=1e-5)


@pytest.mark.everything
def test_several_labels_are_learned_and_served_each_for_itself(tmp_path):
    import tensorflow as tf

    with pytest.raises(ValueError, match=r"`train`: labels must be rows \(n, 3\)"):
        whole_numbers = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
        kresnets.fine_tune(small(3, None), whole_numbers, recipe=QUICK, groups=GROUPS, task="labels", verbose=0)
    labels = np.stack([Y, 1 - Y, np.ones(24, int)], axis=1)
    logits, sigmoids = small(3, None), small(3, "sigmoid")
    before = 1 / (1 + np.exp(-answers(logits)))
    wanted = tuned(logits, labels, validation=(X, labels)).history
    by_scikit_learn = np.mean([log_loss(labels[:, one], before[:, one], labels=[0, 1]) for one in range(3)])
    assert wanted["loss"][0] == pytest.approx(by_scikit_learn, rel=1e-4)
    shares = 1 / (1 + np.exp(-answers(logits)))
    assert wanted["val_accuracy"][-1] == pytest.approx(np.mean((shares > 0.5) == labels), abs=1e-6)
    np.testing.assert_allclose(tuned(sigmoids, labels).history["loss"], wanted["loss"], rtol=1e-4)
    assert kresnets.task_of(logits) == kresnets.task_of(sigmoids) == "labels"
    logits.save(tmp_path / "logits.keras")
    again = keras.saving.load_model(tmp_path / "logits.keras", compile=False)
    folder = kresnets.export_saved_model(again, tmp_path / "served", labels=["bright", "dark", "any"])
    served = tf.saved_model.load(str(folder)).signatures
    png = tf.io.encode_png(X[0]).numpy()
    answer = served["serving_default"](image_bytes=tf.constant([png]))
    np.testing.assert_allclose(answer["scores"][0], np.sort(shares[0])[::-1], atol=1e-4)
    assert read_card(folder)["task"] == "labels"
    # Another head on the same trunk may mean something else.
    other = keras.Model(again.inputs, L.Dense(4, name="other")(again.layers[-2].output))
    assert kresnets.task_of(other) is None and kresnets.task_of(keras.models.clone_model(again)) == "labels"


@pytest.mark.everything
def test_export_asks_what_logits_are_for(tmp_path):
    import tensorflow as tf

    model = small(3, None)
    with pytest.raises(ValueError, match="3 outputs without a softmax or sigmoid.*task='classes'.*task='labels'"):
        kresnets.export_saved_model(model, tmp_path / "asked")
    images = X[:2].astype("float32")
    for task, expected in (("classes", tf.nn.softmax), ("labels", tf.sigmoid)):
        served = tf.saved_model.load(str(kresnets.export_saved_model(model, tmp_path / task, task=task))).signatures
        found = served["predict_tensor"](images=tf.constant(images))["probabilities"]
        np.testing.assert_allclose(found, expected(answers(model, images)), atol=1e-5)
    with pytest.raises(ValueError, match="softmax, whose scores sum to 1"):
        kresnets.export_saved_model(small(), tmp_path / "asked", task="labels")
    assert not (tmp_path / "asked").exists()


MANY = np.stack([Y, Y, 1 - Y], axis=1)


@pytest.mark.parametrize(
    ("model", "labels", "options", "sentence"),
    [
        ((3, "softmax"), MANY, {}, "sum to 1, 3 an image; where an image may have several labels"),
        ((3, "softmax"), MANY, {"task": "labels"}, "ends in a softmax"),
        ((3, None), MANY, {"class_weight": "balanced"}, "`class_weight` goes with task='classes'"),
        ((3, None), Y, {"task": "labels"}, r"rows \(n, 3\) of a 1 for each label"),
        ((3, None), MANY[:, :2], {}, r"labels must be .*n, 3\).*Received shape: \(24, 2\)"),
        ((3, "sigmoid"), MANY * 2, {}, "numbers 0 to 1, 3 an image"),
        ((1, "sigmoid"), Y + 1, {}, "whole numbers 0 to 1"),
        ((1, "softmax"), Y * 0, {}, "has 1 output behind a softmax"),
        ((2, "softmax"), Y, {"task": "numbers"}, "ends in a softmax.*end the model with a Dense layer"),
        ((2, "softmax"), Y, {"task": "tags"}, "`task` must be 'classes', 'labels', 'numbers', or 'auto'"),
    ],
)
def test_labels_that_do_not_fit_get_a_sentence(model, labels, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tuned(small(*model), labels, **options)


def test_a_fit_after_fine_tune_learns_at_a_plain_rate(tmp_path):
    model = small()
    tuned(model, np.arange(24) % 3)
    rate = model.optimizer.learning_rate
    assert isinstance(rate, keras.Variable) and float(rate.numpy()) == pytest.approx(0.05)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    for mine, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
    prepared, before = kresnets.preprocess_input(X.astype("float32"), mode="tf"), model.get_layer("d").get_weights()[0]
    for one in (model, again):
        one.fit(prepared, np.arange(24) % 3, batch_size=24, epochs=1, shuffle=False, verbose=0)
    moved = np.abs(model.get_layer("d").get_weights()[0] - before).max()
    assert 0.001 < moved < 0.2  # a step of Adam is about the rate
    np.testing.assert_allclose(again.get_layer("d").get_weights()[0], model.get_layer("d").get_weights()[0], atol=1e-6)


def test_what_left_the_signature_goes_on_working():
    with pytest.warns(DeprecationWarning, match="initial_epoch.*Plan"):
        assert tuned(small(), np.arange(24) % 3, initial_epoch=1).epoch == [1]
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        tuned(small(), np.arange(24) % 3, epochs=1)


class Poison(keras.callbacks.Callback):
    """Make the head's weights NaN when a batch of an epoch begins, or ends."""

    def __init__(self, epoch, batch, when="begin"):
        super().__init__()
        self._at, self._when, self._epoch, self.kept = (epoch, batch), when, 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._spoil("begin", batch)

    def on_train_batch_end(self, batch, logs=None):
        self._spoil("end", batch)

    def on_epoch_end(self, epoch, logs=None):
        self.kept = self.model.get_weights()

    def _spoil(self, when, batch):
        if (self._epoch, batch, self._when) == (*self._at, when):
            kernel = self.model.get_layer("d").kernel
            kernel.assign(kernel * float("nan"))


MORE = np.concatenate([X, X])  # two batches an epoch


@pytest.mark.always("loss-True", "weights-False")
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("poison", "sentence"),
    [
        (dict(epoch=1, batch=1), "The loss was nan from step 1 of epoch 1 on"),
        (dict(epoch=1, batch=1, when="end"), "Weights were no numbers after the last step of epoch 1.*first d/kernel"),
    ],
    ids=["loss", "weights"],
)
def test_nan_stops_the_training_at_the_last_good_epoch(tmp_path, poison, sentence, cache):
    labels = np.arange(48) % 3
    options = dict(images=MORE, state_dir=tmp_path, validation=(X, labels[:24]), cache=cache)
    model, poison = small(), Poison(**poison)
    with pytest.raises(FloatingPointError, match=sentence + r".*weights are those of epoch 0\. Try lower rates"):
        tuned(model, labels, callbacks=[poison], **options)
    for mine, theirs in zip(model.get_weights(), poison.kept, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-0000.weights.h5"]
    assert not (tmp_path / "done").exists() and "Try lower rates" in (tmp_path / "stopped.txt").read_text()
    # The model is fit to go on with: neither its weights nor its optimizer hold NaN.
    prepared = kresnets.preprocess_input(X.astype("float32"), mode="tf")
    assert np.isfinite(model.fit(prepared, labels[:24], verbose=0).history["loss"]).all()
    # Begun again, the run says so again, and gives the same weights.
    again = small(seed=1)
    with pytest.raises(FloatingPointError, match=sentence):
        tuned(again, labels, **options)
    for mine, theirs in zip(again.get_weights(), poison.kept, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Whoever takes the note away goes on where it was good.
    (tmp_path / "stopped.txt").unlink()
    assert tuned(small(), labels, **options).epoch == [0, 1]


@pytest.mark.everything
def test_nan_in_the_first_epoch_and_in_the_validation_alone():
    labels, model = np.arange(24) % 3, small()
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="The loss was nan from step 0 of epoch 0 on.*no epoch was good"):
        tuned(model, labels, callbacks=[Poison(0, 0)])
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    import tensorflow as tf

    # By weights, not pixels: some processors' ReLU makes 0 of a number that is none.
    weights = np.where(np.arange(24) == 3, np.nan, 1.0)
    validation = tf.data.Dataset.from_tensor_slices((X, labels, weights)).batch(24)
    with pytest.raises(FloatingPointError, match="The validation loss was nan in epoch 0, though loss and weights"):
        tuned(small(), labels, validation=validation)


def trunk_behind(*steps):
    """A small trunk of ours, which carries its preprocessing, behind layers or operations of a user's own."""
    x = inputs = keras.Input((32, 32, 3))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, kresnets.CifarResNet8(weights=None, classes=2)(x))


TWICE = {
    "rescaling": [L.Rescaling(1 / 255)],
    "normalization": [lambda x: L.Normalization(mean=127.0, variance=9.0)(x)],
    "operations": [lambda x: x / 127.5 - 1],
    "keras.applications": [lambda x: keras.applications.resnet.preprocess_input(x)],
    "ours": [lambda x: kresnets.preprocess_input(x, mode="torch")],
    "behind augmentation": [L.RandomFlip(), keras.Sequential([L.RandomRotation(0.1), L.Rescaling(1 / 255)])],
    "in a pipeline": [L.Pipeline([L.RandomFlip(), L.Rescaling(1 / 255)])],
    "an operation of a kind of its own": [keras.ops.tanh],
}
UNSURE = {
    "a layer of one's own": [lambda x: Halves()(x)],
    "lambda": [L.Lambda(lambda x: x / 255)],
    "activation": [L.Activation("tanh")],
    "the other order of channels": [lambda x: x[..., ::-1]],
}


class Halves(L.Layer):
    def call(self, x):
        return x / 2


PLAIN = [L.RandomFlip(), L.Resizing(40, 40), L.CenterCrop(32, 32), lambda x: keras.ops.cast(x, "float32")]


@pytest.mark.parametrize("name", TWICE)
def test_images_are_not_preprocessed_twice(name, tmp_path):
    model = trunk_behind(*TWICE[name])
    data = np.zeros((4, 32, 32, 3), "uint8"), np.arange(4) % 2
    assert kresnets.preprocessing_of(model).mode == "torch"
    with pytest.raises(ValueError, match="before its first weights, and would get them preprocessed .torch. besides"):
        kresnets.fine_tune(model, data, verbose=0)
    with pytest.raises(ValueError, match="give preprocess='none' if they are then as the weights want them"):
        kresnets.export_saved_model(model, tmp_path / "served", labels=["a", "b"])
    assert not (tmp_path / "served").exists()


def test_what_changes_no_pixel_is_no_preprocessing():
    assert kresnets.preprocess.preprocessing_for(trunk_behind(*PLAIN)).mode == "torch"
    for network in (kresnets.ResNet18, kresnets.InceptionV3, kresnets.ResNet50V2):
        model = network(weights=None, input_shape=(96, 96, 3))
        assert kresnets.preprocess.preprocessing_for(model) == kresnets.preprocessing_of(model)
    for steps in (
        [L.Lambda(lambda x: x)],
        [L.Rescaling(1.0)],
        [L.RandomContrast(0.2), L.RandomBrightness(0.2), L.GaussianNoise(0.5)],
        [lambda x: L.Add()([x, L.Conv2D(3, 3, padding="same")(x)])],  # weights have met them
        [lambda x: L.Multiply()([x, L.Dense(3, "sigmoid")(L.GlobalAveragePooling2D()(x))])],
    ):
        assert kresnets.preprocess.preprocessing_for(trunk_behind(*steps)).mode == "torch"


@pytest.mark.parametrize("name", UNSURE)
def test_what_may_be_preprocessing_is_asked_about(name):
    model = trunk_behind(*UNSURE[name])
    with pytest.raises(ValueError, match=r"may change its images by .*or say preprocess='torch'"):
        kresnets.preprocess.preprocessing_for(model)
    assert kresnets.preprocess.preprocessing_for(model, "torch").mode == "torch"


@pytest.mark.everything
def test_a_model_that_preprocesses_by_itself_is_served_as_it_is(tmp_path):
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=(64, 64, 3), classes=2)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    with pytest.raises(ValueError, match="Rescaling"):
        kresnets.export_saved_model(model, tmp_path / "served", labels=["a", "b"], preprocess="tf")
    folder = kresnets.export_saved_model(model, tmp_path / "served", labels=["a", "b"], preprocess="none")
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures["predict_tensor"](images=tf.constant(image))
    np.testing.assert_allclose(served["probabilities"], model.predict(image, verbose=0), atol=1e-5)


@pytest.mark.always("arrays")
@pytest.mark.always("arrays", "dataset")
@pytest.mark.parametrize("kind", ["arrays", "dataset", "sequence"])
def test_pixels_0_to_1_are_refused(kind):
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 12, 12, 3), "float32"), np.arange(8) % 2

    class Sequence(keras.utils.PyDataset):
        num_batches = 2

        def __getitem__(self, index):
            return images[4 * index : 4 * index + 4], labels[4 * index : 4 * index + 4]

        def __len__(self):
            return 2

    def source():
        if kind == "dataset":
            import tensorflow as tf

            return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
        return (images, labels) if kind == "arrays" else Sequence()

    model, recipe = tiny(classes=2), dataclasses.replace(SHORT, stages=("stage3",))
    with pytest.raises(
        ValueError, match=r"`train`: the images are within 0..1.*give images \* 255, or preprocess='none'"
    ):
        kresnets.fine_tune(model, source(), recipe=recipe, verbose=0)
    kresnets.fine_tune(model, source(), recipe=recipe, verbose=0, preprocess="none")
    images[:5] = 0  # the first batch is black
    with pytest.raises(ValueError, match="within 0..1"):
        kresnets.fine_tune(tiny(classes=2), source(), recipe=recipe, verbose=0)
    images *= 0  # black: nobody can tell
    kresnets.fine_tune(tiny(classes=2), source(), recipe=recipe, verbose=0)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_images_that_were_preprocessed_already_are_refused(mode):
    images, labels = photographs(8, classes=2)
    wanted = kresnets.preprocess_input(images, mode=mode)
    model, recipe = tiny(classes=2), dataclasses.replace(SHORT, stages=("stage3",))
    with pytest.raises(ValueError, match=r"`train`: the images go from -.* as if they were preprocessed already"):
        kresnets.fine_tune(model, (wanted, labels), recipe=recipe, verbose=0)
    with pytest.raises(ValueError, match=r"`validation`: the images go from -"):
        kresnets.fine_tune(model, (images, labels), (wanted, labels), recipe, verbose=0)
    with pytest.raises(ValueError, match=r"`train`: the images go from -"):
        kresnets.find_learning_rate(model, (wanted, labels), optimizer="adamw", preprocess=True)


def test_a_sigmoid_that_cannot_be_known_is_asked_about():
    """On TensorFlow Keras finds the sigmoid behind a lambda, on JAX it does not: the losses would differ."""
    sigmoid, logits = (
        keras.Sequential([keras.Input((12, 12, 3)), L.GlobalAveragePooling2D(), L.Dense(3), L.Lambda(function)])
        for function in (lambda x: keras.ops.sigmoid(x), lambda x: x / 2)
    )
    with pytest.raises(ValueError, match="ends in lambda, and its scores stay within 0..1: they may be sigmoids"):
        Labels.of(sigmoid, np.eye(3), "labels")
    assert Labels.of(sigmoid, np.eye(3), "labels", keras.losses.BinaryCrossentropy()).scores.task == "labels"
    assert Labels.of(logits, np.eye(3), "labels").scores.activation == "linear"
