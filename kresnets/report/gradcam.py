"""Where in an image the evidence for an answer lies: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391)."""

import keras
import numpy as np

from kresnets._util.types import Array
from kresnets.keras_hooks.graph import last_activation

_SQUASHING = (keras.activations.softmax, keras.activations.sigmoid)


def grad_cam(
    model: keras.Model, images: Array, classes: Array | None = None, layer: str | None = None, batch_size: int = 16
) -> Array:
    """Return a heat map for each image: where its features speak for a class.

    The score is the class's logit, never its softmax: a softmax's gradient mixes in what speaks against the other
    classes, and vanishes where the model is sure. Runs on the TensorFlow and JAX backends. The model is not changed.

    Args:
        model: a Functional or Sequential Keras model with one image input and one output `(batch, classes)`; a nested
            trunk is looked into.
        images: floats `(images, height, width, channels)` (or channels first, as the model has it), preprocessed as
            the model takes them.
        classes: integers `(images,)`, the class to explain for each image (0 or 1 where one output speaks for the
            second of two). Defaults to None, the model's own answers.
        layer: name of the layer whose output is the feature map. All paths from input to output must pass through it.
            Defaults to None, what enters the last layer that turns a feature map into a vector (the global pooling).
        batch_size: int, images in memory at once. Defaults to 16.

    Returns:
        float32 array `(images, height, width)` in 0..1; each image's maximum is 1, or all is 0 where nothing speaks for
        the class.

    Raises:
        ValueError: for another kind of model, or a `layer` that it lacks or that is no cut through it.
        NotImplementedError: on other backends.

    Example:
        >>> import keras, numpy as np
        >>> from kresnets.report import grad_cam
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
        ...                           keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")])
        >>> grad_cam(model, np.ones((5, 8, 8, 3))).shape
        (5, 8, 8)
    """
    if keras.config.backend() not in _GRADIENTS:
        raise NotImplementedError(
            f"Grad-CAM runs on the backends {', '.join(_GRADIENTS)}, not {keras.config.backend()}; set KERAS_BACKEND."
        )
    before, after, data_format = _cut(model, layer)
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"`images` must have 4 axes: a batch of images. Received: shape={images.shape}")
    if classes is not None:
        classes = _checked_classes(classes, len(images), max(2, model.outputs[0].shape[-1]))
    channel = {"channels_last": 3, "channels_first": 1}[data_format]
    height, width = (side for axis, side in enumerate(images.shape) if axis not in (0, channel))
    # Of one output: where a sigmoid is an operation within, it stays, and answers from 0.5 on.
    middle = 0.5 if isinstance(after[-1], keras.Model) and last_activation(after[-1]) == "sigmoid" else 0.0
    heat = np.zeros((len(images), height, width), dtype="float32")
    for start in range(0, len(images), batch_size):
        piece = slice(start, start + batch_size)
        features = _apply(before, keras.ops.convert_to_tensor(images[piece], dtype=model.inputs[0].dtype))
        explained = _answers(_numpy(_apply(after, features)), middle) if classes is None else classes[piece]
        gradients = _GRADIENTS[keras.config.backend()](after, features, explained)
        maps = _weighted(np.moveaxis(_numpy(features), channel, 3), np.moveaxis(_numpy(gradients), channel, 3))
        maps = keras.ops.image.resize(maps[..., None], (height, width), data_format="channels_last")
        heat[piece] = _scaled(_numpy(maps)[..., 0])
    return heat


def _checked_classes(classes, images, limit):
    classes = np.asarray(classes)
    if classes.shape != (images,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"`classes` must be one integer for each of the {images} images. Received: {classes!r}")
    if images and not (classes.min() >= 0 and classes.max() < limit):
        raise ValueError(f"`classes` must be from 0 to {limit - 1}. Received: {classes.min()} to {classes.max()}")
    return classes


def _weighted(features, gradients):
    """Sum the channels, each by its mean gradient, and keep what speaks for the class; `(images, height, width)`."""
    return np.maximum(np.einsum("nhwc,nc->nhw", features, gradients.mean(axis=(1, 2))), 0)


def _scaled(maps):
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def _numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def _apply(steps, x):
    for step in steps:
        x = step(x, training=False)
    return x


def _answers(scores, middle):
    return scores.argmax(axis=-1) if scores.shape[-1] > 1 else (scores[:, 0] > middle).astype("int64")


def _chosen_sum(logits, classes):
    if logits.shape[-1] == 1:  # what speaks against the second class speaks for the first
        return keras.ops.sum(logits[:, 0] * keras.ops.convert_to_tensor(2.0 * classes - 1.0, dtype=logits.dtype))
    # Images do not influence one another in inference, so the gradient of the sum holds each image's own.
    return keras.ops.sum(keras.ops.take_along_axis(logits, keras.ops.convert_to_tensor(classes[:, None]), axis=-1))


def _tensorflow_gradients(steps, features, classes):
    import tensorflow as tf  # the only way to a gradient on this backend: Keras has no function for it

    with tf.GradientTape() as tape:
        tape.watch(features)
        score = _chosen_sum(_apply(steps, features), classes)
    return tape.gradient(score, features)


def _jax_gradients(steps, features, classes):
    import jax

    def score(x):
        for step in steps:
            weights = [variable.value for variable in step.trainable_variables]
            statistics = [variable.value for variable in step.non_trainable_variables]
            x, _ = step.stateless_call(weights, statistics, x, training=False)
        return _chosen_sum(x, classes)

    return jax.grad(score)(features)


_GRADIENTS = {"tensorflow": _tensorflow_gradients, "jax": _jax_gradients}


def _cut(model, layer):
    """Return the models before and after the feature map, in their order, and the map's data format."""
    graph, calls = _calls(model)
    if layer is None:
        cuts = [(step, x, y) for step, x, y in calls if _rank(x) == 4 and _rank(y) in (2, 3)]
    else:
        cuts = [call for call in calls if isinstance(call[0], keras.Model) and _holds(call[0], layer)]
        cuts += [(step, y, y) for step, _, y in calls if step.name == layer]
    if not cuts:
        raise ValueError(
            f"The model {model.name!r} has no layer {layer!r}."
            if layer
            else f"The model {model.name!r} has no layer that turns a feature map of 4 axes into a vector; name the "
            "layer whose output is the feature map by `layer=`."
        )
    step, feature, after = cuts[-1]
    if isinstance(step, keras.Model) and step.name != layer:  # a nested trunk that pools inside
        inner_before, inner_after, data_format = _cut(step, layer)
        return _between(graph, feature) + inner_before, inner_after + _tail(graph, calls, after), data_format
    if _rank(feature) != 4:
        raise ValueError(f"The output of layer {layer!r} is no feature map of 4 axes. Received: shape={feature.shape}")
    data_format = getattr(step, "data_format", None) or keras.config.image_data_format()
    return _between(graph, feature), _tail(graph, calls, feature), data_format


def _calls(model):
    """Return a model's graph and the calls in it, in order: (operation, input tensor or tensors, output tensor).

    The graph is traced anew with the model's own layers, since a layer that is called more than once (a trunk used in
    two models) cannot tell which of its tensors belong to this one.
    """
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Grad-CAM needs a Functional or built Sequential Keras model with one input and one output. Received: "
            f"{type(model).__name__}"
        )
    calls = []

    def record(operation, *args, **kwargs):
        result = operation(*args, **kwargs)
        calls.append((operation, args[0] if args else None, result))
        return result

    plain = keras.Model(model.inputs[0], model.outputs[0])  # a Sequential as a Functional
    return keras.models.clone_model(plain, clone_function=lambda operation: operation, call_function=record), calls


def _rank(tensor):
    return len(tensor.shape) if isinstance(tensor, keras.KerasTensor) else None


def _holds(model, name):
    return any(layer.name == name or (isinstance(layer, keras.Model) and _holds(layer, name)) for layer in model.layers)


def _between(graph, end, start=None):
    """Return the part of a graph from one tensor (its input) to another as a list of no or one model."""
    start = graph.inputs[0] if start is None else start
    if start is end:
        return []
    try:
        return [keras.Model(start, end)]
    except ValueError as error:
        raise ValueError(
            f"Not all paths through the model {graph.name!r} pass through the feature map: name by `layer=` a layer "
            "that nothing goes round, as the output of a whole block."
        ) from error


def _tail(graph, calls, start):
    """Return the models from `start` to the scores before a last softmax or sigmoid."""
    end = graph.outputs[0]
    if start is end:
        return []
    last, x = next((step, x) for step, x, y in reversed(calls) if y is end)
    if isinstance(last, keras.layers.Softmax) or (isinstance(last, keras.layers.Activation) and _squashes(last)):
        return _between(graph, x, start)
    if isinstance(last, keras.Model):
        inner, inner_calls = _calls(last)
        return _between(graph, x, start) + _tail(inner, inner_calls, inner.inputs[0])
    if _squashes(last):  # the same layer with the activation left out; the user's own stays as it is
        twin = type(last).from_config({**last.get_config(), "activation": "linear"})
        end = twin(x)
        twin.set_weights(last.get_weights())
    return _between(graph, end, start)


def _squashes(operation):
    return getattr(operation, "activation", None) in _SQUASHING
