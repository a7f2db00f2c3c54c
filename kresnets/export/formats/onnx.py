"""ONNX: written by Keras and tf2onnx, run by onnxruntime."""

import contextlib
import json
import warnings

import tensorflow as tf

from kresnets.export.formats.network import Format

_NEXT_TO_NOTHING = "next_to_nothing"


def _write(network, file, images, labels):
    import onnx

    with _functions_inlined(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras looks for np.object, which tf2onnx wants
        network.write(file, "onnx")
    model = onnx.load(str(file))
    _keep_padding(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, {"labels": json.dumps(labels, ensure_ascii=False)})
    onnx.save(model, str(file))


def _keep_padding(graph):
    """Pad by the next to nothing instead of by 0 before a max pooling, which then sees all of it.

    onnxruntime from 1.20 to 1.26 at least, and other optimizers, put such a padding into the pooling, where it is
    passed over: another result where a whole window is below 0, as in a v2 network. They do so for 0 alone.
    """
    import onnx

    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    zeros = {each.name for each in graph.initializer if not onnx.numpy_helper.to_array(each).any()}
    paddings = [node for node in graph.node if node.op_type == "Pad" and pooled.intersection(node.output)]
    for node in paddings:
        if len(node.input) < 3 or node.input[2] in zeros:
            node.input[2:3] = [_NEXT_TO_NOTHING]
    if paddings:
        graph.initializer.append(onnx.helper.make_tensor(_NEXT_TO_NOTHING, onnx.TensorProto.FLOAT, (), [1e-30]))


@contextlib.contextmanager
def _functions_inlined():
    """Trace functions that a model calls as part of it: tf2onnx knows no call, which a grouped convolution is."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _open(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


FORMAT = Format("ONNX", (".onnx",), ("tf2onnx", "onnx", "onnxruntime"), "onnx", _write, _open)
