"""An exported model against Keras's own `model.export`, both run as TF Serving runs them: a session of their graph."""

import contextlib
import pathlib
import statistics
import tempfile

from bench.asking import pictures
from bench.rounds import alternate, ratio, seconds, tell

REACH = {("float32", 1): 1.15, ("float32", 32): 1.1, ("bfloat16", 1): 1.7, ("bfloat16", 32): 1.7}
SIZE_LIMIT = 1.02  # bytes on disk for one of weights
FIRST_LIMIT = 2.0  # times a warm request, for the first one after the warm-up file
STEPS = 5  # timed requests a round


def measured(options):
    """Tell images a second from tensors and from JPEGs, the size on disk and the first request; return the rows."""
    import keras

    import kresnets

    size = options.size or kresnets.SPECS[options.model].input_size
    model = getattr(kresnets, options.model)(weights=None, input_shape=(size, size, 3))
    theirs = model
    if hasattr(keras.applications, options.model):
        theirs = getattr(keras.applications, options.model)(weights=None, input_shape=(size, size, 3))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        theirs.export(folder / "keras", verbose=False)
        weights = sum(variable.numpy().nbytes for variable in model.variables)
        for dtype in ("float32", "bfloat16"):
            version = kresnets.export_saved_model(model, folder / dtype, dtype=dtype)
            taken = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
            row = {"what": "size", "dtype": dtype, "bytes": taken, "of_weights": taken / weights, "limit": SIZE_LIMIT}
            rows.append(tell(row | {"kept": taken <= SIZE_LIMIT * weights}))
            with opened(version) as ours, opened(folder / "keras") as peer:
                rows += _speed(options, peer, ours, dtype, size)
            with opened(version) as ours:
                rows += _first(version, ours("serving_default"), dtype)
    return rows


def _speed(options, peer, ours, dtype, size):
    """Yield both from tensors, alternating, and ours from JPEGs."""
    import numpy as np

    jpegs = pictures(max(options.batch_size), size * 5 // 4, size * 5 // 4)
    for batch in options.batch_size:
        images = np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype("float32")
        asked = {
            "kresnets": (ours("predict_tensor"), images),
            "Keras's export": (peer("serving_default"), images),
            "from JPEGs": (ours("serving_default"), np.array(jpegs[:batch], object)),
        }
        repeated = lambda *call: statistics.median(seconds(*call) for _ in range(STEPS))
        found = alternate({name: lambda call=call: repeated(*call) for name, call in asked.items()}, options.rounds)
        for name, times in found.items():
            row = {"what": name, "dtype": dtype, "batch": batch, "images_per_second": batch / statistics.median(times)}
            if name == "kresnets":
                row["ratio"], *row["ratio_range"] = ratio(found["Keras's export"], times)
                if limit := REACH.get((dtype, batch)):
                    row |= {"to_reach": limit, "kept": row["ratio"] >= limit}
            yield tell(row)


@contextlib.contextmanager
def opened(folder):
    """Load a SavedModel as TF Serving does: gives a function from a signature's name to a function of its one input,
    whose answer is a list of the signature's outputs, sorted by name."""
    import tensorflow as tf

    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session:
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))

        def signature(name):
            found = loaded.signature_def[name]
            [taken] = found.inputs.values()
            outputs = [found.outputs[name].name for name in sorted(found.outputs)]
            return session.make_callable(outputs, feed_list=[taken.name])

        with tf.init_scope():  # out of the session's graph again
            yield signature


def _first(version, ask, dtype):
    """Yield the first request of each batch after the warm-up file was replayed, against warm ones."""
    from kresnets.export.warmup import requests

    asked = requests(version)
    for files in asked:
        ask(files)
    for files in asked:
        first = seconds(ask, files)
        warm = statistics.median(seconds(ask, files) for _ in range(5))
        row = {"what": "first request", "dtype": dtype, "batch": len(files), "first": first, "warm": warm}
        yield tell(row | {"limit": FIRST_LIMIT, "kept": first <= FIRST_LIMIT * warm})
