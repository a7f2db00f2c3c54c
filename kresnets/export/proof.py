"""The proof of an export: what was written is loaded again, looked through, and asked what the Keras model is asked."""

import numpy as np
import tensorflow as tf

from kresnets.data.images import load_image
from kresnets.export.precision import in_half

_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_ALLOWED = {"float32": 1e-4, "bfloat16": 2e-2}


def verify(folder, classifier, dtype):
    """Load a written model and compare each signature with the Keras model on pictures of noise.

    Args:
        folder: pathlib.Path of the SavedModel.
        classifier: a `Classifier` of the Keras model as the user gave it, computing in float32.
        dtype: "float32" or "bfloat16", what the written model computes in.

    Raises:
        ValueError: where the model needs what no server has, or gives probabilities where it says logits.
        RuntimeError: where the written model answers differently.
    """
    served = tf.saved_model.load(str(folder))
    _refuse_foreign_operations(served)
    size = classifier.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("uint8")
    pngs = [tf.io.encode_png(image) for image in pixels]
    images = tf.stack([load_image(png, size, classifier.preprocessing.crop) for png in pngs])
    outputs = classifier.outputs(images)
    _refuse_double_softmax(classifier, outputs)
    half = in_half(classifier.model)  # with layers of the user's own that could not be copied
    _compare(served, classifier, images, pngs, _ALLOWED["bfloat16" if half else dtype])


def _compare(served, classifier, images, pngs, allowed):
    expected = classifier.network(images)
    features = expected["features"]
    best = tf.math.top_k(expected["probabilities"], classifier.top).values
    files = tf.stack([pngs[0], tf.constant(b"no image"), pngs[1]])
    ask = served.signatures
    answer, classified = ask["serving_default"](image_bytes=files), ask["classify"](inputs=_examples(files))
    scale = tf.maximum(1.0, tf.reduce_max(tf.abs(features)))
    differences = {
        "predict_tensor": ask["predict_tensor"](images=images)["probabilities"] - expected["probabilities"],
        "features": (ask["features"](images=images)["features"] - features) / scale,
        "serving_default": tf.gather(answer["scores"], [0, 2]) - best,
        "classify": tf.gather(classified["scores"], [0, 2]) - best,
    }
    for name, difference in differences.items():
        largest = float(tf.reduce_max(tf.abs(difference)))
        if not largest <= allowed:  # also when it is NaN
            raise RuntimeError(
                f"The written model answers differently from the Keras model ({name}: by {largest:.2g}, allowed "
                f"{allowed:g}); nothing was exported."
            )
    if answer["valid"].numpy().tolist() != [True, False, True]:
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


def _refuse_double_softmax(classifier, outputs):
    # An Activation("linear", dtype="float32") behind a softmax reads as logits but is none.
    outputs = tf.cast(outputs, tf.float32).numpy()
    if classifier.activation == "linear" and outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-2):
        raise ValueError(
            "The model ends in a linear activation but gives probabilities already: end it with the softmax itself, "
            "for example keras.layers.Activation('softmax', dtype='float32')."
        )
