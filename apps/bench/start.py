"""What a user waits for before anything trains: building, loading a local file, importing."""

import gc
import importlib
import logging
import pathlib
import subprocess
import sys
import tempfile

from bench.rounds import alternate, limited, seconds, write

LIBRARIES = {"A": "kresnets", "B": "keras.applications"}
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
"""
_LOAD = """
kresnets.CifarResNet20()
before = peak()
library, model, path = sys.argv[1:]
model = getattr(importlib.import_module(library), model)(weights=path)
print(peak() - before)
"""
_TRAIN = """
import keras, numpy as np
library, model, dtype, size, batch, recompute = sys.argv[1:]
keras.mixed_precision.set_dtype_policy(dtype)
size, batch = int(size), int(batch)
model = getattr(importlib.import_module(library), model)(weights=None, input_shape=(size, size, 3))
model = kresnets.recompute(model) if recompute == "True" else model
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", jit_compile=False)
images, labels = np.zeros((batch, size, size, 3), "float32"), np.zeros(batch)
model.train_on_batch(images[:1], labels[:1])
before = peak()
for _ in range(2):
    model.train_on_batch(images, labels)
print(peak() - before)
"""
_IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def bench_build(options):
    """Time the building of one network at its default size in both libraries."""
    import keras

    def build(library):
        keras.utils.clear_session()
        gc.collect()
        return seconds(getattr(importlib.import_module(library), options.model), weights=None)

    pairs = _in_turn(options, build, LIBRARIES)
    return write(options, [limited(f"seconds to build {options.model}", pairs, 1.0)])


def bench_load(options):
    """Time the loading of a file that keras.applications wrote, and take the peak memory of building and loading."""
    import keras

    import kresnets

    logging.getLogger("absl").setLevel("ERROR")  # the published files are in the format that Keras calls legacy
    builders = {"A": getattr(kresnets, options.model), "B": getattr(keras.applications, options.model)}
    ours, theirs = (build(weights=None) for build in builders.values())
    size, spec = sum(weight.numpy().nbytes for weight in theirs.weights), kresnets.SPECS[options.model]

    def load():
        kresnets.weights.load(ours, spec, kresnets.weights.resolve(spec, path), include_top=True, classes=spec.classes)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.h5"
        theirs.save(path)
        loads = {"A": load, "B": lambda: theirs.load_weights(path)}
        memory = f"peak memory of that, in sizes of the weights ({size >> 20} MiB)"
        whole = lambda build: seconds(build, weights=path)
        peak = lambda library: child(_PEAK + _LOAD, library, options.model, path) / size
        rows = [
            limited(f"seconds to load {options.model} into a built model", _in_turn(options, seconds, loads), 1.5),
            limited("seconds to build and load", _in_turn(options, whole, builders), 1.5),
            limited(memory, _in_turn(options, peak, LIBRARIES), 2.5, of="A"),
        ]
    return write(options, rows)


def bench_import(options):
    """Time the imports in fresh processes."""
    modules = {"A": "keras, kresnets", "B": "keras"}
    pairs = _in_turn(options, lambda names: child(_IMPORT.format(names)), modules)
    return write(options, [limited("seconds to import keras, A with kresnets", pairs, 0.3, of="A - B")])


def _in_turn(options, measure, things):
    """Return `alternate`'s rounds of a measure of each thing."""
    return alternate({name: lambda thing=thing: measure(thing) for name, thing in things.items()}, options.rounds)


def training_memory(library, model, dtype, size, batch_size, recompute):
    """Return the bytes by which a training step raises a fresh process's peak memory."""
    return child(_PEAK + _TRAIN, library, model, dtype, size, batch_size, recompute)


def child(script, *arguments):
    """Return the number that a script prints in a fresh process."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"A process that was to measure failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])
