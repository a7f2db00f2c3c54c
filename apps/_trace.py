"""Where the time of a step goes, by kind of operation, from TensorFlow's own profiler."""

import collections
import pathlib
import re
import tempfile

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
    (
        "elementwise",
        "Add|Sub|Mul|Div|Relu|Cast|Sum|Mean|Tile|Sqrt|Maximum|Select|Greater|Equal|Pow|BiasGrad|Softmax|Log",
    ),
)
_OPERATION = re.compile(r"(.*/)?([^/:]+):(_?[A-Z]\w+)")


def trace(run):
    """Run a function once under the profiler.

    Args:
        run: function without arguments, run and traced before.

    Returns:
        Dict kind -> seconds over all threads, the largest first; what the optimizer multiplies counts as the optimizer's.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # the format of what the profiler writes

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            run()
        finally:
            tf.profiler.experimental.stop()
        seconds = collections.Counter()
        for path in pathlib.Path(folder).rglob("*.xplane.pb"):
            space = xplane_pb2.XSpace.FromString(path.read_bytes())
            for plane in space.planes:
                for line in plane.lines:
                    for event in line.events:
                        kind = _kind(plane.event_metadata[event.metadata_id].name)
                        if kind is not None:
                            seconds[kind] += event.duration_ps / 1e12
    return dict(seconds.most_common())


def _kind(name):
    match = _OPERATION.fullmatch(name)
    if match is None or match[3].startswith(("Eager", "Partitioned", "Stateful")):
        return None  # a frame around operations
    if re.match(r"(sgd|adam|adamw|rmsprop|lion|optimizer)", name):
        return "optimizer"
    return next((kind for kind, pattern in KINDS if re.search(pattern, match[3])), "other")
