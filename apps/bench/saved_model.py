"""An exported model against Keras's own `model.export`, both run as TF Serving runs them: a session of their graph."""

import contextlib
import pathlib
import statistics
import tempfile

from bench.rounds import alternate, ratio, seconds

REACH = {("float32", 1): 1.15, ("float32", 32): 1.1, ("bfloat16", 1): 1.7, ("bfloat16", 32): 1.7}
SIZE_LIMIT = 1.02  # bytes on disk for one of weights
FIRST_LIMIT = 2.0  # times a warm request, for the first one after the warm-up file


def measured(options):
    """Print images a second from tensors and from JPEGs, the size on disk and the first request; return the rows."""
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
        for dtype in options.dtype:
            version = kresnets.export_saved_model(model, folder / dtype, dtype=dtype)
            rows += _speed(options, folder / "keras", version, dtype, size)
            rows.append(_size(version, model, dtype))
            rows += _first(version, dtype)
    return rows


def _speed(options, theirs, version, dtype, size):
    """Time both from tensors, alternating, and ours from JPEGs."""
    import numpy as np
    import tensorflow as tf

    rows, random = [], np.random.default_rng(0)
    coarse = random.uniform(0, 255, (max(options.batch_size), size // 8, size // 8, 3)).astype("float32")
    photographs = tf.cast(tf.image.resize(coarse, (size * 5 // 4, size * 5 // 4)), tf.uint8)
    jpegs = [tf.io.encode_jpeg(each).numpy() for each in photographs]
    with opened(theirs) as peer, opened(version) as ours:
        for batch in options.batch_size:
            images = random.uniform(0, 255, (batch, size, size, 3)).astype("float32")
            files = np.array(jpegs[:batch], object)
            timed = {
                "kresnets": _repeated(ours("predict_tensor"), images, options.steps),
                "Keras's export": _repeated(peer("serving_default"), images, options.steps),
                "from JPEGs": _repeated(ours("serving_default"), files, options.steps),
            }
            found = alternate(timed, options.rounds)
            for name, times in found.items():
                row = {"dtype": dtype, "batch": batch, "what": name}
                row["images_per_second"] = batch / statistics.median(times)
                line = f"{options.model}, {dtype}, batch {batch}, {name}: {row['images_per_second']:.1f} images/s"
                if name == "kresnets":
                    faster, low, high = ratio(found["Keras's export"], times)
                    limit = REACH.get((dtype, batch))
                    row |= {"ratio": faster, "ratio_range": [low, high], "to_reach": limit}
                    line += f", {faster:.3f} ({low:.3f} to {high:.3f}) of Keras's float32 export"
                    if limit:
                        row["kept"] = faster >= limit
                        line += f", to reach {limit}: {'kept' if row['kept'] else 'MISSED'}"
                rows.append(row)
                print(line, flush=True)
    return rows


def _repeated(function, argument, steps):
    return lambda: statistics.median(seconds(function, argument) for _ in range(steps))


@contextlib.contextmanager
def opened(folder):
    """Load a SavedModel as TF Serving does.

    Gives a function from a signature's name to a function of its one input, whose answer is a list of the signature's
    outputs, sorted by name.
    """
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


def _size(version, model, dtype):
    """Compare the bytes of a version with those of the weights as the dtype stores them in the file."""
    taken = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    weights = sum(variable.numpy().nbytes for variable in model.variables)
    row = {"dtype": dtype, "what": "size", "bytes": taken, "of_weights": taken / weights, "to_reach": SIZE_LIMIT}
    row["kept"] = row["of_weights"] <= SIZE_LIMIT
    print(f"{dtype}: {taken:,} bytes on disk, {row['of_weights']:.4f} of the float32 weights, to reach {SIZE_LIMIT}")
    return row


def _first(version, dtype):
    """Time the first request of each batch after the warm-up file was replayed, against warm ones."""
    from kresnets.export.warmup import requests

    rows, asked = [], requests(version)
    with opened(version) as ours:
        ask = ours("serving_default")
        for files in asked:
            ask(files)
        for files in asked:
            first = seconds(ask, files)
            warm = statistics.median(seconds(ask, files) for _ in range(5))
            row = {"dtype": dtype, "batch": len(files), "what": "first request", "first": first, "warm": warm}
            row["kept"] = first <= FIRST_LIMIT * warm
            rows.append(row)
            print(f"{dtype}, batch {len(files)}: the first request after warm-up took {first / warm:.2f} of a warm one")
    return rows
