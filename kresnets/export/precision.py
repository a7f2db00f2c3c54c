"""The dtype that a model computes in when it is served, whatever it was trained in."""

import keras
from keras import layers

from kresnets.keras_hooks.graph import layers_in_order
from kresnets.networks.copying import empty_copy, is_of_a_library, recreated

DTYPES = ("float32", "bfloat16")
# Their weights are as good in bfloat16, and half as large; a norm's statistics are not.
_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
    layers.Dense,
)
_POOLINGS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)


def in_half(model):
    """Whether a layer of a model computes in bfloat16 or float16."""
    return any(map(_in_half, layers_in_order(model)))


def _in_half(layer):
    return getattr(layer, "compute_dtype", None) in ("bfloat16", "float16")


def in_float32(model):
    """Copy a model with all layers of Keras and kresnets computing in float32.

    Args:
        model: a Functional or Sequential Keras model that has been built. It is not changed.

    Raises:
        ValueError: where a layer cannot be made again from its config.

    Example:
        >>> import kresnets
        >>> model = kresnets.CifarResNet20()
        >>> half = in_bfloat16(model, model.get_layer("head_dense"))
        >>> in_half(half), in_half(in_float32(half))
        (True, False)
    """
    return recreated(
        model, lambda layer: empty_copy(layer, dtype="float32") if _in_half(layer) and _known(layer) else None
    )


def in_bfloat16(model, head):
    """Copy a model with all layers of Keras and kresnets from the first convolution to the head computing in bfloat16.

    Convolutions keep their weights in it too; what is before the first of them, pixels and their means, stays as it is.

    Args:
        model: a Functional or Sequential Keras model that has been built. It is not changed.
        head: the layer from which on all layers stay as they are; global pooling does everywhere.

    Raises:
        ValueError: where a layer cannot be made again from its config.

    Example:
        >>> import kresnets
        >>> model = kresnets.CifarResNet20()
        >>> half = in_bfloat16(model, model.get_layer("head_dense"))
        >>> half.get_layer("stem_conv1").compute_dtype, half.get_layer("head_dense").compute_dtype
        ('bfloat16', 'float32')
    """
    order = list(layers_in_order(model))
    first = next((place for place, layer in enumerate(order) if isinstance(layer, _CONVOLUTIONS)), len(order))
    last = next(place for place, layer in enumerate(order) if layer is head)
    inner = {id(layer) for layer in order[first:last] if _known(layer) and not isinstance(layer, _POOLINGS)}

    def replace(layer):
        if id(layer) not in inner:
            return None
        return empty_copy(layer, dtype="bfloat16" if isinstance(layer, _CONVOLUTIONS) else "mixed_bfloat16")

    return recreated(model, replace)


def _known(layer):
    return is_of_a_library(layer) and isinstance(layer.dtype_policy, keras.DTypePolicy)
