"""Layers made again from their configs, and whole models of them."""

from kresnets.copying import copied, remade

_LIBRARIES = ("keras", "kresnets")


def recreated(model, replace):
    """Copy a model with its weights, and some of its layers replaced.

    Args:
        model: a Functional or Sequential Keras model that has been built.
        replace: function that is given a layer (or operation) and returns what stands in its place, or None for the
            same again. What is built already keeps its weights; what is not gets those of the layer.

    Returns:
        A new, uncompiled model of the same name.

    Raises:
        ValueError: where a layer cannot be made again from its config.
    """
    pairs = []

    def copy_layer(layer):
        new = replace(layer)
        if new is None or not new.built:
            new = new or twin(layer)
            pairs.append((layer, new))
        return new

    copy = copied(model, copy_layer)
    for mine, its in pairs:
        if getattr(its, "weights", None):  # an operation on tensors has none
            its.set_weights(mine.get_weights())
    return copy


def is_of_a_library(layer):
    """Whether a layer is Keras's or ours, so that its config is known to tell all of it."""
    return type(layer).__module__.split(".")[0] in _LIBRARIES


def twin(layer, **changes):
    """Make a layer again from its config, with some of it changed, to be given weights.

    Nothing is drawn, which would move the random numbers of what the user builds next: a library's layer starts at 0.
    """
    zeros = {}
    if is_of_a_library(layer):
        config = layer.get_config()
        zeros = {key: "zeros" for key in config if key.endswith("_initializer") and config[key] is not None}
    return remade(layer, **changes | zeros)
