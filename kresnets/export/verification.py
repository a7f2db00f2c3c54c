"""The proof of an export: what was written is loaded again, looked through, and asked what the Keras model is asked."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from kresnets.data.check import check_image
from kresnets.data.transcode import as_png
from kresnets.export.precision import in_half

_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_BATCH = 16  # images asked at a time
_ALLOWED = {"float32": 1e-4, "bfloat16": 2e-2}


def verify(folder, classifier, dtype, images=()):
    """Load a written model and compare its signatures with the Keras model on noise, colours and images.

    Args:
        folder: pathlib.Path of the SavedModel.
        classifier: a `Classifier` of the Keras model as the user gave it, computing in float32.
        dtype: "float32" or "bfloat16", what the written model computes in.
        images: sequence of what `read_images` returned.

    Returns:
        None without images, else a dict for the model card: how many, the largest difference of a served score
        from the Keras model's probability of that label, and the share of images with the same first label.

    Raises:
        ValueError: where the model needs what no server has.
        RuntimeError: where the written model answers differently.
    """
    served = tf.saved_model.load(str(folder))
    _refuse_foreign_operations(served)
    size = classifier.size
    # Rounding to bfloat16 may move answers to colours of no image far, and yet none to an image.
    made = probes(size, classifier.shape[2])[: None if dtype == "float32" else 2]
    pngs = [tf.io.encode_png(image) for image in made] if classifier.decoding.from_bytes else None
    made = tf.stack([classifier.image(png) for png in pngs]) if pngs else tf.cast(made, tf.float32)
    half = in_half(classifier.model)  # with layers of the user's own that could not be copied
    allowed = _ALLOWED["bfloat16" if half else dtype]
    _compare(served, classifier, made, pngs, allowed)
    return _compare_images(served, classifier, images, allowed) if images else None


def probes(size, channels=3):
    """Return images to ask two models about, uint8 `(6, size, size, channels)`: two of noise, four of coloured patches.

    Noise alone says little: it averages out, and all of it gets nearly the same answer.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, size, size, channels))
    patches = rng.integers(0, 256, (4, 3, 3, channels)).repeat(-(-size // 3), axis=1).repeat(-(-size // 3), axis=2)
    return np.concatenate([noise, patches[:, :size, :size]]).astype("uint8")


def read_images(images, classifier):
    """Return the bytes of image files that are to be asked of both models.

    Args:
        images: iterable of paths or of bytes.
        classifier: the `Classifier` that says how they are decoded.

    Raises:
        ValueError: for any where a server decodes none, and for one that is no image, named by its path or its place.
        OSError: for one that cannot be read.
    """
    if isinstance(images, (str, bytes)) or not np.iterable(images):
        raise ValueError(f"`verify_on` must be a sequence of image files. Received: {type(images).__name__}")
    images, contents = list(images), []
    if images and not classifier.decoding.from_bytes:
        raise ValueError(
            f"Files of {classifier.shape[2]} channels are decoded by no server, which could be asked about them: leave "
            "`verify_on` (--verify) out."
        )
    odd = [place for place, given in enumerate(images) if not isinstance(given, (bytes, str, os.PathLike))]
    if odd:
        raise ValueError(
            "`verify_on` must hold image files, each as its path or its bytes. Received: "
            f"{type(images[odd[0]]).__name__} as number {odd[0]}"
        )
    for place, given in enumerate(images):
        content = given if isinstance(given, bytes) else pathlib.Path(given).read_bytes()
        if reason := check_image(content, classifier.decoding).reason:
            name = f"number {place}" if isinstance(given, bytes) else given
            raise ValueError(f"The image {name} cannot be compared, since {reason}: leave it out.")
        contents.append(as_png(content)[0])  # what no server decodes is asked as what training made of it
    return contents


def _compare_images(served, classifier, contents, allowed):
    largest, same = 0.0, 0
    for start in range(0, len(contents), _BATCH):
        files = contents[start : start + _BATCH]
        answer = served.signatures["serving_default"](image_bytes=tf.constant(files))
        if not answer["valid"].numpy().all():
            place = start + int(np.argmin(answer["valid"]))
            raise ValueError(
                f"The served model refuses image number {place} (of more pixels than "
                f"max_pixels={classifier.max_pixels:,}, or of too many scans): leave it out, or raise `max_pixels`; "
                "nothing was exported."
            )
        images = tf.stack([classifier.image(file) for file in files])
        expected = classifier.network(images)["probabilities"].numpy()
        if classifier.scores.numbers:
            difference = np.abs(answer["values"].numpy() - expected) / np.maximum(np.abs(expected), _scale(classifier))
            largest = max(largest, difference.max())
            continue
        for labels, scores, row in zip(answer["labels"].numpy(), answer["scores"].numpy(), expected, strict=True):
            largest = max(largest, _difference(classifier, labels, scores, row))
            same += labels[0].decode() == classifier.labels[row.argmax()]
    if not largest <= allowed:
        raise RuntimeError(
            f"The written model answers {len(contents)} images differently from the Keras model (by "
            f"{largest:.2g}, allowed {allowed:g}); nothing was exported."
        )
    found = {"photographs": len(contents), "largest_difference": float(largest)}
    return found if classifier.scores.numbers else found | {"same_first_label": same / len(contents)}


def _scale(classifier):
    """Return how large numbers are, to which differences are held: what the last layer brings them to, if one does."""
    return np.abs(getattr(classifier.model.layers[-1], "scale", 1.0))


def _difference(classifier, labels, scores, probabilities):
    """How far scores are from the probabilities of their labels, and from the highest there are."""
    highest = np.sort(probabilities)[::-1][: len(scores)]
    largest = np.abs(highest - scores).max()
    names = np.array(classifier.labels)
    for label, score in zip(labels, scores, strict=True):
        of_label = probabilities[names == label.decode()]  # several where classes share a name
        largest = max(largest, np.abs(of_label - score).min(initial=np.inf))
    return largest


def _compare(served, classifier, images, pngs, allowed):
    expected = classifier.network(images)
    features, outputs = expected["features"], expected["probabilities"]
    ask = served.signatures
    scale = tf.maximum(1.0, tf.reduce_max(tf.abs(features)))
    differences = {"features": (ask["features"](images=images)["features"] - features) / scale}
    tensor = ask["predict_tensor"](images=images)
    numbers = classifier.scores.numbers
    large = np.maximum(np.abs(outputs), _scale(classifier)) if numbers else 1.0
    differences["predict_tensor"] = (tensor["values" if numbers else "probabilities"] - outputs) / large
    if pngs:
        files = tf.stack([pngs[0], tf.constant(b"no image"), *pngs[1:]])
        images_at = [0, *range(2, len(pngs) + 1)]
        answer = ask["serving_default"](image_bytes=files)
        if numbers:
            differences["serving_default"] = (tf.gather(answer["values"], images_at) - outputs) / large
        else:
            best = tf.math.top_k(outputs, classifier.top).values
            differences["serving_default"] = tf.gather(answer["scores"], images_at) - best
            differences["classify"] = tf.gather(ask["classify"](inputs=_examples(files))["scores"], images_at) - best
    for name, difference in differences.items():
        largest = float(tf.reduce_max(tf.abs(difference)))
        if not largest <= allowed:  # also when it is NaN
            raise RuntimeError(
                f"The written model answers differently from the Keras model ({name}: by {largest:.2g}, allowed "
                f"{allowed:g}); nothing was exported."
            )
    if pngs and np.flatnonzero(answer["valid"]).tolist() != images_at:
        raise RuntimeError("The written model does not tell images from other bytes; nothing was exported.")


def _examples(files):
    def example(data):
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()

    return tf.constant([example(data) for data in files.numpy()])


def operations(graph):
    """List the operations of a graph and of the functions in its library, sorted.

    Args:
        graph: a GraphDef.
    """
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sorted({node.op for node in nodes} - functions)


def _refuse_foreign_operations(served):
    found = {op for each in served.signatures.values() for op in operations(each.graph.as_graph_def())}
    if python := sorted(found & _PYTHON_OPS):
        raise ValueError(
            f"The model calls Python while it runs ({', '.join(python)}), which no server can: remove that layer."
        )
    if foreign := sorted(op for op in found if not hasattr(tf.raw_ops, op)):
        raise ValueError(
            f"The model needs operations that are not TensorFlow's own ({', '.join(foreign)}), which no server has: "
            "remove the layer that brings them."
        )
