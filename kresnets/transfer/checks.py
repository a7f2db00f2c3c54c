"""Whether a model, images and labels fit each other, before anything is trained."""

import numpy as np

from kresnets.transfer.inputs import check_source, is_dataset, rows_of, with_length
from kresnets.transfer.labels import Labels, first_labels


def check_model(model):
    """Raise a ValueError for a model that cannot be fine-tuned."""
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


def checked_data(model, train, validation, task="auto", loss=None, preprocessing=None):
    """Hold a model and its data against each other.

    Args:
        model, train, validation, task, loss: as of `fine_tune`.
        preprocessing: the `kresnets.Preprocessing` of the images; None leaves their range alone. Defaults to None.

    Returns:
        `(labels, (train, steps), (validation, steps))`: the `Labels` of the training data, and each source as
        `check_source` returns it with its number of batches an epoch; `(None, 0)` for no validation.
    """
    check_model(model)
    found, labels = [], None
    for source, argument in ((train, "train"), (validation, "validation")):
        if source is None and argument == "validation":
            found.append((None, 0))
            continue
        source = check_source(source, argument)
        _check_batch(model, source, argument)
        first = first_labels(source)
        if task == "auto" and (rows := rows_of(source)) is not None and rows.part.task != "classes":
            task = rows.part.task  # the data say it
        labels = Labels.of(model, first, task, loss) if labels is None else labels
        if first is not None:
            labels.like(first).check(first, f"`{argument}`")
        else:
            labels.like(first).check_shape((1,), f"`{argument}`: ")
        _check_images(source, f"`{argument}`")
        if preprocessing is not None:
            check_pixels(_first_images(source), f"`{argument}`", preprocessing)
        found.append(with_length(source, argument))
    return labels, *found


def decoding_of(*sources):
    """Return the `Decoding` by which pipelines of `kresnets.data` get their pixels, through whatever was mapped over
    them, or None where that is not known.

    Raises:
        ValueError: where they differ in it.
    """
    found, left = [], list(sources)
    while left:
        source = left.pop()
        if (rows := rows_of(source)) is not None:
            found.append(rows.part.decoding)
        elif is_dataset(source):
            left += getattr(source, "_inputs", list)()  # TensorFlow's own way to say what a pipeline is made of
    if len(set(found)) > 1:
        raise ValueError(
            f"The images are decoded in different ways, {' and '.join(map(str, set(found)))}: load all of them at "
            "once, or give `load_data` the `decoding` of the others."
        )
    return found[0] if found else None


_LOOKED_AT = 64  # images of arrays
_MOST_BLACK = 10  # batches without a bright pixel, after which one gives up


def _first_images(source):
    """Yield images in batches: some of arrays, the first ones of others; none of a part of `load_data`, whose pixels
    are 0..255 by its own hand."""
    if isinstance(source, tuple):
        yield source[0][:: max(1, len(source[0]) // _LOOKED_AT)]
    elif is_dataset(source):
        if rows_of(source) is None:
            yield from (np.asarray(batch[0]) for batch in source.take(_MOST_BLACK))
    else:
        yield from (np.asarray(source[number][0]) for number in range(min(_MOST_BLACK, source.num_batches or 1)))


def check_pixels(arrays, what, preprocessing):
    """Raise a ValueError where images are within 0..1, or were preprocessed already, though the weights want them made
    of pixels 0..255.

    Black images alone tell nothing: of batches so many are looked at that two are not black.
    """
    if preprocessing.mode == "none":
        return
    low, high, bright = 0.0, 0.0, 0
    for images in arrays:
        if not np.size(images):
            continue
        low, high = min(low, float(np.min(images))), max(high, float(np.max(images)))
        bright += high > 0
        if bright == 2:
            break
    ways = "or preprocess='none' if the network takes them as they are."
    # By a margin, since resizing overshoots; -64 is out of its reach, and -104 what a mean subtracted from black gives.
    if low >= 0 and 0 < high <= 1.1:
        raise ValueError(
            f"{what}: the images are within 0..1, and the model preprocesses pixels 0..255 ({preprocessing.mode}): "
            f"give images * 255, {ways}"
        )
    if low < 0 and high <= 10 or low < -64:
        raise ValueError(
            f"{what}: the images go from {low:.3g} to {high:.3g}, as if they were preprocessed already, and the model "
            f"preprocesses pixels 0..255 ({preprocessing.mode}): give these, {ways}"
        )


def _check_images(source, what):
    """Look through the images of arrays for what is no number."""
    if not isinstance(source, tuple):
        return
    images = source[0]
    if not np.issubdtype(images.dtype, np.number):
        raise ValueError(f"{what}: images must be numbers. Received: {images.dtype}")
    if (
        np.issubdtype(images.dtype, np.floating)
        and not np.isfinite(bad := images.sum(tuple(range(1, images.ndim)))).all()
    ):
        raise ValueError(f"{what}: image {int(np.argmin(np.isfinite(bad)))} holds NaN or infinity; pixels are 0..255.")


def checked_class_weight(class_weight, train, labels):
    """Return a `class_weight` as None or a dict class -> weight from 0; `"balanced"` reads the labels of `train`."""
    if class_weight is None:
        return None
    classes = labels.classes
    if labels.scores.task != "classes":
        raise ValueError(
            f"`class_weight` goes with task='classes': of {labels.scores.task} an image has no one weight of a class; "
            "give weights of the images as third part of `train`."
        )
    if isinstance(class_weight, str) and class_weight == "balanced":
        from kresnets.data import class_weight as balanced

        return balanced(labels.numbers(_labels(train)))
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
        return source[1]
    batches = source if is_dataset(source) else (source[number] for number in range(source.num_batches))
    return np.concatenate([np.asarray(batch[1]) for batch in batches])


def _check_batch(model, source, argument):
    """Hold the kind and shapes of a batch against the model; the labels' range is held against it as they come."""
    if is_dataset(source):
        spec = source.element_spec
        if not isinstance(spec, tuple) or len(spec) not in (2, 3) or not all(hasattr(part, "shape") for part in spec):
            raise ValueError(f"`{argument}` must give batches (images, labels). Received elements: {spec}")
        shapes = [tuple(part.shape) if part.shape.rank is not None else None for part in spec[:2]]
        if not (spec[1].dtype.is_integer or spec[1].dtype.is_floating or spec[1].dtype.is_bool):
            raise ValueError(f"`{argument}`: labels must be numbers. Received: {spec[1].dtype.name}")
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
