"""How fast this machine convolves and multiplies matrices at best: what every other figure is a share of."""

import statistics
import time

from bench.rounds import write

# (side, channels): the 3x3 convolutions of a ResNet at 224 pixels.
CONVOLUTIONS = ((56, 64), (28, 128), (14, 256), (7, 512))
MATRIX = 2048


def bench_peak(options):
    """Measure what the machine convolves and multiplies at best, in both precisions."""
    found = {dtype: peaks(dtype, rounds=options.rounds) for dtype in ("float32", "bfloat16")}
    print(f"{'GFLOP/s, a multiply-add is two':32}{'float32':>10}{'bfloat16':>10}")
    for name in found["float32"]:
        print(f"{name:32}{found['float32'][name] / 1e9:10.0f}{found['bfloat16'][name] / 1e9:10.0f}")
    rows = [{"what": name, **{dtype: found[dtype][name] for dtype in found}} for name in found["float32"]]
    return write(options, rows)


def peaks(dtype, batch_size=16, rounds=5):
    """Measure peaks in operations a second, a multiply-add being two.

    Args:
        dtype: `"float32"` or `"bfloat16"`.
        batch_size: images a convolution. Defaults to 16.
        rounds: of which the median is taken. Defaults to 5.

    Returns:
        Dict: `"matrix"`, each convolution such as `"3x3, 56x56x64"`, and `"convolution"`, the best of those.
    """
    import tensorflow as tf

    found = {}
    matrix = tf.random.normal((MATRIX, MATRIX)), tf.random.normal((MATRIX, MATRIX))
    found["matrix"] = 2 * MATRIX**3 / _seconds(tf.matmul, [tf.cast(x, dtype) for x in matrix], rounds)
    for side, channels in CONVOLUTIONS:
        x = tf.cast(tf.random.normal((batch_size, side, side, channels)), dtype)
        kernel = tf.cast(tf.random.normal((3, 3, channels, channels)), dtype)
        seconds = _seconds(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), [x, kernel], rounds)
        found[f"3x3, {side}x{side}x{channels}"] = 2 * 9 * batch_size * side**2 * channels**2 / seconds
    found["convolution"] = max(value for name, value in found.items() if name.startswith("3x3"))
    return found


def _seconds(function, arguments, rounds, repeats=10):
    import tensorflow as tf

    step = tf.function(function)
    step(*arguments)
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            result = step(*arguments)
        result.numpy()  # work may be queued until someone asks
        taken.append((time.perf_counter() - began) / repeats)
    return statistics.median(taken)
