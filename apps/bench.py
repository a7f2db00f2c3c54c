"""Measure kresnets against its peers, alternating: python apps/bench.py step (or build, load, import, peak, trace)

Every figure is a ratio of medians over rounds A B A B, with the spread of the ratios round by round: machines are
noisy. What has a limit says whether it is kept, and the exit code is 1 where one is not.
"""

import argparse
import gc
import itertools
import json
import logging
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import _common


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    step = _command(
        commands, "step", 5, "training step and prediction against keras.applications, and the cost of the callbacks"
    )
    step.add_argument("--model", default="ResNet50", help="a network that keras.applications has too; default ResNet50")
    step.add_argument("--size", type=_common.positive_int, default=224)
    step.add_argument("--batch-size", type=_common.positive_int, default=16)
    step.add_argument("--steps", type=_common.positive_int, default=3, help="timed steps a round; default 3")
    step.add_argument(
        "--dtype", nargs="+", choices=("float32", "mixed_bfloat16"), default=["float32", "mixed_bfloat16"]
    )
    build = _command(commands, "build", 9, "time to build a network, against keras.applications")
    build.add_argument("--model", default="ResNet50", help="a network of both libraries; default ResNet50")
    load = _command(commands, "load", 5, "time and memory to load a local weights file, against keras.applications")
    load.add_argument("--model", default="ResNet152", help="a network of both libraries; default ResNet152")
    _command(commands, "import", 9, "seconds that importing kresnets adds to importing keras")
    _command(commands, "peak", 5, "the machine's convolution and matrix peak")
    trace = _command(commands, "trace", 1, "where the time of a training step goes, by kind of operation")
    trace.add_argument("--model", default="ResNet50", help="a network of both libraries; default ResNet50")
    trace.add_argument("--size", type=_common.positive_int, default=224)
    trace.add_argument("--batch-size", type=_common.positive_int, default=16)
    trace.add_argument("--dtype", choices=("float32", "mixed_bfloat16"), default="float32")
    options = parser.parse_args(argv)
    if options.command != "import":
        _common.import_tensorflow()
    if hasattr(options, "model"):
        _check_model(options.model)
    benches = {"step": bench_step, "build": bench_build, "load": bench_load, "import": bench_import}
    benches |= {"peak": bench_peak, "trace": bench_trace}
    return benches[options.command](options)


def _command(commands, name, rounds, text):
    command = commands.add_parser(name, help=text)
    command.add_argument("--rounds", type=_common.positive_int, default=rounds, help=f"default {rounds}")
    command.add_argument("--out", type=pathlib.Path, default=pathlib.Path(f"runs/bench/{name}.json"))
    return command


def _check_model(model):
    import keras

    import kresnets

    if model not in kresnets.SPECS or not hasattr(keras.applications, model):
        both = [name for name in kresnets.list_models() if hasattr(keras.applications, name)]
        raise ValueError(f"--model must be a network of both libraries: {', '.join(both)}. Received: {model}")


def bench_step(options):
    """Time training and prediction of one network in both libraries, and training with and without the callbacks."""
    import keras

    import kresnets
    from kresnets.hardware import describe

    print(f"{options.model}, {options.size} pixels, batch {options.batch_size}; {describe()}")
    print(f"{'':34}{'A images/s':>12}{'B images/s':>12}{'A / B':>8}   spread of A / B")
    rows = []
    for dtype in options.dtype:
        keras.mixed_precision.set_dtype_policy(dtype)
        shape = (options.size, options.size, 3)
        ours = getattr(kresnets, options.model)(weights=None, input_shape=shape)
        theirs = getattr(keras.applications, options.model)(weights=None, input_shape=shape)
        callbacks = [kresnets.StagedUnfreezing({0: "stem"}, "train"), kresnets.LayerwiseLearningRate(0.5)]
        pairs = {
            "training, against Keras": (_Training(ours, options), _Training(theirs, options)),
            "prediction, against Keras": (_Prediction(ours, options), _Prediction(theirs, options)),
            "training, with callbacks / without": (_Training(ours, options, callbacks), _Training(ours, options)),
        }
        for name, (one, other) in pairs.items():
            rows.append({"dtype": dtype, "what": name, **_alternate(one, other, options)})
            row = rows[-1]
            low, high = min(row["ratios"]), max(row["ratios"])
            print(
                f"{dtype + ', ' + name.split(', ')[0] if 'against' in name else 'callbacks, ' + dtype:34}"
                f"{row['a']:12.2f}{row['b']:12.2f}{row['ratio']:8.3f}   {low:.3f} to {high:.3f}",
                flush=True,
            )
    keras.mixed_precision.set_dtype_policy("float32")
    print(f"A is kresnets (or training with both callbacks), B the other; medians of {options.rounds} rounds A B A B.")
    return _write(options, rows)


def bench_peak(options):
    """Measure what the machine convolves and multiplies at best, in both precisions."""
    from _peak import peaks

    found = {dtype: peaks(dtype, rounds=options.rounds) for dtype in ("float32", "bfloat16")}
    print(f"{'GFLOP/s, a multiply-add is two':32}{'float32':>10}{'bfloat16':>10}")
    for name in found["float32"]:
        print(f"{name:32}{found['float32'][name] / 1e9:10.0f}{found['bfloat16'][name] / 1e9:10.0f}")
    return _write(
        options, [{"what": name, **{dtype: found[dtype][name] for dtype in found}} for name in found["float32"]]
    )


def bench_trace(options):
    """Take a training step of both libraries apart."""
    import keras
    import numpy as np
    from _trace import trace

    import kresnets

    keras.mixed_precision.set_dtype_policy(options.dtype)
    shape = (options.size, options.size, 3)
    images = np.random.default_rng(0).normal(size=(options.batch_size, *shape)).astype("float32")
    labels = np.arange(options.batch_size)
    found = {}
    for name, library in (("kresnets", kresnets), ("keras.applications", keras.applications)):
        model = getattr(library, options.model)(weights=None, input_shape=shape)
        model.compile("adam", "sparse_categorical_crossentropy")
        for _ in range(2):
            model.train_on_batch(images, labels)
        found[name] = trace(lambda model=model: model.train_on_batch(images, labels))
    keras.mixed_precision.set_dtype_policy("float32")
    print(f"{'seconds over all threads':28}" + "".join(f"{name:>20}" for name in found))
    kinds = dict.fromkeys(kind for seconds in found.values() for kind in seconds)
    for kind in kinds:
        print(f"{kind:28}" + "".join(f"{seconds.get(kind, 0):20.3f}" for seconds in found.values()))
    print(f"{'all':28}" + "".join(f"{sum(seconds.values()):20.3f}" for seconds in found.values()))
    return _write(options, [{"what": kind, **{name: found[name].get(kind, 0.0) for name in found}} for kind in kinds])


def bench_build(options):
    """Time the building of one network at its default size in both libraries."""
    import keras

    import kresnets

    def build(library):
        keras.utils.clear_session()
        gc.collect()
        began = time.perf_counter()
        getattr(library, options.model)(weights=None)
        return time.perf_counter() - began

    rounds = _rounds(lambda: build(kresnets), lambda: build(keras.applications), options)
    return _write(options, [_limited(f"seconds to build {options.model}", rounds, 1.0)])


def bench_load(options):
    """Time the loading of a file that keras.applications wrote, and take the peak memory of building and loading."""
    import keras

    import kresnets

    logging.getLogger("absl").setLevel("ERROR")  # the published files are in the format that Keras calls legacy
    build = getattr(keras.applications, options.model)
    theirs, ours = build(weights=None), getattr(kresnets, options.model)(weights=None)
    size = sum(weight.numpy().nbytes for weight in theirs.weights)
    spec = kresnets.SPECS[options.model]

    def load_ours():
        kresnets.weights.load(ours, spec, kresnets.weights.resolve(spec, path), include_top=True, classes=spec.classes)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.h5"
        theirs.save(path)
        loaded = _rounds(lambda: _seconds(load_ours), lambda: _seconds(theirs.load_weights, path), options)
        whole = _rounds(
            lambda: _seconds(getattr(kresnets, options.model), weights=path),
            lambda: _seconds(build, weights=path),
            options,
        )
        del theirs, ours
        peaks = _rounds(*(lambda name=name: _peak(name, options.model, path) / size for name in _LIBRARIES), options)
    return _write(
        options,
        [
            _limited(f"seconds to load {options.model} into a built model", loaded, 1.5),
            _limited("seconds to build and load", whole, 1.5),
            _limited(f"peak memory of that, in sizes of the weights ({size >> 20} MiB)", peaks, 2.5, of="a"),
        ],
    )


_LIBRARIES = ("kresnets", "keras.applications")
# The high-water mark of a fresh process, before and after; a small network first, so that what TensorFlow takes once is
# in both. Linux hands getrusage's mark down from the parent, so there the process's own is read.
_PEAK = """
import importlib, pathlib, re, resource, sys
import kresnets

def peak():
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

kresnets.CifarResNet20()
before = peak()
library, model, path = sys.argv[1:]
model = getattr(importlib.import_module(library), model)(weights=path)
print(peak() - before)
"""
_IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def _peak(library, model, path):
    """Bytes by which building and loading raise a fresh process's peak memory."""
    return _child(_PEAK, library, model, str(path))


def bench_import(options):
    """Time the imports in fresh processes."""
    rounds = _rounds(
        lambda: _child(_IMPORT.format("keras, kresnets")), lambda: _child(_IMPORT.format("keras")), options
    )
    return _write(options, [_limited("seconds to import keras, A with kresnets", rounds, 0.3, of="difference")])


def _child(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"A process that was to measure failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def _seconds(function, *args, **kwargs):
    began = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - began


def _limited(what, rounds, limit, of="ratio"):
    """Sum rounds up, print them and say whether the ratio A / B (or A, or A - B) is within its limit."""
    a, b = (statistics.median(values) for values in zip(*rounds))
    values = {"ratio": a / b, "a": a, "difference": a - b}
    ratios = [one / other for one, other in rounds]
    kept = values[of] <= limit
    print(f"{what}: A {a:.3f}, B {b:.3f}, A / B {a / b:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    names = {"ratio": "A / B", "a": "A", "difference": "A - B"}
    print(f"    {names[of]} = {values[of]:.3f}, at most {limit}: {'kept' if kept else 'MISSED'}", flush=True)
    return {"what": what, "a": a, "b": b, "ratios": ratios, "limit": limit, "limit_of": names[of], "kept": kept}


def _rounds(one, other, options):
    """Run both in turn, once to warm and then as often as was asked: pairs of what they return."""
    one(), other()
    return [(one(), other()) for _ in range(options.rounds)]


def _write(options, rows):
    from kresnets.hardware import describe

    measured = {"machine": describe(), "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}
    _common.write_text(options.out, json.dumps(measured, indent=1) + "\n")
    print(f"{describe()}. {options.out}")
    return 0 if all(row.get("kept", True) for row in rows) else 1


class _Training:
    """Time some training steps of a compiled model, by its own clock between batches: tracing and callbacks' set-up
    are outside."""

    def __init__(self, model, options, callbacks=()):
        import keras
        import tensorflow as tf

        self._model, self._callbacks, self._steps = model, list(callbacks), options.steps
        model.compile(
            keras.optimizers.SGD(0.001, momentum=0.9), loss="sparse_categorical_crossentropy", jit_compile=False
        )
        images = tf.random.stateless_normal((options.batch_size, options.size, options.size, 3), (0, 0))
        self._batches = (
            tf.data.Dataset.from_tensors((images, tf.zeros(options.batch_size, tf.int32)))
            .cache()
            .repeat(options.steps + 1)
        )

    def __call__(self):
        import keras

        times = []
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: times.append(time.perf_counter()),
            on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
        )
        self._model.fit(self._batches, shuffle=False, verbose=0, callbacks=[clock, *self._callbacks])
        # The first step traces.
        return statistics.median(b - a for a, b in itertools.pairwise(times[1:]))


class _Prediction:
    """Time the prediction of some batches."""

    def __init__(self, model, options):
        import numpy as np

        self._model, self._options = model, options
        self._images = (
            np.random.default_rng(0)
            .normal(size=(options.batch_size * options.steps, options.size, options.size, 3))
            .astype("float32")
        )
        self()

    def __call__(self):
        began = time.perf_counter()
        self._model.predict(self._images, batch_size=self._options.batch_size, verbose=0)
        return (time.perf_counter() - began) / self._options.steps


def _alternate(one, other, options):
    """Return images a second of each, the ratio of the medians, and the ratio of each round."""
    rounds = _rounds(one, other, options)
    a, b = (options.batch_size / statistics.median(times) for times in zip(*rounds))
    return {"a": a, "b": b, "ratio": a / b, "ratios": [second / first for first, second in rounds]}


if __name__ == "__main__":
    _common.run(main)
