"""OpenVINO: written by Keras and OpenVINO's converter, run by its runtime."""

import contextlib
import logging
import sys
from unittest import mock

from kresnets.export.formats.network import Format


def _imported():
    """Import OpenVINO without its telemetry, which would report the import and each conversion to its makers."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # as if not installed: OpenVINO then has a stub for it
    import openvino

    return openvino


@contextlib.contextmanager
def _own_logging():
    """Keep the root logger: a conversion that fails leaves it at the converter's ERROR, and no warning is seen
    again."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _version_found():
    """Say TensorFlow's version in OpenVINO's stead, on Python from 3.13: its own way (seen in 2026.4) deletes by `exec`
    what an `exec` before has imported, which is not there any more (PEP 667), and every conversion fails."""
    if sys.version_info < (3, 13):
        return contextlib.nullcontext()
    import tensorflow as tf
    from openvino.frontend.tensorflow import utils

    return mock.patch.object(utils, "get_environment_setup", lambda framework: {"tensorflow": tf.__version__})


def _write(network, file, images, labels):
    _imported()
    with _own_logging(), _version_found():
        network.write(file, "openvino")


def _open(file):
    # Where a processor has bfloat16, OpenVINO computes in it unless told, which is another 1e-3.
    model = _imported().Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: model(images)["probabilities"]


FORMAT = Format("OpenVINO", (".xml", ".bin"), ("openvino",), "openvino", _write, _open)
