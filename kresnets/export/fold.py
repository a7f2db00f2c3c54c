"""Batch norms folded into the convolutions before them: the same numbers from fewer operations.

A norm at rest is `scale * x + shift`, channel by channel, and so can be the convolution's own kernel and bias.
"""

import collections

import keras
import numpy as np
from keras import layers

from kresnets.keras_hooks.graph import graph_nodes, graphs
from kresnets.networks.copying import empty_copy, recreated
from kresnets.networks.layers import BatchNormalization

# By their exact class: a subclass may compute anything.
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)
_NORMS = (layers.BatchNormalization, BatchNormalization)
_TOLERANCE = 1e-4  # of the largest value, or of 1


def fold_batchnorms(model):
    """Copy a model for answering: batch norms that directly follow a convolution become part of it.

    So do norms that follow another folded one, and `Rescaling` by one number. A norm stays where it cannot be folded:
    behind anything but a linear Conv2D, DepthwiseConv2D, SeparableConv2D or Dense layer (before the activation in a v2
    network, for one), where the convolution's output is used elsewhere too, where either is called twice, and where the
    folded layer differs from the two by more than 1e-4 on noise (a mean so large that float32 keeps little beside it).
    Norms that stay are computed by the fused kernel; dropout, which does nothing then, is left out.

    Args:
        model: a Functional or Sequential Keras model that has been built, nested ones included. It is not changed.

    Returns:
        A new, uncompiled model with the same names, for `training=False` alone.

    Raises:
        ValueError: where a layer cannot be made again from its config.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20()
        >>> folded = fold_batchnorms(model)
        >>> images = np.ones((1, 32, 32, 3), "float32")
        >>> bool(np.allclose(folded(images), model(images), atol=1e-5)), model.count_params() > folded.count_params()
        (True, True)
    """
    put = {}
    for convolution, chain in _chains(model):
        if folded := _folded(convolution, chain):
            put[id(convolution)] = folded
            put |= {id(layer): _Nothing(name=layer.name) for layer in chain}
    return recreated(model, lambda layer: put.get(id(layer)) or _for_answering(layer))


class _Nothing(layers.Layer):
    """What stands where a layer was folded away."""

    def call(self, inputs, training=None, mask=None):
        return inputs


def _for_answering(layer):
    if type(layer) in (layers.Dropout, layers.SpatialDropout2D):
        return _Nothing(name=layer.name)
    if type(layer) is layers.BatchNormalization:
        return BatchNormalization.from_config(layer.get_config())
    return None


def _chains(model):
    """List each convolution with the affine layers behind it, as they follow each other."""
    found = [(graph, graph_nodes(graph)) for graph in graphs(model)]
    calls = collections.Counter(id(node.operation) for _, nodes in found for node in nodes)
    chains = {}
    for graph, nodes in found:
        tensors = [*graph.outputs, *(tensor for node in nodes for tensor in node.input_tensors)]
        uses = collections.Counter(map(id, tensors))
        source, first = {id(tensor): node.operation for node in nodes for tensor in node.output_tensors}, {}
        for node in nodes:
            layer, tensor = node.operation, node.input_tensors[0]
            before = source.get(id(tensor))
            convolution = first.get(id(before), before)
            alone = uses[id(tensor)] == calls[id(layer)] == calls[id(convolution)] == 1
            if alone and _folds(layer, convolution, len(tensor.shape)):
                first[id(layer)] = convolution
                chains.setdefault(id(convolution), (convolution, []))[1].append(layer)
    return list(chains.values())


def _folds(layer, convolution, rank):
    """Whether one layer is a scale and a shift of the other's channels."""
    if type(layer) not in (*_NORMS, layers.Rescaling):  # keras.ops are no layers: they have no dtype
        return False
    if type(convolution) not in _CONVOLUTIONS or convolution.activation is not keras.activations.linear:
        return False
    if getattr(convolution, "lora_enabled", False):  # its kernel is the sum of two
        return False
    if convolution.compute_dtype != "float32" or layer.compute_dtype != "float32":
        return False
    if type(layer) is layers.Rescaling:
        return np.ndim(layer.scale) == np.ndim(layer.offset) == 0
    return layer.axis % rank == _channels(convolution) % rank


def _channels(convolution):
    """Axis of a convolution's channels."""
    return 1 if getattr(convolution, "data_format", None) == "channels_first" else -1


def _affine(layer):
    """Return the scale and the shift that a layer is at rest, in float64."""
    if type(layer) is layers.Rescaling:
        return np.float64(layer.scale), np.float64(layer.offset)
    mean, variance, gamma, beta = (
        None if variable is None else variable.numpy().astype("float64")
        for variable in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + layer.epsilon)
    return scale, (0.0 if beta is None else beta) - mean * scale


def _folded(convolution, chain):
    """Return one layer that computes what a convolution and the layers behind it do, or None where none does."""
    weights: list = [*convolution.get_weights(), *([] if convolution.use_bias else [0.0])]
    *kernels, kernel, bias = weights
    kernel, bias = np.float64(kernel), np.float64(bias)
    for scale, shift in map(_affine, chain):
        if type(convolution) is layers.DepthwiseConv2D and np.ndim(scale):  # its channels are two axes of its kernel
            kernel = kernel * scale.reshape(kernel.shape[2:])
        else:
            kernel = kernel * scale
        bias = bias * scale + shift
    folded = empty_copy(convolution, use_bias=True)
    noise = _noise(convolution)
    folded.build(noise.shape)
    folded.set_weights([*kernels, kernel, np.broadcast_to(bias, folded.bias.shape)])
    expected = convolution(noise)
    for layer in chain:
        expected = layer(expected)
    difference = np.abs(np.asarray(folded(noise)) - np.asarray(expected))
    return folded if np.all(difference <= _TOLERANCE * max(1.0, np.abs(expected).max())) else None


def _noise(convolution):
    """Make the smallest input that a layer takes."""
    if type(convolution) is layers.Dense:
        shape = (*(1 for _ in convolution.output.shape[1:]), convolution.kernel.shape[0])
    else:
        channels = convolution.input_spec.axes[_channels(convolution)]
        sides = [
            (kernel - 1) * dilation + 1
            for kernel, dilation in zip(convolution.kernel_size, convolution.dilation_rate, strict=True)
        ]
        shape = (1, *sides, channels) if _channels(convolution) == -1 else (1, channels, *sides)
    return np.random.default_rng(0).normal(size=shape).astype("float32")
