"""The same model in Keras's own layers, for people without kresnets."""

import keras

from kresnets.keras_hooks.graph import has_graph
from kresnets.networks.copying import copied, copy_flags


def as_plain_keras(model: keras.Model) -> keras.Model:
    """Copy a model with every layer of kresnets replaced by Keras's own.

    The copy computes the same numbers and its `.keras` file loads wherever Keras is, at Keras's speed. It no longer
    says how its weights want their images (`kresnets.preprocessing_of` gives None): note it down.

    Args:
        model: a Functional Keras model, nested ones included.

    Returns:
        A new, uncompiled model with the same names, weights and `trainable` flags.

    Raises:
        ValueError: for anything but a Functional or Sequential model that has been built.

    Example:
        >>> import kresnets
        >>> plain = kresnets.as_plain_keras(kresnets.CifarResNet20())
        >>> {type(layer).__module__.split(".")[0] for layer in plain.layers}
        {'keras'}
    """
    if not isinstance(model, keras.Model) or not has_graph(model):
        raise ValueError(
            "`as_plain_keras` takes a Functional or Sequential Keras model that has been built. Received: "
            f"{type(model).__name__}"
        )
    copy = copied(model, _plain)
    copy.set_weights(model.get_weights())
    copy_flags(model, copy)
    return copy


def _plain(layer):
    if isinstance(layer, keras.Model):
        return as_plain_keras(layer)
    config = _in_keras(keras.saving.serialize_keras_object(layer))
    config.pop("build_config", None)  # it would be built here, outside of the model that holds it
    return keras.saving.deserialize_keras_object(config)


def _in_keras(config):
    # All the way down: a layer that wraps others holds their configs in its own.
    if isinstance(config, list):
        return [_in_keras(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _in_keras(value) for key, value in config.items()}
    if config.get("registered_name") == "kresnets>BatchNormalization":
        config |= {"module": "keras.layers", "registered_name": None}
        for ours in ("preprocessing", "origin"):
            config["config"].pop(ours, None)
    return config
