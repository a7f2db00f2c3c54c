"""What a call costs: its multiply-adds, and the tensors that training keeps for its gradient.

The convention is that of torchvision's tables: a multiply and the add that follows it count one, and only convolutions
and matrix products count. Norms, activations, pools, sums and biases count none. timm's tables add two for each element
of a norm's output, as fvcore does (ResNet-50: 4.11 G for 4.09 G).
"""

import math

import keras

L = keras.layers

_CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D)
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
_NORMS = (L.BatchNormalization, L.LayerNormalization, L.GroupNormalization)
# Layers with weights of several axes that multiply no matrices, and operations without weights that do.
_ELEMENTWISE = (*_NORMS, L.Normalization, L.PReLU, L.Embedding)
_PRODUCTS = {"Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum", "Inner", "Matmul",
             "Outer", "SeparableConv", "Tensordot", "Vdot"}  # fmt: skip

# Whose gradient needs neither input nor output, only shapes.
_LINEAR = (
    L.Add, L.Average, L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D, L.Concatenate, L.Cropping1D,
    L.Cropping2D, L.Cropping3D, L.Flatten, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D,
    L.GlobalAveragePooling3D, L.Identity, L.Permute, L.RepeatVector, L.Rescaling, L.Reshape,
    L.Subtract, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D, L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D,
)  # fmt: skip
_LINEAR_OPERATIONS = {"Add", "Concatenate", "ExpandDims", "GetItem", "Mean", "Reshape", "Squeeze", "Subtract", "Sum",
                      "Transpose"}  # fmt: skip
_FROM_OUTPUT = {"elu", "linear", "relu", "relu6", "selu", "sigmoid", "softmax", "tanh"}


def multiply_adds(call):
    """Return the multiply-adds of a call on one image, or None for a layer that multiplies in a way not known here."""
    layer, output = call.layer, call.outputs[0].shape if call.outputs else ()
    if isinstance(layer, _CONVOLUTIONS):
        return math.prod(layer.kernel.shape) * _positions(layer, output)
    if isinstance(layer, _TRANSPOSED):  # each position of the input meets the whole kernel
        return math.prod(layer.kernel.shape) * _positions(layer, call.inputs[0].shape)
    if isinstance(layer, _SEPARABLE):
        kernels = layer.depthwise_kernel, layer.pointwise_kernel
        return sum(math.prod(kernel.shape) for kernel in kernels) * _positions(layer, output)
    if isinstance(layer, L.Dense):
        return math.prod(layer.kernel.shape) * math.prod(output[1:-1])
    if isinstance(layer, L.Layer):
        matrices = any(len(weight.shape) > 1 for weight in layer.weights)
        return None if matrices and not isinstance(layer, _ELEMENTWISE) else 0
    return None if type(layer).__name__ in _PRODUCTS else 0


def is_weight_layer(layer):
    """Return whether the papers count this layer towards the depth: convolutions and dense layers."""
    return isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED, *_SEPARABLE, L.Dense))


def _positions(layer, shape):
    return math.prod(shape[1:-1] if layer.data_format == "channels_last" else shape[2:])


def kept(call):
    """Return the values that the gradient of a call needs, and the bytes of what it keeps besides."""
    layer, inputs, outputs = call.layer, call.inputs, tuple(call.outputs)
    if not isinstance(layer, L.Layer):
        return ((), 0) if type(layer).__name__ in _LINEAR_OPERATIONS else (inputs + outputs, 0)
    if is_weight_layer(layer):
        linear = layer.activation in (None, keras.activations.linear)
        return (inputs if linear else inputs + outputs), 0
    if isinstance(layer, L.Dropout):
        # The mask, a byte each: of the elements, or of whole images (stochastic depth).
        mask = zip(layer.noise_shape or outputs[0].shape, outputs[0].shape, strict=True)
        return (), math.prod([own or side for own, side in mask][1:]) if layer.rate else 0
    if isinstance(layer, _LINEAR):
        return (), 0
    if isinstance(layer, (*_NORMS, L.LeakyReLU)):
        return inputs, 0
    if isinstance(layer, (L.Softmax, L.ReLU, L.ELU)):
        return outputs, 0
    if isinstance(layer, L.Activation):
        return (outputs if getattr(layer.activation, "__name__", "") in _FROM_OUTPUT else inputs), 0
    return inputs + outputs, 0  # max pools, products of two tensors, and whatever is not known here
