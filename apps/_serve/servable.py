"""One version of a model, loaded as TF Serving loads it: into a session, by the C++ runtime, without Keras."""

import contextlib
import dataclasses
import pathlib
import threading

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from _serve.tensors import Tensor

_WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature takes and gives: dicts name -> `Tensor`."""

    inputs: dict
    outputs: dict

    @property
    def can_batch(self):
        """Whether requests may be joined along the first dimension of everything."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(each.shape and each.shape[0] is None for each in tensors)

    @property
    def names_photographs(self):
        """Whether this is what kresnets exports: the bytes of image files in, labels and scores out."""
        inputs = [(name, each.dtype, each.shape) for name, each in self.inputs.items()]
        return inputs == [("image_bytes", np.dtype(object), (None,))] and self.outputs.keys() >= {
            "labels",
            "scores",
            "valid",
        }


class Servable:
    """A loaded version.

    Args:
        folder: path of the version, whose name is its number.
        batch_sizes: sizes that are computed once before the first request comes.

    Raises:
        ValueError: for a folder that holds no model that can be served, in one sentence.
    """

    def __init__(self, folder, batch_sizes=(1,)):
        folder = pathlib.Path(folder)
        self.number = int(folder.name)
        growing = tf.compat.v1.GPUOptions(allow_growth=True)  # two versions share a GPU for a while
        config = tf.compat.v1.ConfigProto(gpu_options=growing)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        self._calls, self._making = {}, threading.Lock()
        try:
            with self._session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            self.signatures = {name: _signature(each) for name, each in _served(meta_graph).items()}
            self.metadata = {
                name: json_format.MessageToDict(
                    each, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                for name, each in meta_graph.signature_def.items()
            }
            if not self.signatures:
                raise ValueError("it has no signature to serve")
            self._warm_up(folder, batch_sizes)
        except Exception as error:  # of TensorFlow, protobuf or the file system
            self.close()
            reason = " ".join((getattr(error, "message", None) or str(error)).split())[:300]
            raise ValueError(f"version {self.number} cannot be served ({reason or type(error).__name__})") from error

    def run(self, signature, inputs):
        """Compute.

        Args:
            signature: name of one of `signatures`.
            inputs: dict name -> array, one for each input of the signature.

        Returns:
            dict name -> array.
        """
        wanted = self.signatures[signature]
        with self._making:
            if signature not in self._calls:
                self._calls[signature] = self._session.make_callable(
                    [each.name for each in wanted.outputs.values()], [each.name for each in wanted.inputs.values()]
                )
        return dict(zip(wanted.outputs, self._calls[signature](*(inputs[name] for name in wanted.inputs))))

    def close(self):
        """Free what the model holds; it must not run any more."""
        self._calls.clear()
        self._session.close()

    def _warm_up(self, folder, batch_sizes):
        """Compute what the warm-up file asks for, and a batch of nothing in each size, so that nobody waits later."""
        for signature, inputs in _requests_of(folder / _WARMUP_FILE):
            self.run(signature, inputs)
        for name, signature in self.signatures.items():
            # What may fail without harm: a model of other origin need not take empty strings.
            with contextlib.suppress(tf.errors.OpError):
                for size in batch_sizes if signature.can_batch and name == "serving_default" else (1,):
                    inputs = {key: _nothing(each, size) for key, each in signature.inputs.items()}
                    if all(value is not None for value in inputs.values()):
                        self.run(name, inputs)


def _served(meta_graph):
    return {
        name: each
        for name, each in sorted(meta_graph.signature_def.items())
        # As TF Serving does: what `Predict` does not take (initialisers, say) is not served.
        if each.outputs and not name.startswith("__")
    }


def _signature(definition):
    sides = definition.inputs, definition.outputs
    return Signature(*({name: _tensor(info) for name, info in sorted(each.items())} for each in sides))


def _tensor(info):
    dtype = np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
    shape = info.tensor_shape
    sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return Tensor(info.name, dtype, None if shape.unknown_rank else sizes)


def _nothing(tensor, size):
    """Return empty strings or zeros for a batch of `size`, or None where the shape is left open."""
    if not tensor.shape or tensor.shape[0] is not None or None in tensor.shape[1:]:
        return None
    shape = (size, *tensor.shape[1:])
    return np.full(shape, b"", object) if tensor.dtype == object else np.zeros(shape, tensor.dtype)


def _requests_of(file):
    """Yield the signature and inputs of the requests in a warm-up file; without tensorflow-serving-api, none."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return
    if not file.is_file():
        return
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.HasField("predict_log"):
            request = log.predict_log.request
            signature = request.model_spec.signature_name or "serving_default"
            yield signature, {name: tf.make_ndarray(each) for name, each in request.inputs.items()}
