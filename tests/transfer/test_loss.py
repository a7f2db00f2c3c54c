"""The loss of a model that is given none, and images that would be preprocessed twice or not at all."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from places import ROOT

import kresnets

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


@pytest.mark.jax
@pytest.mark.slow
def test_on_jax_too():
    script = (
        "import numpy as np, test_loss as t\nwanted = t.losses(t.LOGITS['logits'])\n"
        "for name, head in (t.HEADS | t.LOGITS).items():\n"
        "    np.testing.assert_allclose(t.losses(head), wanted, atol=2e-3, err_msg=name)\n"
    )
    run = [sys.executable, "-c", f"import sys; sys.path[:0] = ['tests/transfer', 'tests/support']\n{script}"]
    import os

    done = subprocess.run(run, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def trunk_behind(*steps):
    """A small trunk of ours, which carries its preprocessing, behind layers or operations of a user's own."""
    x = inputs = keras.Input((32, 32, 3))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, kresnets.CifarResNet20(weights=None, classes=2)(x))


TWICE = {
    "rescaling": [L.Rescaling(1 / 255)],
    "normalization": [lambda x: L.Normalization(mean=127.0, variance=9.0)(x)],
    "operations": [lambda x: x / 127.5 - 1],
    "keras.applications": [lambda x: keras.applications.resnet.preprocess_input(x)],
    "ours": [lambda x: kresnets.preprocess_input(x, mode="torch")],
    "behind augmentation": [L.RandomFlip(), keras.Sequential([L.RandomRotation(0.1), L.Rescaling(1 / 255)])],
}
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
    assert kresnets.preprocess.resolve(trunk_behind(*PLAIN)).mode == "torch"
    for network in (kresnets.ResNet18, kresnets.InceptionV3, kresnets.ResNet50V2):
        model = network(weights=None, input_shape=(96, 96, 3))
        assert kresnets.preprocess.resolve(model) == kresnets.preprocessing_of(model)
    lambdas = trunk_behind(L.Lambda(lambda x: x))
    with pytest.raises(ValueError, match=r"may change its images by lambda.*or say preprocess='torch'"):
        kresnets.preprocess.resolve(lambdas)
    assert kresnets.preprocess.resolve(lambdas, "torch").mode == "torch"


def test_a_model_that_preprocesses_by_itself_is_served_as_it_is(tmp_path):
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=(64, 64, 3), classes=2)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    with pytest.raises(ValueError, match="Rescaling"):
        kresnets.export_saved_model(model, tmp_path / "served", labels=["a", "b"], preprocess="tf")
    folder = kresnets.export_saved_model(model, tmp_path / "served", labels=["a", "b"], preprocess="none")
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures["predict_tensor"](images=tf.constant(image))
    np.testing.assert_allclose(served["probabilities"], model.predict(image, verbose=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "sequence"])
def test_pixels_0_to_1_are_refused(kind):
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 32, 32, 3), "float32"), np.arange(8) % 2

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

    model, recipe = kresnets.CifarResNet20(weights=None, classes=2), kresnets.Recipe.from_scratch(1)
    with pytest.raises(
        ValueError, match=r"`train`: the images are within 0..1.*give images \* 255, or preprocess='none'"
    ):
        kresnets.fine_tune(model, source(), recipe=recipe, verbose=0)
    kresnets.fine_tune(model, source(), recipe=recipe, verbose=0, preprocess="none")
    images *= 0  # black: nobody can tell
    kresnets.fine_tune(kresnets.CifarResNet20(weights=None, classes=2), source(), recipe=recipe, verbose=0)
