"""A model's graph once more, layer by layer."""

import keras

from kresnets.features import has_graph
from kresnets.recompute import Recomputing


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
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)


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
    if getattr(made, "preprocessing", None) is not None:  # no part of the config: it goes with the weights, which come next
        made.origin = layer.origin
    return made


def graphs(model):
    """List a model and the models nested in its graph, each once, from the outside in."""
    found, waiting = {}, [model]
    while waiting:
        one = waiting.pop(0)
        if id(one) not in found:
            found[id(one)] = one
            waiting += [layer for layer in one.layers if isinstance(layer, keras.Model) and has_graph(layer)]
    return list(found.values())


def layers_in_order(model):
    """Yield the layers that an image passes, from the first to the last, each nested model's in its place.

    (`_flatten_layers` gives those of a nested model backwards.)
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and has_graph(layer):
            yield from layers_in_order(layer)
        else:
            yield from layer._flatten_layers()  # no public door opens a wrapper
