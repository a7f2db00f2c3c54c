"""From a row to a Keras model: every check of a builder's arguments, the input, the trunk, the head, the weights."""

import collections.abc
import contextlib
import dataclasses
import re

import keras

from kresnets import task
from kresnets import weights as weights_package
from kresnets._util.checks import is_whole
from kresnets._util.types import PathLike, Tensor
from kresnets.networks import inception, resnet
from kresnets.networks.layers import Carrier
from kresnets.networks.recompute import recompute as recomputing
from kresnets.preprocess import Preprocessing
from kresnets.specs import InceptionSpec, ResNetSpec, Spec
from kresnets.weights import origin

_OWN_NAME = re.compile(r"stem_|stage[1-9]\d*_|head_")  # how a network's own layers are called
_TRUNKS = {ResNetSpec: resnet.trunk, InceptionSpec: inception.trunk}


def build(
    spec: Spec,
    include_top: bool = True,
    weights: str | PathLike | None = None,
    input_tensor: Tensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    recompute: bool = False,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """Build the network of any row, a user's own too.

    Args:
        spec: a row of `kresnets.SPECS`, or one made from it by `dataclasses.replace`.
        include_top: whether the head (global average pool and dense layer) is there.
        weights: None for a random start, `"imagenet"` (the best freely licensed file known), a tag that
            `kresnets.weights.list(spec.name)` shows, or a path: `.safetensors` in timm's layout, `.h5`/`.weights.h5` of
            keras.applications, `.weights.h5` of kresnets.
        input_tensor: symbolic tensor (or `keras.Input`) to build upon, `(batch, height, width, channels)`.
        input_shape: `(height, width, channels)`, or `(channels, height, width)` under channels first. None takes the
            row's size with the head and leaves height and width free without it.
        pooling: without the head: `"avg"` or `"max"` for a global pool, None for the feature map.
        classes: outputs of the head. Defaults to the row's.
        classifier_activation: activation of the head; None gives logits. Defaults to `"softmax"`.
        name: the model's name. Defaults to the row's in lower case.
        recompute: train in less memory and more time, see `kresnets.recompute`. Defaults to False.
        dtype: what its layers compute in: a Keras dtype policy or its name, such as `"mixed_bfloat16"`. Defaults to
            None, Keras's own of the moment.

    Returns:
        A flat Functional `keras.Model` from preprocessed images to class scores, features or a feature map.

    Raises:
        ValueError: for arguments that do not fit the row or each other; the sentence says what is allowed.

    Example:
        >>> import dataclasses, kresnets
        >>> slim = dataclasses.replace(kresnets.SPECS["ResNet18D"], widths=(16, 32, 64, 128), params=None)
        >>> kresnets.build(slim, classes=5, input_shape=(64, 64, 3)).output_shape
        (None, 5)
    """
    if not isinstance(spec, Spec):
        raise ValueError(f'`spec` must be a row such as kresnets.SPECS["ResNet50D"]. Received: {spec!r}')
    classes = spec.classes if classes is None else classes
    _check_arguments(spec, include_top, pooling, classes, classifier_activation)
    classes = int(classes)  # numpy's too
    if not isinstance(recompute, bool):
        raise ValueError(f"{spec.name}: `recompute` must be True or False. Received: recompute={recompute!r}")
    input_shape = _input_shape(spec, include_top, input_tensor, input_shape)
    # Before any layer is made: an unknown file or tag should cost no time and leave nothing behind.
    source = weights_package.fetched(weights_package.resolve(spec, weights), spec, include_top, classes)
    image = _image(input_tensor, input_shape)
    with _policy(spec, dtype):
        x = _TRUNKS[type(spec)](image, spec)
        x = _head(x, spec, include_top, pooling, classes, classifier_activation)
    inputs = image if input_tensor is None else keras.utils.get_source_inputs(image)
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]  # a model of one image, not of a list with one image
    model = keras.Model(inputs, x, name=name or spec.name.lower())
    preprocessing = Preprocessing()
    if source is not None:
        preprocessing = weights_package.load(model, spec, source, include_top=include_top, classes=classes)
    _carry(model, preprocessing)
    origin.note(model, None if source is None else weights_package.name_of(source))
    if source is not None and source.published and include_top and classes == spec.classes:
        task.set_task(model, "classes")
    return recomputing(model) if recompute else model


@contextlib.contextmanager
def _policy(spec, dtype):
    """Have new layers compute in a dtype; Keras's policy is that of the process, and comes back."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(before if dtype is None else dtype)
    except ValueError:
        raise ValueError(
            f"{spec.name}: `dtype` must be a Keras dtype policy or its name, such as 'float32' or 'mixed_bfloat16'. "
            f"Received: dtype={dtype!r}"
        ) from None
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_arguments(spec, include_top, pooling, classes, classifier_activation):
    if not isinstance(include_top, bool):
        raise ValueError(f"{spec.name}: `include_top` must be True or False. Received: include_top={include_top!r}")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"{spec.name}: `pooling` must be None, 'avg' or 'max'. Received: pooling={pooling!r}")
    if not is_whole(classes, 1):
        raise ValueError(f"{spec.name}: `classes` must be a whole number from 1. Received: classes={classes!r}")
    try:
        keras.activations.get(classifier_activation)
    except (ValueError, TypeError):
        raise ValueError(
            f"{spec.name}: `classifier_activation` must be None or the name of a Keras activation such as 'softmax'. "
            f"Received: {classifier_activation!r}"
        ) from None


def _input_shape(spec, include_top, input_tensor, input_shape):
    """Return the checked image shape, None where a side is free."""
    first = keras.config.image_data_format() == "channels_first"
    if isinstance(input_shape, collections.abc.Iterable):
        input_shape = tuple(input_shape)
    if input_tensor is not None:
        if not isinstance(input_tensor, keras.KerasTensor):
            raise ValueError(
                f"{spec.name}: `input_tensor` must be a symbolic Keras tensor such as keras.Input((224, 224, 3)); to "
                f"run the network on an array, call the model. Received: {type(input_tensor).__name__}"
            )
        given = tuple(input_tensor.shape[1:])
        if input_shape not in (None, given):
            raise ValueError(
                f"{spec.name}: `input_shape` and `input_tensor` disagree; leave `input_shape` out. Received: "
                f"input_shape={input_shape}, input_tensor of shape {given}"
            )
        _check_names(spec, input_tensor)
        input_shape = given
    if input_shape is None:
        side = spec.input_size if include_top else None
        return (3, side, side) if first else (side, side, 3)
    if not _fits(input_shape, spec, first):
        layout = "(channels, height, width)" if first else "(height, width, channels)"
        raise ValueError(
            f"{spec.name}: `input_shape` must be {layout} with at least {spec.min_size} pixels a side (None: free) "
            f"and at least 1 channel. Received: input_shape={input_shape}"
        )
    return input_shape


def _check_names(spec, tensor):
    """Refuse layers before the stem that are named as the network's own: files and groups find layers by name."""
    before = keras.Model(keras.utils.get_source_inputs(tensor), tensor).layers
    taken = [
        layer.name for layer in before if _OWN_NAME.match(layer.name) and not isinstance(layer, keras.layers.InputLayer)
    ]
    if taken:
        raise ValueError(
            f"{spec.name}: `input_tensor` comes from a layer called {taken[0]!r}, a name that belongs to the network "
            "(stem_, stage1_ ..., head_): give your layer another one."
        )


def _fits(input_shape, spec, first):
    if not isinstance(input_shape, tuple) or len(input_shape) != 3:
        return False
    sides, channels = (input_shape[1:], input_shape[0]) if first else (input_shape[:-1], input_shape[-1])
    whole = all(side is None or is_whole(side) and side >= spec.min_size for side in sides)
    return whole and is_whole(channels) and channels >= 1


def _image(input_tensor, input_shape):
    # Named, so that names are the same however many models a process builds.
    return keras.Input(input_shape, name="stem_input") if input_tensor is None else input_tensor


def _head(x, spec, include_top, pooling, classes, classifier_activation):
    pools = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    pooling = "avg" if include_top else pooling
    if pooling is None:
        return x
    x = pools[pooling](name="head_pool")(x)
    if not include_top:
        return x
    if spec.dropout:
        x = keras.layers.Dropout(spec.dropout, name="head_dropout")(x)
    # Scores stay float32 under a mixed policy: a softmax in bfloat16 has three digits.
    policy = keras.mixed_precision.dtype_policy()
    dtype = policy.variable_dtype if policy.compute_dtype != policy.variable_dtype else None
    return keras.layers.Dense(classes, activation=classifier_activation, dtype=dtype, name="head_dense")(x)


def _carry(model, preprocessing):
    first = next((layer for layer in model.layers if isinstance(layer, Carrier)), None)
    if first is not None:
        first.preprocessing = dataclasses.replace(preprocessing)
