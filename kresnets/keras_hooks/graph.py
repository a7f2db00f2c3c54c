"""How the layers of a built model hang together, as far as no public door of Keras tells."""

import keras
import numpy as np


def made_by(tensor):
    """Return the layer, or operation, whose call made a symbolic tensor."""
    return tensor._keras_history.operation


def random_states(owner):
    """Return the variables from which the layers of a model, or a layer, draw random numbers."""
    return [variable for variable in owner.variables if variable.name == "seed_generator_state"]


def has_graph(model):
    """Whether a model is Functional, or Sequential and built."""
    return isinstance(getattr(model, "outputs", None), list)


def graph_nodes(model):
    """List the calls of layers in a model's graph, each after those whose tensors it takes."""
    inputs = {id(tensor) for tensor in model.inputs}

    def before(tensors):
        # No public door leads from a tensor to the one call of a shared layer that made it.
        origins = [tensor._keras_history for tensor in tensors if id(tensor) not in inputs]
        return [(origin.operation._inbound_nodes[origin.node_index], False) for origin in origins]

    ordered, seen, waiting = [], set(), before(model.outputs)
    while waiting:  # not by recursion: 200 layers would pass Python's limit
        node, ready = waiting.pop()
        if ready:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting += [(node, True), *before(node.input_tensors)]
    return ordered


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


def with_inner(layer):
    """Return a layer and all that it holds, the outer ones first."""
    # No public door opens a layer that wraps others (`keras.Model.layers` is for models only).
    return layer._flatten_layers()


def layer_computation(layer):
    """Return what a layer computes: its kind, its settings but for how it starts and whether it learns, and its
    weights' shapes."""
    left_out = ("name", "trainable", "dtype", "preprocessing", "origin", "task", "build_config")
    config = {
        key: value
        for key, value in layer.get_config().items()
        if key not in left_out and not key.endswith("_initializer")
    }
    return {"layer": type(layer).__name__, **config, "weights": [tuple(weight.shape) for weight in layer.weights]}


# Two greys, and a colour that shows in which order the channels are.
_COLOURS = ((100, 100, 100), (200, 200, 200), (90, 150, 210))
_ARITHMETIC = ("Rescaling", "Normalization", "Add", "Subtract", "Multiply", "Average")


def changes_pixels(model):
    """Return the name of the first layer or operation that makes other values of images before any weight meets them.

    What has no weights is asked: it is given images of one colour, as in inference, where augmentation, resizing,
    cropping, padding and casts leave that colour in place, and arithmetic does not, whoever wrote the layer.

    Returns:
        `(name, whether it is certain)`, or `(None, False)`. It is not where only the order of the channels changes, nor
        of layers that may do in training what they do in inference, such as a Lambda that adds noise.
    """
    for colour in _COLOURS:
        found = _changes(model, [_plain_image(tensor, colour) for tensor in model.inputs], colour)
        if found:
            return found
    return None, False


def _plain_image(tensor, colour):
    shape = (tensor.shape[0] or 1, *(side or 64 for side in tensor.shape[1:]))
    image = np.full(shape, colour[0])
    if (axis := _channels(shape)) is not None:
        np.moveaxis(image, axis, -1)[...] = colour
    return keras.ops.cast(keras.ops.convert_to_tensor(image), tensor.dtype)


def _channels(shape):
    """Return the axis of three channels, or None."""
    return next((axis for axis in (-1, 1) if len(shape) == 4 and shape[axis] == 3), None)


def _changes(model, images, colour, inner=False):
    """Return what `changes_pixels` does, for images of one colour, or None; of an `inner` model its outputs count."""
    raw, steps, met, nested = {id(tensor) for tensor in model.inputs}, [], [], []
    for node in graph_nodes(model):
        operation, taken = node.operation, [tensor for tensor in node.input_tensors if id(tensor) in raw]
        whole = len(taken) == len(node.input_tensors)
        if not taken:
            continue
        if whole and isinstance(operation, keras.Model) and has_graph(operation):
            nested.append((operation, taken))
        if whole and (isinstance(operation, keras.layers.Normalization) or not getattr(operation, "weights", None)):
            raw.update(map(id, node.output_tensors))
            steps += [(operation, tensor) for tensor in node.output_tensors]
        else:
            met += taken
    if inner:
        met += [tensor for tensor in model.outputs if id(tensor) in raw]
    values = {id(tensor): image for tensor, image in zip(model.inputs, images, strict=True)}
    if steps:
        made = keras.Model(model.inputs, [tensor for _, tensor in steps])(images, training=False)
        made = keras.tree.flatten(made)  # one alone comes without its list
        values |= {id(tensor): value for (_, tensor), value in zip(steps, made, strict=True)}
    changed = {key for key, value in values.items() if not _has_colour(value, colour)}
    if any(id(tensor) in changed for tensor in met):
        operation = next(operation for operation, tensor in steps if id(tensor) in changed)
        within = next((taken for one, taken in nested if one is operation), None)
        if within is not None:
            return _changes(operation, [values[id(tensor)] for tensor in within], colour, inner=True)
        kind = type(operation).__name__
        arithmetic = kind in _ARITHMETIC or not isinstance(operation, keras.layers.Layer)
        return f"{operation.name} ({kind})", arithmetic and len(set(colour)) == 1
    for operation, taken in nested:
        if operation.weights and (found := _changes(operation, [values[id(one)] for one in taken], colour)):
            return found
    return None


def _has_colour(value, colour):
    """Whether a good part of an array has the colour; a grey in any shape."""
    half = keras.backend.standardize_dtype(value.dtype) in ("float16", "bfloat16")
    array = keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))
    axis, off = _channels(array.shape), 2 if half else 0.1
    if axis is None:
        return len(set(colour)) > 1 or bool(np.mean(np.abs(array - colour[0]) <= off) >= 0.1)
    near = np.abs(np.moveaxis(array, axis, -1) - np.array(colour)) <= off
    return bool(np.mean(near.all(axis=-1)) >= 0.1)


_PASSING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Dropout", "InputLayer")


def last_activation(model):
    """Return how a model's scores come to be: `"softmax"`, `"sigmoid"`, another activation's name, or `"linear"`.

    However it is said: by the activation of the last layer, a layer of its own, an operation, in a nested model, with
    a cast or a float32 `Activation("linear")` behind it. The name of the layer's or operation's kind where that does
    not tell.
    """
    return _last_activation(model) or "linear"


def _last_activation(model):
    tensor, inputs = model.outputs[0], {id(tensor) for tensor in model.inputs}
    while id(tensor) not in inputs:
        origin = tensor._keras_history
        operation, node = origin.operation, origin.operation._inbound_nodes[origin.node_index]
        kind = type(operation).__name__
        if isinstance(operation, keras.Model) and has_graph(operation):
            found = _last_activation(operation)
            if found:
                return found
        elif kind in ("Softmax", "Sigmoid"):
            return kind.lower()
        elif hasattr(operation, "activation"):
            name = getattr(operation.activation, "__name__", type(operation.activation).__name__).lower()
            if name != "linear" or operation.weights:
                return name
        elif kind not in _PASSING:
            return kind.lower()
        tensor = node.input_tensors[0]
    return None  # it ends as it began
