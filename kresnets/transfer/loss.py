"""The loss of a model that is given none: cross-entropy, on probabilities or on logits, whichever the model gives."""

import keras
import numpy as np

from kresnets.keras_hooks.graph import last_activation


def gives_probabilities(model):
    """Whether a model's scores are probabilities already, however it says its softmax or sigmoid.

    Where its end does not tell (an operation of one's own), two images of noise do: who gives probabilities gives rows
    of 0..1 that sum to 1.
    """
    activation = last_activation(model)
    if activation in ("softmax", "sigmoid", "linear"):
        return activation != "linear"
    shape = [side or 64 for side in model.input_shape[1:]]
    noise = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype("float32")
    scores = keras.ops.convert_to_numpy(keras.ops.cast(model(noise, training=False), "float32"))
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=-1), 1, atol=1e-2))


def cross_entropy(model, one_hot=False, label_smoothing=0.0):
    """Return the Keras loss of a model for integer labels, or for one-hot ones.

    Args:
        model: a Keras model from images to class scores.
        one_hot: whether labels come one-hot. Defaults to False.
        label_smoothing: of one-hot labels, 0 to 1. Defaults to 0.
    """
    from_logits = not gives_probabilities(model)
    if one_hot:
        return keras.losses.CategoricalCrossentropy(from_logits=from_logits, label_smoothing=label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
