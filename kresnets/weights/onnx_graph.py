"""An ONNX file as named tensors: a chain of convolutions, each with its norm written out as arithmetic.

Only the numbers are read, and which follows which; nothing of the graph is run, and no file beside it is opened.
"""

import dataclasses
import functools

import numpy as np

from kresnets.weights.readers import Refusal, Tensor, WeightsFile

# What an exporter writes of a convolution with a bias and a norm that has been taken apart: + bias, - mean, * scale,
# + beta. The scale is gamma / sqrt(variance + epsilon); the variance itself is not in the file.
_STEPS = (("Add", "bias"), ("Sub", "moving_mean"), ("Mul", "scale"), ("Add", "beta"))
_PASSED = ("Transpose", "Cast")


def read(path):
    """Read the `.onnx` file of a graph of convolutions with norms and at most one dense layer at its end.

    Its tensors are `conv1/kernel` `(height, width, in, out)`, `conv1/bias`, `norm1/moving_mean`, `norm1/scale`,
    `norm1/beta` and so on, numbered in the graph's order, and `dense/kernel`, `dense/bias`.

    Raises:
        ValueError: for a graph of another form.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    arrays = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:  # equal constants are kept once
            arrays[node.output[0]] = arrays[node.input[0]]
    users = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = {}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    for number, node in enumerate(convs, start=1):
        found[f"conv{number}/kernel"] = (arrays[node.input[1]], (2, 3, 1, 0))
        for name, array in _norm_after(node, arrays, users, path):
            found[f"{'conv' if name == 'bias' else 'norm'}{number}/{name}"] = (array, None)
    for node in graph.node:
        if node.op_type == "MatMul":
            found["dense/kernel"] = (arrays[node.input[1]], (0, 1))
            found["dense/bias"] = (_constant(_next(node, users), arrays), None)
    return WeightsFile(path, "onnx", {name: _tensor(onnx, *one) for name, one in found.items()})


def _norm_after(node, arrays, users, path):
    for kind, name in _STEPS:
        node = _next(node, users)
        if node is None or node.op_type != kind or (array := _constant(node, arrays)) is None:
            raise Refusal(f"{path} is no graph of convolutions that each have a bias and a norm after them.")
        yield name, array


def _next(node, users):
    """Return the node that takes what this one gives, past those that only turn or cast it."""
    while node is not None:
        node = next(iter(users.get(node.output[0], ())), None)
        if node is None or node.op_type not in _PASSED:
            return node


def _constant(node, arrays):
    return next((arrays[name] for name in node.input if name in arrays), None)


def _tensor(onnx, array, axes):
    shape = tuple(array.dims)
    shape = tuple(shape[axis] for axis in axes) if axes else (shape[-1],)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(array.data_type)
    return Tensor(shape, np.dtype(dtype).name, functools.partial(_array, onnx, array, axes))


def _array(onnx, array, axes):
    value = onnx.numpy_helper.to_array(array)
    return value.transpose(axes) if axes else value.reshape(-1)


def with_variances(file, variances, epsilon):
    """Give the norms of `file`, which has them as scales, the measured variances of another file, and the gammas that
    keep the function: gamma = scale * sqrt(variance + epsilon)."""
    tensors = dict(file.tensors)
    for name, variance in variances.tensors.items():
        norm = name.rpartition("/")[0]
        scale = tensors.pop(f"{norm}/scale")
        tensors[name] = variance
        gamma = functools.partial(_gamma, scale, variance, epsilon)
        tensors[f"{norm}/gamma"] = Tensor(scale.shape, "float32", gamma)
    return dataclasses.replace(file, tensors=tensors)


def _gamma(scale, variance, epsilon):
    return (scale.read().astype("float64") * np.sqrt(variance.read().astype("float64") + epsilon)).astype("float32")


def is_thin(spec):
    """Whether the row is of the kind that Caffe taught: strides in the first 1x1, a pool that rounds up."""
    return getattr(spec, "stem_pool_border", None) == "end" and spec.stride_on == "1x1" and spec.shortcut == "B"


def module(layer, spec):
    """`stage1_block1_conv3` -> `conv5`: convolutions in the order of the graph, in which the shortcut's comes before
    the last one of its block; a norm has its convolution's number."""
    if layer == "head_dense":
        return "dense"
    number = _order(spec.depths).index(layer.replace("bn", "conv")) + 1
    return f"{'norm' if 'bn' in layer else 'conv'}{number}"


@functools.lru_cache
def _order(depths):
    names = ["stem_conv1"]
    for stage, depth in enumerate(depths, start=1):
        for block in range(1, depth + 1):
            parts = ("conv1", "conv2", *(("shortcut_conv",) if block == 1 else ()), "conv3")
            names += [f"stage{stage}_block{block}_{part}" for part in parts]
    return names
