"""A model's graph once more, layer by layer."""

import keras

from kresnets.keras_hooks.graph import has_graph, made_by, with_inner
from kresnets.networks.recompute import Recomputing

_LIBRARIES = ("keras", "kresnets")


def copied(model, copy_layer, call_layer=None, keep_class=False):
    """Copy the graph of a model and of the models nested in it, without their weights.

    Args:
        model: a Functional or Sequential Keras model that has been built.
        copy_layer: function that is given each layer (or operation), and each nested model without a graph, and returns
            what stands in its place.
        call_layer: function that is given what `copy_layer` returned and the arguments of its call, and returns the
            outputs; it may add layers behind. Not asked within a Sequential model. Defaults to None: the call alone.
        keep_class: whether a model of a class of its own (`Recomputing`, a user's) is copied as one of this class, and
            not as a Functional model. Defaults to False.

    Returns:
        A new, uncompiled model of the same name.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> double = copied(model, lambda layer: type(layer).from_config(layer.get_config() | {"units": 6}))
        >>> double.output_shape
        (None, 6)
    """

    copy = _copied(model, copy_layer, call_layer, keep_class)
    if copy.dtype_policy != model.dtype_policy:  # a model takes that of the moment, and by it `compile` scales the loss
        copy.dtype_policy = model.dtype_policy
    return copy


def _copied(model, copy_layer, call_layer, keep_class):
    def copy_one(layer):
        nested = isinstance(layer, keras.Model) and has_graph(layer)
        return copied(layer, copy_layer, call_layer, keep_class) if nested else copy_layer(layer)

    # clone_model would compile the copy too, with what may be known here alone, and make it recompute.
    if isinstance(model, keras.Sequential):
        return keras.Sequential([_input_like(model.inputs[0]), *map(copy_one, model.layers)], name=model.name)
    bare = model
    if model.compiled or isinstance(model, Recomputing):
        bare = keras.Model(model.input, model.output, name=model.name)
    inputs = keras.tree.map_structure(_input_like, bare.input)
    copy = keras.models.clone_model(bare, inputs, clone_function=copy_one, call_function=call_layer)
    if not keep_class or type(copy) is type(model):
        return copy
    try:
        return type(model)(copy.input, copy.output, name=model.name)
    except TypeError:  # a class with arguments of its own
        raise ValueError(
            f"{model.name!r} is a {type(model).__name__}, which cannot be made again from inputs and outputs: give "
            "`keras.Model(model.input, model.output)`."
        ) from None


def _input_like(tensor):
    # clone_model names an input layer after its tensor, which has another name where the user gave none.
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=made_by(tensor).name)


def remade(layer, **changes):
    """Make a layer (or operation) again from its config, with some of it changed; without its weights.

    Raises:
        ValueError: where that fails.
    """
    try:
        made = type(layer).from_config(layer.get_config() | changes)
    except Exception as error:  # a user's own layer may raise anything
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made again from its config "
            f"({' '.join(str(error).split())[:200] or type(error).__name__}): give it a `get_config` that tells all "
            "arguments of its `__init__`."
        ) from error
    # No part of the config: it goes with the weights, which come next
    if getattr(made, "preprocessing", None) is not None:
        made.origin = layer.origin
    return made


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
            new = new or empty_copy(layer)
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


def empty_copy(layer, **changes):
    """Make a layer again from its config, with some of it changed, to be given weights.

    Nothing is drawn, which would move the random numbers of what the user builds next: a library's layer starts at 0.
    """
    zeros = {}
    if is_of_a_library(layer):
        config = layer.get_config()
        zeros = {key: "zeros" for key in config if key.endswith("_initializer") and config[key] is not None}
    return remade(layer, **changes | zeros)


def copy_flags(source, target):
    """Give `target`, a copy that may have more layers, and every layer below it the `trainable` flag of its like below
    `source`; those of a model are alike by name."""
    # The outer ones first: setting a model sets what it holds.
    if isinstance(source, keras.Model) and has_graph(source):
        target.trainable = source.trainable
        for layer in source.layers:
            if not isinstance(layer, keras.layers.InputLayer):  # Keras names a clone's otherwise
                copy_flags(layer, target.get_layer(layer.name))
    else:
        for one, other in zip(with_inner(source), with_inner(target), strict=True):
            other.trainable = one.trainable
