"""The same model in Keras's own layers, for people without kresnets."""

import keras

from kresnets.keras_hooks.graph import has_graph, with_inner
from kresnets.networks.copying import copied, copy_flags
from kresnets.networks.layers import BlurPooling2D, Conv2D

_OURS = ("kresnets>BatchNormalization", "kresnets>GroupNormalization", "kresnets>Conv2D")


def as_plain_keras(model: keras.Model) -> keras.Model:
    """Copy a model with every layer of kresnets replaced by Keras's own.

    The copy computes the same numbers and its `.keras` file loads wherever Keras is, at Keras's speed. It no longer
    says how its weights want their images (`kresnets.preprocessing_of` gives None): note it down. Filters that are
    standardized before they are used (BiT) are so once and for all: trained on, it is another network.

    Args:
        model: a Functional Keras model, nested ones included.

    Returns:
        A new, uncompiled model with the same names, weights and `trainable` flags.

    Raises:
        ValueError: for anything but a Functional or Sequential model that has been built, and for layers that Keras
            has none for (an anti-aliased network's).

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
    for mine, its in zip(with_inner(model), with_inner(copy), strict=True):
        if isinstance(mine, Conv2D):
            its.kernel.assign(mine.standardized(mine.kernel))
    copy_flags(model, copy)
    return copy


def _plain(layer):
    if isinstance(layer, keras.Model):
        return as_plain_keras(layer)
    if isinstance(layer, BlurPooling2D):
        raise ValueError(f"{layer.name!r} blurs, and no layer of Keras does: this model has no copy in plain Keras.")
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
    if config.get("registered_name") in _OURS:
        config |= {"module": "keras.layers", "registered_name": None}
        for ours in ("preprocessing", "origin", "task", "standardize"):
            config["config"].pop(ours, None)
    return config
