"""The same model in Keras's own layers, for people without kresnets."""

import keras

from kresnets.layers import BatchNormalization


def as_plain_keras(model):
    """Copy a model with every layer of kresnets replaced by Keras's own.

    The copy computes the same numbers and its `.keras` file loads wherever Keras is, at Keras's speed. It no longer says how its
    weights want their images (`kresnets.preprocessing_of` gives None): note it down.

    Args:
        model: a Functional Keras model, nested ones included.

    Returns:
        A new, uncompiled model with the same names, weights and `trainable` flags.

    Example:
        >>> import kresnets
        >>> plain = kresnets.as_plain_keras(kresnets.CifarResNet20())
        >>> {type(layer).__module__.split(".")[0] for layer in plain.layers}
        {'keras'}
    """
    copy = keras.models.clone_model(model, clone_function=_plain)
    copy.set_weights(model.get_weights())
    return copy


def _plain(layer):
    if isinstance(layer, keras.Model):
        return as_plain_keras(layer)
    if not isinstance(layer, BatchNormalization):
        return layer.__class__.from_config(layer.get_config())
    config = layer.get_config()
    config.pop("preprocessing", None)
    return keras.layers.BatchNormalization.from_config(config)
