"""LiteRT, once TensorFlow Lite: written by Keras and TensorFlow's converter, run by LiteRT's interpreter."""

import numpy as np
import tensorflow as tf

from kresnets.export.formats.network import Format


def _write(network, file, images, labels):
    # Of its own operations alone: Keras would allow those of TensorFlow too, which most devices have not.
    network.write(file, "litert", target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]})


def _write_int8(network, file, images, labels):
    images = images.copy()
    images[0].flat[:2] = 0, 255  # so that the range of the input is 0..255, and a pixel its own code
    network.write(
        file,
        "litert",
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image] for image in images[:, np.newaxis]),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        inference_input_type=tf.uint8,
    )


def _open(file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    dtype = interpreter.get_input_details()[0]["dtype"]
    run = interpreter.get_signature_runner("serving_default")
    fit = np.rint if dtype == np.uint8 else np.asarray  # an image that was resized has fractions
    return lambda images: run(images=fit(images).astype(dtype))["probabilities"]


FLOAT32 = Format("LiteRT", (".tflite",), ("ai_edge_litert",), "litert", _write, _open)
INT8 = Format("LiteRT in int8", (".tflite",), ("ai_edge_litert",), "litert", _write_int8, _open, calibrated=True)
