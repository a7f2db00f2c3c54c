"""Whether a model, images and labels fit each other, before anything is trained."""

import numpy as np

from kresnets.transfer.inputs import BATCH_SIZE, check_range, check_source, is_dataset, with_length


def check_model(model, loss):
    """Return the number of classes of a model that can be fine-tuned; raise a ValueError for another one."""
    if not isinstance(getattr(model, "inputs", None), list):
        raise ValueError(
            "fine_tune takes a Functional or Sequential Keras model that has been built. Received: "
            f"{type(model).__name__}"
        )
    shape = model.output_shape
    if len(model.inputs) != 1 or not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            "The model must take one batch of images and give one score a class (batch, classes): build it with "
            f"include_top=True, or add a pool and a Dense layer. Received: {model.name!r} with output shape {shape}"
        )
    if shape[-1] < 2 and loss is None:
        raise ValueError(
            f"{model.name!r} has {shape[-1]} output: use 2 or more with integer labels, or pass your own `loss`."
        )
    return shape[-1]


def checked(source, argument, model, classes, preprocessing=None):
    """Return a source that fits a model, and its number of batches an epoch."""
    source = check_source(source, argument)
    _check_batch(model, source, argument)
    if isinstance(source, tuple):
        _check_arrays(*source[:2], argument, classes)
    if preprocessing is not None and preprocessing.mode != "none":
        check_pixels(_first_images(source), f"`{argument}`", preprocessing)
    return with_length(source, argument)


def decoding_of(*sources):
    """Return the `Decoding` by which pipelines of `kresnets.data` get their pixels, through whatever was mapped over
    them, or None where that is not known.

    Raises:
        ValueError: where they differ in it.
    """
    found, left = [], list(sources)
    while left:
        source = left.pop()
        if hasattr(source, "kresnets_rows"):
            found.append(source.kresnets_rows.part.decoding)
        elif is_dataset(source):
            left += getattr(source, "_inputs", list)()  # TensorFlow's own way to say what a pipeline is made of
    if len(set(found)) > 1:
        raise ValueError(
            f"The images are decoded in different ways, {' and '.join(map(str, set(found)))}: load all of them at "
            "once, or give `load_data` the `decoding` of the others."
        )
    return found[0] if found else None


def _first_images(source, batches=2):
    """Yield the images of the first batches; none of a part of `load_data`, whose pixels are 0..255 by its own hand."""
    if isinstance(source, tuple):
        yield source[0][: batches * BATCH_SIZE]
    elif is_dataset(source):
        if not hasattr(source, "kresnets_rows"):
            yield from (np.asarray(batch[0]) for batch in source.take(batches))
    else:
        yield from (np.asarray(source[number][0]) for number in range(min(batches, source.num_batches or 1)))


def check_pixels(arrays, what, preprocessing):
    """Raise a ValueError where images stay within 0..1, though the weights want them made of pixels 0..255.

    Black images alone tell nothing.
    """
    ranges = [(float(np.min(images)), float(np.max(images))) for images in arrays if np.size(images)]
    if ranges and min(low for low, _ in ranges) >= 0 and 0 < max(high for _, high in ranges) <= 1:
        raise ValueError(
            f"{what}: the images are within 0..1, and the model preprocesses pixels 0..255 ({preprocessing.mode}): "
            "give images * 255, or preprocess='none' if the network takes them as they are."
        )


def _check_arrays(images, labels, argument, classes):
    whole = np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)
    if not whole or not np.issubdtype(images.dtype, np.number) or np.any(labels != np.round(labels)):
        raise ValueError(
            f"`{argument}`: images must be numbers, labels integers, one an image. Received: {images.dtype}, "
            f"{labels.dtype} such as {labels.ravel()[0]!r}"
        )
    check_range(labels, classes)
    if (
        np.issubdtype(images.dtype, np.floating)
        and not np.isfinite(bad := images.sum(tuple(range(1, images.ndim)))).all()
    ):
        raise ValueError(
            f"`{argument}`: image {int(np.argmin(np.isfinite(bad)))} holds NaN or infinity; pixels are 0..255."
        )


def checked_class_weight(class_weight, train, classes):
    """Return a `class_weight` as None or a dict class -> weight from 0; `"balanced"` reads the labels of `train`."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        from kresnets.data import class_weight as balanced

        return balanced(_labels(train))
    if class_weight is None:
        return None
    numbers = (int, float, np.integer, np.floating)
    fits = isinstance(class_weight, dict) and all(
        isinstance(key, (int, np.integer)) and 0 <= key < classes and isinstance(value, numbers) and 0 <= value < np.inf
        for key, value in class_weight.items()
    )
    if not fits:
        raise ValueError(
            f"`class_weight` must be a dict {{class: weight}} of classes 0 to {classes - 1} and weights from 0, such "
            f"as `kresnets.data.class_weight(labels)` gives, or 'balanced'. Received: {class_weight!r}"
        )
    return dict(class_weight)


def _labels(source):
    if isinstance(source, tuple):
        return np.asarray(source[1]).reshape(-1)
    batches = source if is_dataset(source) else (source[number] for number in range(source.num_batches))
    return np.concatenate([np.asarray(batch[1]).reshape(-1) for batch in batches])


def _check_batch(model, source, argument):
    """Hold the kind and shapes of a batch against the model; the labels' range is held against it as they come."""
    if is_dataset(source):
        spec = source.element_spec
        if not isinstance(spec, tuple) or len(spec) not in (2, 3) or not all(hasattr(part, "shape") for part in spec):
            raise ValueError(f"`{argument}` must give batches (images, labels). Received elements: {spec}")
        shapes = [tuple(part.shape) if part.shape.rank is not None else None for part in spec[:2]]
        if not (spec[1].dtype.is_integer or spec[1].dtype.is_floating):
            raise ValueError(f"`{argument}`: labels must be integers, one an image. Received: {spec[1].dtype.name}")
    elif isinstance(source, tuple):
        shapes = [tuple(part.shape) for part in source[:2]]
    else:
        batch = source[0]
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(f"`{argument}` must give batches (images, labels). Received: {type(batch).__name__}")
        shapes = [tuple(np.shape(part)) for part in batch[:2]]
    images, labels = shapes
    if images == () or labels is not None and len(labels) == 0:
        raise ValueError(f"`{argument}` gives single images: put them into batches (dataset.batch(32)).")
    if images is not None and len(images) == 3:
        raise ValueError(
            f"`{argument}` gives single images of shape {images}: put them into batches (dataset.batch(32))."
        )
    wanted = model.input_shape
    fits = (
        images is None
        or len(images) == 4
        and all(a is None or b is None or a == b for a, b in zip(images[1:], wanted[1:]))
    )
    if not fits:
        raise ValueError(
            f"`{argument}`: {model.name!r} takes images of shape {wanted[1:]}. Received batches of shape {images}; "
            "resize them, or build the "
            "model with that input_shape."
        )
    if labels is not None and len(labels) == 2 and labels[1] not in (1, None):
        raise ValueError(f"`{argument}`: labels must be integers (batch,), not one-hot. Received shape: {labels}")
