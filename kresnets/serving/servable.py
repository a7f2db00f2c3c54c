"""One version of a model, loaded as TF Serving loads it: into a session, by the C++ runtime, without Keras."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from kresnets.serving.tensors import Signature, Tensor


class Servable:
    """A loaded version, with its `number`, `signatures`, `metadata`, which are these as TF Serving tells them, and
    `numbers`, the names of those that it gives in place of labels.

    Batches of `batch_sizes` are computed once, before the first request comes. A folder that holds no model that can
    be served is a ValueError.
    """

    def __init__(self, folder: str | os.PathLike, batch_sizes: Iterable[int] = (1,)):
        self.number, self._calls = int(pathlib.Path(folder).name), {}
        self.numbers = _numbers(pathlib.Path(folder))
        growing = tf.compat.v1.GPUOptions(allow_growth=True)  # two versions share a GPU for a while
        config = tf.compat.v1.ConfigProto(gpu_options=growing)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(folder))
            definitions = dict(sorted(graph.signature_def.items()))
            # As TF Serving does: what gives nothing (initialisers, say) is not served.
            served = {name: each for name, each in definitions.items() if each.outputs and not name.startswith("__")}
            if not served:
                raise ValueError("it has no signature to serve")
            self.signatures = {name: _signature(each) for name, each in served.items()}
            form = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
            self.metadata = {name: json_format.MessageToDict(each, **form) for name, each in definitions.items()}
            for name, each in self.signatures.items():
                sides = ([tensor.name for tensor in side.values()] for side in (each.outputs, each.inputs))
                self._calls[name] = self._session.make_callable(*sides)
                self._warm_up(name, each, batch_sizes)
        except Exception as error:  # of TensorFlow, protobuf or the file system
            self.close()
            reason = " ".join((getattr(error, "message", None) or str(error)).split())[:300]
            raise ValueError(f"version {self.number} cannot be served ({reason or type(error).__name__})") from error

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature: from a dict of its inputs to one of its outputs."""
        wanted = self.signatures[signature]
        outputs = self._calls[signature](*(inputs[name] for name in wanted.inputs))
        return dict(zip(wanted.outputs, outputs, strict=True))

    def close(self) -> None:
        """Free what the model holds; it must not run any more."""
        self._calls = {}
        self._session.close()

    def _warm_up(self, name, signature, batch_sizes):
        """Compute a batch of nothing in each size, so that nobody waits later."""
        # What may fail without harm: a model of other origin need not take empty strings.
        with contextlib.suppress(tf.errors.OpError):
            shapes = [each.shape for each in signature.inputs.values()]
            if all(shape and shape[0] is None and None not in shape[1:] for shape in shapes):
                for size in batch_sizes if signature.can_batch and name == "serving_default" else (1,):
                    self.run(name, {key: _nothing(each, size) for key, each in signature.inputs.items()})


def _numbers(folder):
    try:
        card = json.loads((folder / "assets" / "model_card.json").read_text(encoding="utf-8"))
        return [str(name) for name in card["classes"]] if card["task"] == "numbers" else []
    except (OSError, ValueError, KeyError, TypeError):  # a model of another origin, or of before there were tasks
        return []


def _signature(definition):
    sides = (
        {name: _tensor(each) for name, each in sorted(side.items())} for side in (definition.inputs, definition.outputs)
    )
    return Signature(*sides, definition.method_name)


def _tensor(info):
    dtype = np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
    sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return Tensor(info.name, dtype, None if info.tensor_shape.unknown_rank else sizes)


def _nothing(tensor, size):
    return np.full((size, *tensor.shape[1:]), b"" if tensor.dtype == object else 0, tensor.dtype)
