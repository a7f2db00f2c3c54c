"""What pixels 0..255 become before a network sees them, and which way a given model wants it.

Weights are trained for one preprocessing; the model built with them carries it (on its first norm layer, which survives
`.keras` files, `keras.models.clone_model` and a new head on the trunk), so that fine-tuning and export need not be
told.
"""

import collections
import dataclasses
import os
import warnings
from typing import Any

import keras
import numpy as np

from kresnets._util.checks import is_number, is_whole
from kresnets._util.files import keras_home
from kresnets._util.types import Array, Tensor
from kresnets.decoding import CHANNELS, Decoding
from kresnets.keras_hooks.graph import changes_pixels, has_graph, with_inner

# mode -> (channels reversed to BGR?, divisor, mean, standard deviation), applied in this order, as in
# keras.applications.
_MODES = {
    "caffe": (True, None, (103.939, 116.779, 123.68), None),
    "tf": (False, 127.5, (1.0, 1.0, 1.0), None),
    "torch": (False, 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": (False, None, None, None),
}
MODES = tuple(_MODES)
_OWN = {"mean": ("torch", "caffe"), "std": ("torch",)}  # the modes that take other numbers than their own
_PROBE = np.array([[[0.0, 64.0, 128.0]], [[255.0, 32.0, 16.0]]])


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the weights of a model want their images.

    Called on pixels, it is `preprocess_input` with its mode and means; crop and size are for who cuts the images.

    Args:
        mode: `"caffe"`, `"tf"`, `"torch"` or `"none"`; see `preprocess_input`.
        crop: fraction of the resized short side that the centre crop keeps, 0 < crop <= 1.
        mean: three numbers in place of the mode's own, in torch of R, G and B scaled to 0..1, in caffe of B, G and R
            0..255; None for the mode's own.
        std: three positive numbers of R, G and B scaled to 0..1, in torch alone.
        size: pixels a side that the weights were trained for, or None where that is unknown.
        decoding: the `Decoding` of the images that the weights were trained on, or None where that is unknown: then
            `Decoding()`.

    Raises:
        ValueError: for an unknown mode, a value out of its range, a mean with the tf mode, or a std with another mode
            than torch.

    Example:
        >>> import kresnets
        >>> kresnets.Preprocessing("torch", crop=0.95, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=224).mean
        (0.5, 0.5, 0.5)
    """

    mode: str = "torch"
    crop: float = 1.0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None
    decoding: Decoding | None = None

    def __post_init__(self):
        check_mode(self.mode)
        if not is_number(self.crop) or not 0 < self.crop <= 1:
            raise ValueError(f"`crop` must be above 0 and at most 1. Received: crop={self.crop!r}")
        mean, std = _checked_means(self.mode, self.mean, self.std)
        # JSON, in which layers and runs keep this, makes lists of tuples and knows no numbers of numpy's.
        object.__setattr__(self, "crop", float(self.crop))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if self.size is not None:
            if not is_whole(self.size, 1):
                raise ValueError(f"`size` must be a whole number of pixels from 1, or None. Received: {self.size!r}")
            object.__setattr__(self, "size", int(self.size))
        if isinstance(self.decoding, dict):
            object.__setattr__(self, "decoding", Decoding.of_data(self.decoding))
        if not isinstance(self.decoding, Decoding | None):
            raise ValueError(f"`decoding` must be a kresnets.Decoding or None. Received: decoding={self.decoding!r}")

    def as_data(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; `of_data` reads them."""
        fields = dataclasses.asdict(self)
        if self.decoding == Decoding.before():
            del fields["decoding"]  # what was written before stays as it was
        return fields

    @classmethod
    def of_data(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return what was written as `as_data`; fields of before there was a `Decoding` mean `Decoding.before()`."""
        return cls(**{"decoding": Decoding.before()} | fields)

    def __call__(self, images, data_format=None):
        """Return RGB pixels 0..255 as the weights want them; see `preprocess_input`."""
        return preprocess_input(images, data_format, self.mode, self.mean, self.std)


def check_mode(mode: str) -> None:
    """Raise a ValueError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise ValueError(f"Unknown preprocessing mode {mode!r}: use one of {', '.join(map(repr, MODES))}.")


def _checked_means(mode, mean, std):
    """Return mean and std as tuples of three floats or None."""
    checked = []
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            if mode not in _OWN[name]:
                raise ValueError(
                    f"`{name}` goes with mode={' or '.join(map(repr, _OWN[name]))}, and the mode is {mode!r}: change "
                    "one of the two, or leave it out."
                )
            listed = [] if isinstance(values, str) or not np.iterable(values) else list(values)
            good = all(is_number(value) and (name == "mean" or value > 0) for value in listed)
            if len(listed) != 3 or not good:
                kind = "finite" if name == "mean" else "positive"
                order = "B, G and R" if mode == "caffe" else "R, G and B"
                raise ValueError(f"`{name}` must be three {kind} numbers, of {order}. Received: {name}={values!r}")
            values = tuple(map(float, listed))
        checked.append(values)
    return checked


def preprocess_input(
    x: Tensor, data_format: str | None = None, mode: str = "torch", mean: Any = None, std: Any = None
) -> Tensor:
    """Turn RGB pixels 0..255 into what the weights of a network were trained on.

    Pixels of other than three channels are for a network whose first convolution was made one for them: one channel
    takes the mean of the three numbers; of others each takes that of R, G, B, R, ... in turn, as the kernels do.

    Args:
        x: array or tensor of RGB values 0..255, `(..., height, width, 3)`, or `(..., 3, height, width)` with
            `data_format="channels_first"`; or of 1 to 8 channels. Any dtype; never changed in place.
        data_format: `"channels_last"`, `"channels_first"` or None for `keras.config.image_data_format()`.
        mode: `"caffe"` (RGB to BGR, ImageNet mean subtracted, no scaling; keras.applications' ResNets), `"tf"`
            (scaled to -1..1; their v2 and Inception nets), `"torch"` (scaled to 0..1, ImageNet mean and deviation;
            timm's and torchvision's files) or `"none"` (as they are; of networks that have a Rescaling inside).
        mean: three numbers in place of the mode's own: in torch of R, G and B scaled to 0..1 (some of timm's files were
            trained with 0.5 thrice), in caffe of B, G and R 0..255, the order in which they are taken off (Yahoo's
            open_nsfw has 104, 117, 123). Defaults to None, the mode's own.
        std: three positive numbers of R, G and B scaled to 0..1, in torch alone. Defaults to None, the mode's own.

    Returns:
        The same kind of array or tensor, in a floating dtype, equal to `keras.applications`' own result for that mode.

    Raises:
        ValueError: for an unknown mode or data format, more than 8 channels, or a `mean` or `std` that is not three
            numbers or does not go with the mode.

    Example:
        >>> import kresnets, numpy as np
        >>> float(kresnets.preprocess_input(np.full((1, 8, 8, 3), 127.5), mode="tf").max())
        0.0
    """
    check_mode(mode)
    mean, std = _checked_means(mode, mean, std)
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"`data_format` must be 'channels_last' or 'channels_first'. Received: {data_format!r}")
    if not hasattr(x, "shape"):
        raise ValueError(f"`preprocess_input` takes an array or tensor of pixels. Received: {type(x).__name__}")
    axis = -1 if data_format == "channels_last" else -3
    if len(x.shape) < 3 or x.shape[axis] not in (*CHANNELS, None):
        raise ValueError(
            f"`preprocess_input` takes 3 channels (RGB), or 1 to 8, on axis {axis} ({data_format}). Received: "
            f"shape={tuple(x.shape)}."
        )
    x = _as_float(x)
    reverse, divisor, own_mean, own_std = _MODES[mode]
    if reverse and x.shape[axis] != 1:
        x = _reversed(x, axis)
    if divisor:
        x = x / divisor
    mean, std = mean or own_mean, std or own_std
    if mean is None:
        return x.copy() if isinstance(x, np.ndarray) else x  # never the caller's own array
    x = x - _per_channel(mean, x, axis)
    return x if std is None else x / _per_channel(std, x, axis)


def _reversed(x, axis):
    """Return pixels as B, G, R; what is behind the first three channels stays where it is."""
    count = x.shape[axis] or 3
    if count == 3:
        return x[..., ::-1] if axis == -1 else x[..., ::-1, :, :]
    order = [*range(min(count, 3))[::-1], *range(3, count)]
    take = np.take if isinstance(x, np.ndarray) else keras.ops.take
    return take(x, np.array(order), axis=axis)


def _as_float(x):
    if isinstance(x, np.ndarray):
        # numpy's own kinds alone, as keras.applications: bfloat16 arrays, which numpy does not know, become float32.
        return x if issubclass(x.dtype.type, np.floating) else x.astype(keras.config.floatx())
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return x
    if hasattr(x, "astype"):  # JAX
        return x.astype(keras.config.floatx())
    if keras.config.backend() == "tensorflow" or isinstance(x, keras.KerasTensor):
        return keras.ops.cast(x, keras.config.floatx())
    import tensorflow as tf  # a tf.data pipeline that feeds another backend

    return tf.cast(x, keras.config.floatx())


def _per_channel(values, x, axis):
    # A numpy constant takes part in the arithmetic of numpy, TensorFlow, JAX and symbolic Keras tensors alike.
    count = x.shape[axis] or 3
    values = [np.mean(values)] if count == 1 else np.resize(values, count)
    shape = (count,) if axis == -1 else (count, 1, 1)
    return np.asarray(values, dtype=keras.backend.standardize_dtype(x.dtype)).reshape(shape)


def decode_predictions(preds: Array, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the ImageNet classes of a network's answer.

    Args:
        preds: array or tensor `(batch, 1000)` of scores.
        top: how many classes to name, highest first, 1 to 1000. Defaults to 5.

    Returns:
        For each row a list of `top` tuples `(wordnet id, name, score)`, as `keras.applications` gives them (its own
        function is called: it fetches the list of names once, checked by its hash).

    Raises:
        ValueError: for another shape than `(batch, 1000)`, or a `top` out of its range.
        RuntimeError: when the list of names cannot be fetched.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.decode_predictions(np.eye(1000)[:1], top=1)  # doctest: +SKIP
        [[('n01440764', 'tench', 1.0)]]
    """
    shape = getattr(preds, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] != 1000:
        given = type(preds).__name__ if shape is None else f"shape={tuple(shape)}"
        raise ValueError(f"`preds` must be an array (batch, 1000), scores of the ImageNet classes. Received: {given}")
    if not is_whole(top, 1) or top > 1000:
        raise ValueError(f"`top` must be a whole number from 1 to 1000. Received: top={top!r}")
    try:
        return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
    except Exception as error:  # get_file raises bare Exceptions when the network or the server fails
        raise RuntimeError(
            "The ImageNet class names (imagenet_class_index.json) could not be fetched; put a copy into "
            f"{os.path.join(keras_home(), 'models', 'imagenet_class_index.json')} by hand. The reason was: {error}"
        ) from error


def imagenet_names() -> list[str]:
    """Return the names of ImageNet's 1000 classes in the order of the outputs; see `decode_predictions`.

    Two names stand for two classes each (crane: the bird and the machine): those have their wordnet id behind them.
    """
    known = [(identity, name) for [(identity, name, _)] in decode_predictions(np.eye(1000), top=1)]
    count = collections.Counter(name for _, name in known)
    return [name if count[name] == 1 else f"{name} ({identity})" for identity, name in known]


def preprocessing_of(model: keras.Model) -> "Preprocessing | None":
    """Return the `Preprocessing` that a model's weights want, or None where the model carries none.

    Args:
        model: a Keras model built by kresnets, or one built on such a model's layers.

    Example:
        >>> import kresnets
        >>> kresnets.preprocessing_of(kresnets.ResNet18(weights=None, input_shape=(32, 32, 3))).mode
        'torch'
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`preprocessing_of` takes a Keras model. Received: {type(model).__name__}")
    for layer in with_inner(model):
        carried = getattr(layer, "preprocessing", None)
        if isinstance(carried, Preprocessing):
            return carried
    return None


def preprocessing_for(model: keras.Model, forced: Any = None) -> "Preprocessing":
    """Return the `Preprocessing` to use with a model, and warn where it is not the one that its weights want.

    Args:
        model: a Keras model.
        forced: what the user asked for: a mode, a `Preprocessing`, or None for what the model carries. A mode keeps
            the carried crop and size, and the carried means too where the carried mode is the same. A decoding that is
            not given is the carried one.

    Raises:
        ValueError: where the model carries none and none is forced, for an unknown mode, or where images would be
            preprocessed twice, as the model has arithmetic of its own between its input and its first weights.

    Example:
        >>> import kresnets
        >>> kresnets.preprocess.preprocessing_for(kresnets.CifarResNet20(), "torch")
        Preprocessing(mode='torch', crop=1.0, mean=None, std=None, size=None, decoding=None)
    """
    carried = preprocessing_of(model)
    _refuse_twice(model, carried, forced)
    if forced is None:
        if carried is None:
            raise ValueError(
                f"{model.name!r} does not say how its weights want their images: pass what they were trained with, "
                f"such as preprocess='torch' (one of {', '.join(map(repr, MODES))}, or a kresnets.Preprocessing; "
                "keras.applications' ResNets: 'caffe'; networks that have a Rescaling inside: 'none')."
            )
        return carried
    chosen = forced
    if not isinstance(forced, Preprocessing):
        check_mode(forced)
        carried = carried or Preprocessing(forced)
        if forced == carried.mode:
            return carried
        chosen = Preprocessing(forced, crop=carried.crop, size=carried.size)
    if carried is not None and chosen.decoding is None:
        chosen = dataclasses.replace(chosen, decoding=carried.decoding)
    # By what they make of pixels: torch with its own means written out, or tf and torch with 0.5 thrice, are the same.
    if carried is not None and not np.allclose(chosen(_PROBE, "channels_last"), carried(_PROBE, "channels_last")):
        # A random start carries the torch mode and cannot be told from weights that were trained with it.
        warnings.warn(
            f"preprocess={forced!r} is used as asked for, but the weights of {model.name!r} want {carried}: leave "
            "`preprocess` out, unless you know that they were trained otherwise.",
            stacklevel=3,
        )
    return chosen


def _refuse_twice(model, carried, forced):
    mode = forced.mode if isinstance(forced, Preprocessing) else forced or (carried and carried.mode)
    if mode in (None, "none") or not has_graph(model):
        return
    name, certain = changes_pixels(model)
    if name is None or (forced is not None and not certain):
        return
    raise ValueError(
        f"{model.name!r} {'changes' if certain else 'may change'} its images by {name} before its first weights, and "
        f"would get them preprocessed ({mode}) besides: give preprocess='none' if they are then as the weights want "
        f"them, or take {name} out" + ("." if certain else f"; or say preprocess={mode!r} if it does no such thing.")
    )


def set_preprocessing(model: keras.Model, preprocessing: "Preprocessing") -> bool:
    """Have a model that carries a `Preprocessing` carry this one instead; return whether it does, or stays as it is."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`set_preprocessing` takes a Keras model. Received: {type(model).__name__}")
    carriers = [one for one in with_inner(model) if isinstance(getattr(one, "preprocessing", None), Preprocessing)]
    for layer in carriers:
        layer.preprocessing = preprocessing
    return bool(carriers)
