"""ResNet50 of keras.applications, fine-tuned as keras.io/guides/transfer_learning does: the peer of ours."""

import logging
import pathlib


def weights(folder, size):
    """Write a random trunk in keras.applications' layout, the same start for every way, and return its path."""
    import keras

    import kresnets  # noqa: F401  its layers too

    logging.getLogger("absl").setLevel("ERROR")  # the file is of the format called legacy
    keras.utils.set_random_seed(0)
    path = pathlib.Path(folder) / "resnet50_notop.weights.h5"
    keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3)).save_weights(path)
    return path


def build(path, size):
    """Return a frozen base with these weights, in inference mode, and the model of it and a head for two classes."""
    import keras

    base = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3))
    base.load_weights(path)
    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = keras.applications.resnet.preprocess_input(inputs)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    return base, keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def compile_to_train(base, model, prefixes, rate):
    """Let the head learn, and those layers of the base whose names begin so, norms excepted."""
    import keras

    base.trainable = bool(prefixes)
    for layer in base.layers if prefixes else ():
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name.startswith(prefixes) and not norm
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
