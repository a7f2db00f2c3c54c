"""What pixels 0..255 become before a network sees them, and which way a given model wants it.

Weights are trained for one preprocessing; the model built with them carries it (on its first norm layer, which survives
`.keras` files, `keras.models.clone_model` and a new head on the trunk), so that fine-tuning and export need not be
told.
"""

import dataclasses
import os

import keras
import numpy as np

# mode -> (channels reversed to BGR?, divisor, mean, standard deviation), applied in this order, as in
# keras.applications.
_MODES = {
    "caffe": (True, None, (103.939, 116.779, 123.68), None),
    "tf": (False, 127.5, (1.0, 1.0, 1.0), None),
    "torch": (False, 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
MODES = tuple(_MODES)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the weights of a model want their images.

    Args:
        mode: `"caffe"`, `"tf"` or `"torch"`; see `preprocess_input`.
        crop: fraction of the resized short side that the centre crop keeps, 0 < crop <= 1.

    Raises:
        ValueError: for an unknown mode, or a crop out of its range.

    Example:
        >>> import kresnets
        >>> kresnets.Preprocessing("tf", crop=0.875)
        Preprocessing(mode='tf', crop=0.875)
    """

    mode: str = "torch"
    crop: float = 1.0

    def __post_init__(self):
        check_mode(self.mode)
        if not 0 < self.crop <= 1:
            raise ValueError(f"`crop` must be above 0 and at most 1. Received: crop={self.crop}")


def check_mode(mode):
    """Raise a ValueError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise ValueError(f"Unknown preprocessing mode {mode!r}: use one of {', '.join(map(repr, MODES))}.")


def preprocess_input(x, data_format=None, mode="torch"):
    """Turn RGB pixels 0..255 into what the weights of a network were trained on.

    Args:
        x: array or tensor of RGB values 0..255, `(..., height, width, 3)`, or `(..., 3, height, width)` with
            `data_format="channels_first"`. Any dtype; never changed in place.
        data_format: `"channels_last"`, `"channels_first"` or None for `keras.config.image_data_format()`.
        mode: `"caffe"` (RGB to BGR, ImageNet mean subtracted, no scaling; keras.applications' ResNets), `"tf"`
            (scaled to -1..1; their v2 and Inception nets) or `"torch"` (scaled to 0..1, ImageNet mean and deviation;
            timm's and torchvision's files).

    Returns:
        The same kind of array or tensor, in a floating dtype, equal to `keras.applications`' own result for that mode.

    Raises:
        ValueError: for an unknown mode or data format, or other than 3 channels.

    Example:
        >>> import kresnets, numpy as np
        >>> float(kresnets.preprocess_input(np.full((1, 8, 8, 3), 127.5), mode="tf").max())
        0.0
    """
    check_mode(mode)
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"`data_format` must be 'channels_last' or 'channels_first'. Received: {data_format!r}")
    if not hasattr(x, "shape"):
        raise ValueError(f"`preprocess_input` takes an array or tensor of pixels. Received: {type(x).__name__}")
    axis = -1 if data_format == "channels_last" else -3
    if len(x.shape) < 3 or x.shape[axis] not in (3, None):
        raise ValueError(
            f"`preprocess_input` takes 3 channels (RGB) on axis {axis} ({data_format}). Received: shape={tuple(x.shape)}; "
            "repeat a grey image three times along that axis."
        )
    x = _as_float(x)
    reverse, divisor, mean, std = _MODES[mode]
    if reverse:
        x = x[..., ::-1] if axis == -1 else x[..., ::-1, :, :]
    if divisor:
        x = x / divisor
    x = x - _per_channel(mean, x, axis)
    return x if std is None else x / _per_channel(std, x, axis)


def _as_float(x):
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return x
    if hasattr(x, "astype"):  # numpy, JAX
        return x.astype(keras.config.floatx())
    if keras.config.backend() == "tensorflow" or isinstance(x, keras.KerasTensor):
        return keras.ops.cast(x, keras.config.floatx())
    import tensorflow as tf  # a tf.data pipeline that feeds another backend

    return tf.cast(x, keras.config.floatx())


def _per_channel(values, x, axis):
    # A numpy constant takes part in the arithmetic of numpy, TensorFlow, JAX and symbolic Keras tensors alike.
    shape = (3,) if axis == -1 else (3, 1, 1)
    return np.asarray(values, dtype=keras.backend.standardize_dtype(x.dtype)).reshape(shape)


def decode_predictions(preds, top=5):
    """Name the ImageNet classes of a network's answer.

    Args:
        preds: array `(batch, 1000)` of scores.
        top: how many classes to name, highest first. Defaults to 5.

    Returns:
        For each row a list of `top` tuples `(wordnet id, name, score)`, as `keras.applications` gives them (its own
        function is
        called: it fetches the list of names once, checked by its hash).

    Raises:
        ValueError: for another shape than `(batch, 1000)`.
        RuntimeError: when the list of names cannot be fetched.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.decode_predictions(np.eye(1000)[:1], top=1)  # doctest: +SKIP
        [[('n01440764', 'tench', 1.0)]]
    """
    try:
        return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
    except ValueError:
        raise
    except Exception as error:  # get_file raises bare Exceptions when the network or the server fails
        home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
        raise RuntimeError(
            "The ImageNet class names (imagenet_class_index.json) could not be fetched; put a copy into "
            f"{os.path.join(home, 'models', 'imagenet_class_index.json')} by hand. The reason was: {error}"
        ) from error


def preprocessing_of(model):
    """Return the `Preprocessing` that a model's weights want, or None where the model carries none.

    Args:
        model: a Keras model built by kresnets, or one built on such a model's layers.

    Example:
        >>> import kresnets
        >>> kresnets.preprocessing_of(kresnets.ResNet18(weights=None, input_shape=(32, 32, 3))).mode
        'torch'
    """
    for layer in model._flatten_layers(include_self=False):
        carried = getattr(layer, "preprocessing", None)
        if isinstance(carried, Preprocessing):
            return carried
    return None
