"""Where the time of a step goes, by kind of operation, from TensorFlow's own profiler."""

import collections
import importlib
import pathlib
import re
import tempfile
import time

from bench import picture
from bench.rounds import tell, write

# The kind of an operation, by the first pattern that its class matches (`_MklNativeConv2DBackpropFilter`).
KINDS = (
    ("convolution by filter", "Conv2DBackpropFilter"),
    ("convolution by input", "Conv2DBackpropInput"),
    ("convolution forward", "Conv2D"),
    ("batch norm", "FusedBatchNorm|Moments|SquaredDifference|Rsqrt"),
    ("matrix product", "MatMul"),
    ("pool", "Pool"),
    ("optimizer", "Assign|Apply"),
    ("padding and layout", "Pad|Transpose|Reshape|Slice|ToTf|InputConversion"),
    ("elementwise", "Add|Sub|Mul|Div|Relu|Cast|Sum|Mean|Tile|Sqrt|Max|Select|Greater|Equal|Pow|BiasGrad|Softmax|Log"),
)
PIPELINE, IDLE = "input pipeline", "idle"
_OPERATION = re.compile(r"(.*/)?([^/:]+):(_?[A-Z]\w+)")


def bench_trace(options):
    """Take a training step of both libraries apart, one operation at a time so that the parts add up to the step."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.mixed_precision.set_dtype_policy(options.dtype)
    shape, steps = (options.size, options.size, 3), 3
    images = tf.cast(tf.random.stateless_uniform((options.batch_size * steps, *shape), (0, 0)) * 255, tf.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, tf.zeros(len(images), tf.int32))).batch(options.batch_size)
    without = tf.data.Options()
    without.autotune.enabled = False  # whose thread may hold up the end of an epoch, see kresnets/data/part.py
    scaled = batches.with_options(without).map(lambda x, y: (tf.cast(x, tf.float32) / 127.5 - 1, y)).prefetch(2)
    found = {}
    for library in ("kresnets", "keras.applications"):
        model = getattr(importlib.import_module(library), options.model)(weights=None, input_shape=shape)
        model.compile("sgd", "sparse_categorical_crossentropy")
        fit = lambda model=model: model.fit(scaled, verbose=0, shuffle=False)
        fit()
        found[library] = {kind: seconds / steps for kind, seconds in trace(fit).items()}
    keras.mixed_precision.set_dtype_policy("float32")
    kinds = dict.fromkeys(kind for seconds in found.values() for kind in seconds)
    rows = [tell({"what": kind, **{name: found[name].get(kind, 0.0) for name in found}}) for kind in kinds]
    tell({"what": "all", **{name: sum(seconds.values()) for name, seconds in found.items()}})
    picture.stacks(found, options.out.with_suffix(".png"), "seconds a step, one operation at a time")
    return write(options, rows)


def trace(run):
    """Run a function without arguments, run and traced before, once under the profiler.

    Returns dict kind -> seconds, the largest first, idle last. Operations may run side by side, on other threads, so
    that all kinds together may be more than the time that passed; what the optimizer multiplies counts as the
    optimizer's; `"input pipeline"` is what tf.data does in steps of its own; `"idle"` the time in which no operation
    ran: Python, its waiting and what starts and ends an epoch.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # the format of what the profiler writes

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            began = time.perf_counter()
            run()
            passed = time.perf_counter() - began
        spaces = [xplane_pb2.XSpace.FromString(path.read_bytes()) for path in pathlib.Path(folder).rglob("*.xplane.pb")]
    seconds, spans = collections.Counter(), []
    lines = [(plane, line) for space in spaces for plane in space.planes for line in plane.lines]
    for plane, line in lines:
        for event in line.events:
            if kind := _kind(plane.event_metadata[event.metadata_id].name):
                seconds[kind] += event.duration_ps / 1e12
                start = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
                spans.append((start, start + event.duration_ps / 1e12))
    return {**dict(seconds.most_common()), IDLE: max(0.0, passed - _covered(spans))}


def _covered(spans):
    """Return the length of a union of spans."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _kind(name):
    if name.startswith("Iterator::") and "::" not in name.removeprefix("Iterator::"):
        return PIPELINE
    match = _OPERATION.fullmatch(name)
    if match is None or match[3].startswith(("Eager", "Partitioned", "Stateful", "Iterator")):
        return None  # a frame around operations
    if re.match(r"(sgd|adam|adamw|rmsprop|lion|optimizer)", name):
        return "optimizer"
    return next((kind for kind, pattern in KINDS if re.search(pattern, match[3])), "other")
