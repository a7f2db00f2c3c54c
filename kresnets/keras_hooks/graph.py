"""How the layers of a built model hang together, as far as no public door of Keras tells."""

import keras


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


_ARITHMETIC = frozenset(
    "Add Subtract Multiply Divide TrueDivide FloorDivide Power Negative Sqrt Square Log Exp Einsum Matmul".split()
)


def changes_pixels(model):
    """Return the name of the first layer or operation that does arithmetic with images before any weight meets them.

    Augmentation, resizing, cropping, padding and casts are none. Of a Lambda nobody can tell.

    Returns:
        `(name, whether it is certain)`, or `(None, False)`.
    """
    found, _ = _pixels(model)
    return found or (None, False)


def _pixels(model):
    """Return what `changes_pixels` finds in a graph, and whether its first output may still be pixels."""
    raw = {id(tensor) for tensor in model.inputs}
    for node in graph_nodes(model):
        if not any(id(tensor) in raw for tensor in node.input_tensors):
            continue
        operation = node.operation
        if isinstance(operation, keras.Model) and has_graph(operation):
            found, still = _pixels(operation)
            if found:
                return found, False
        else:
            kind = type(operation).__name__
            if isinstance(operation, (keras.layers.Rescaling, keras.layers.Normalization)) or kind in _ARITHMETIC:
                return (f"{operation.name} ({kind})", True), False
            if isinstance(operation, keras.layers.Lambda):
                return (f"{operation.name} (Lambda)", False), False
            still = not getattr(operation, "weights", None)  # an operation has none
        if still:
            raw.update(id(tensor) for tensor in node.output_tensors)
    return None, id(model.outputs[0]) in raw


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
