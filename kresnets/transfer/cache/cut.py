"""Where a model can be cut in two: below, what gives an image the same output in every step; above, what learns or is
random."""

import collections

import keras
import numpy as np

from kresnets._util.store import digest
from kresnets.keras_hooks.graph import graph_nodes, has_graph, layer_computation, made_by, random_states, with_inner


class CannotCache(ValueError):
    """Say in one sentence why features cannot be kept."""


def open_graph(model):
    """Return a model of the very layers of `model`, in which no model is nested."""
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        return model
    outputs = _run(model, model.inputs)
    return keras.Model(model.inputs, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _run(model, tensors):
    """Call the layers of a model on other tensors, and those of the models nested in it; return the flat outputs."""
    values = {id(tensor): value for tensor, value in zip(model.inputs, tensors, strict=True)}

    def given(argument):
        return values[id(argument)] if isinstance(argument, keras.KerasTensor) else argument

    for node in graph_nodes(model):
        args, kwargs = keras.tree.map_structure(given, (node.arguments.args, node.arguments.kwargs))
        if isinstance(node.operation, keras.Model) and has_graph(node.operation):
            outputs = _run(node.operation, keras.tree.flatten(args[0]))
        else:
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        values |= {id(tensor): value for tensor, value in zip(node.output_tensors, outputs, strict=True)}
    return [values[id(tensor)] for tensor in model.outputs]


def find_cut(graph, allowed=lambda layer: True):
    """Return the last tensor through which alone the inert part of a graph reaches the rest.

    Args:
        graph: what `open_graph` returns. The flags of its layers say what learns.
        allowed: whether a layer may lie below the cut. Defaults to any.

    Raises:
        CannotCache: where there is none.
    """
    nodes, ends = graph_nodes(graph), {id(tensor) for tensor in graph.outputs}
    uses = collections.Counter(key for node in nodes for key in {id(tensor) for tensor in node.input_tensors})
    uses.update(ends)
    live, below, cut = {id(tensor): tensor for tensor in graph.inputs}, set(), None
    known = set(live)
    for node in nodes:
        taken = {id(tensor) for tensor in node.input_tensors}
        if not taken <= known or not allowed(node.operation) or not _inert(node):
            continue
        below.add(id(node))
        uses.subtract(taken)
        known |= {id(tensor) for tensor in node.output_tensors}
        live |= {id(tensor): tensor for tensor in node.output_tensors}
        live = {key: tensor for key, tensor in live.items() if uses[key] > 0}
        if len(live) == 1 and not ends & live.keys():
            (cut,) = live.values()
    if cut is None:
        raise CannotCache(_why_not(graph, live, [node for node in nodes if id(node) not in below]))
    return cut


def layer_name(tensor):
    """Return the name of the layer that gives a tensor."""
    return made_by(tensor).name


def models_around(graph, cut, deeper=()):
    """Return the model below a cut, with the tensors `deeper` down as further outputs, and the model above it; all
    share their layers."""
    head = keras.Model(graph.inputs[0], [cut, *deeper] if deeper else cut)
    return head, keras.Model(cut, graph.outputs if len(graph.outputs) > 1 else graph.outputs[0])


def _inert(node):
    layer = node.operation
    if not isinstance(layer, keras.Layer):
        return True
    # Also where it was called with training=False: Keras's models tell all their layers what they are told.
    return not random_states(layer) and not any(
        inner.weights and inner.trainable or inner.activity_regularizer is not None for inner in with_inner(layer)
    )


def _why_not(graph, live, above):
    if live.keys() == {id(tensor) for tensor in graph.inputs}:
        return (
            f"{graph.name!r} has nothing to keep: its first layer, {above[0].operation.name!r}, learns or draws at "
            "random."
            if above
            else f"{graph.name!r} has nothing that learns."
        )
    if not above:
        return f"{graph.name!r} has nothing that learns."
    (key, skipping), *_ = live.items()
    taker = next((node.operation.name for node in above if key in {id(t) for t in node.input_tensors}), "the output")
    others = ", ".join(repr(layer_name(tensor)) for other, tensor in live.items() if other != key)
    return (
        f"{graph.name!r} cannot be cut above its frozen layers: {taker!r} takes the output of "
        f"{layer_name(skipping)!r} across the cut, "
        f"beside {others}."
    )


def check_same_in_training(head, images):
    """Raise CannotCache where layers of unknown make compute something else in training."""
    unknown = [layer.name for layer in head.layers if not _well_known(layer)]
    if not unknown:
        return
    known = [keras.tree.flatten(head(images, training=training)) for training in (True, False)]
    if not all(_equal(a, b) for a, b in zip(*known, strict=True)):
        raise CannotCache(
            f"{unknown[0]!r}, or another layer of yours below the cut, computes something else in training."
        )


def _well_known(layer):
    home = type(layer).__module__.split(".")[0]
    return home in ("keras", "kresnets") and not isinstance(layer, (keras.layers.Lambda, keras.layers.TFSMLayer))


def _equal(a, b):
    a, b = (keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")) for tensor in (a, b))
    return bool((abs(a - b) <= 1e-5 * (1 + abs(b))).all())


def computation(head, cut):
    """Return what names the function that gives a tensor of a model: its layers, their settings, their weights; None
    where a layer does not say its settings."""
    model = keras.Model(head.inputs, cut)
    try:
        layers = [(layer.name, layer.compute_dtype, layer_computation(layer)) for layer in model.layers]
    except NotImplementedError:
        return None
    return digest(keras.config.backend(), layers, *(np.asarray(v.numpy()) for v in model.weights))
