"""A model's graph once more, layer by layer."""

import keras

from kresnets.features import has_graph
from kresnets.recompute import Recomputing


def copied(model, copy_layer):
    """Copy the graph of a model and of the models nested in it, without their weights.

    Args:
        model: a Functional or Sequential Keras model that has been built.
        copy_layer: function that is given each layer (or operation), and each nested model without a graph, and returns
            what stands in its place.

    Returns:
        A new, uncompiled model of the same name.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> double = copied(model, lambda layer: type(layer).from_config(layer.get_config() | {"units": 6}))
        >>> double.output_shape
        (None, 6)
    """
    # clone_model would compile the copy too, with what may be known here alone, and make it recompute.
    if model.compiled or isinstance(model, Recomputing):
        ends = (ends[0] if len(ends) == 1 else ends for ends in (model.inputs, model.outputs))
        model = keras.Model(*ends, name=model.name)

    def copy_one(layer):
        nested = isinstance(layer, keras.Model) and has_graph(layer)
        return copied(layer, copy_layer) if nested else copy_layer(layer)

    return keras.models.clone_model(model, clone_function=copy_one)


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
