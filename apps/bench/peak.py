"""How fast this machine convolves and multiplies matrices at best: what every other figure is a share of."""

import statistics

from bench.rounds import seconds, tell, write

# (side, channels): the 3x3 convolutions of a ResNet at 224 pixels.
CONVOLUTIONS = ((56, 64), (28, 128), (14, 256), (7, 512))
MATRIX = 2048


def bench_peak(options):
    """Tell what the machine convolves and multiplies at best, in GFLOP/s, a multiply-add being two."""
    found = {dtype: peaks(dtype, rounds=options.rounds) for dtype in ("float32", "bfloat16")}
    names = found["float32"]
    return write(options, [tell({"what": name, **{d: found[d][name] / 1e9 for d in found}}) for name in names])


def peaks(dtype, batch_size=16, rounds=5, repeats=10):
    """Measure peaks in operations a second, `"float32"` or `"bfloat16"`: a dict of `"matrix"`, each convolution such as
    `"3x3, 56x56x64"`, and `"convolution"`, the best of those."""
    import tensorflow as tf

    def rate(operations, function, *shapes):
        step, given = tf.function(function), [tf.cast(tf.random.normal(shape), dtype) for shape in shapes]

        def run():
            results = [step(*given) for _ in range(repeats)]
            results[-1].numpy()  # work may be queued until someone asks

        run()
        return operations * repeats / statistics.median(seconds(run) for _ in range(rounds))

    found = {"matrix": rate(2 * MATRIX**3, tf.matmul, (MATRIX, MATRIX), (MATRIX, MATRIX))}
    for side, channels in CONVOLUTIONS:
        shapes = (batch_size, side, side, channels), (3, 3, channels, channels)
        operations = 2 * 9 * batch_size * side**2 * channels**2
        convolve = lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME")
        found[f"3x3, {side}x{side}x{channels}"] = rate(operations, convolve, *shapes)
    return found | {"convolution": max(value for name, value in found.items() if name.startswith("3x3"))}
