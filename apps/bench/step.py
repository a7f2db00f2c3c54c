"""Training and prediction of one network in every library that has it, and their share of the machine's peak."""

import statistics

from bench import picture
from bench.peak import peaks
from bench.peers import peers
from bench.rounds import alternate, ratio, write
from bench.start import training_memory
from kresnets.analysis.timing import Training

FORWARDS = {"training": 3, "prediction": 1}  # forward passes that a step counts as: backward by input and by filter


def bench_step(options):
    """Print images a second, ratio and share of the peak of each network, library, dtype; write JSON and a picture."""
    import keras

    import kresnets

    best = {dtype: peaks(dtype.removeprefix("mixed_"), rounds=5)["convolution"] for dtype in options.dtype}
    for dtype, peak in best.items():
        print(f"peak of a 3x3 convolution, {dtype}: {peak / 1e9:.0f} GFLOP/s")
    print(f"{'':48}{'images/s':>10}{'of peak':>9}   kresnets / it (range over {options.rounds} rounds)")
    rows = []
    for model in options.model:
        size = options.size or kresnets.SPECS[model].input_size
        operations = 2 * kresnets.summarize(getattr(kresnets, model)(weights=None)).total.multiply_adds
        operations *= (size / kresnets.SPECS[model].input_size) ** 2
        for dtype in options.dtype:
            keras.mixed_precision.set_dtype_policy(dtype)
            timed = peers(model, dtype, size, options.batch_size, options.steps, options.timm_python)
            for index, (what, passes) in enumerate(FORWARDS.items()):
                seconds = alternate({name: both[index] for name, both in timed.items()}, options.rounds)
                for name, times in seconds.items():
                    rate = options.batch_size / statistics.median(times)
                    rows.append(
                        {"model": model, "dtype": dtype, "what": what, "library": name, "images_per_second": rate}
                    )
                    rows[-1]["share_of_peak"] = rate * operations * passes / best[dtype]
                    if name != "kresnets":
                        rows[-1]["ratio"], *rows[-1]["ratio_range"] = ratio(times, seconds["kresnets"])
                    _tell(rows[-1])
            if options.memory:
                rows += _memory(model, dtype, size, options.batch_size)
            for one in timed.get("timm", ()):
                one.close()
    rows += _callbacks(options)
    keras.mixed_precision.set_dtype_policy("float32")
    picture.shares(rows, options.out.with_suffix(".png"))
    return write(options, rows, peak={dtype: peak / 1e9 for dtype, peak in best.items()})


def _tell(row):
    what = f"{row['model']}, {row['dtype']}, {row['what']}, {row['library']}"
    line = f"{what:58}"[:48] if len(what) <= 48 else what
    line = f"{line}{row['images_per_second']:10.2f}{row['share_of_peak']:9.0%}"
    if "ratio" in row:
        line += "   {:.3f} ({:.3f} to {:.3f})".format(row["ratio"], *row["ratio_range"])
    print(line, flush=True)


def _memory(model, dtype, size, batch_size):
    """Measure what a training step adds to a process's peak memory: ours, ours with recompute, keras.applications'."""
    import keras

    tried = {"kresnets": ("kresnets", False), "kresnets, recompute": ("kresnets", True)}
    if hasattr(keras.applications, model):
        tried["keras.applications"] = ("keras.applications", False)
    rows = []
    for name, (library, again) in tried.items():
        used = training_memory(library, model, dtype, size, batch_size, again)
        rows.append({"model": model, "dtype": dtype, "what": "memory", "library": name, "bytes": used})
        print(f"{model}, {dtype}, memory of a training step, {name}: {used / 2**20:.0f} MiB", flush=True)
    return rows


def _callbacks(options):
    """Measure training with both callbacks against training without, the first network alone."""
    import keras

    import kresnets

    rows, name = [], options.model[0]
    size = options.size or kresnets.SPECS[name].input_size
    for dtype in options.dtype:
        keras.mixed_precision.set_dtype_policy(dtype)
        model = getattr(kresnets, name)(weights=None, input_shape=(size, size, 3))
        callbacks = [kresnets.StagedUnfreezing({0: "stem"}, "train"), kresnets.LayerwiseLearningRate(0.5)]
        pair = {
            "with": Training(model, size, options.batch_size, options.steps, callbacks),
            "without": Training(model, size, options.batch_size, options.steps),
        }
        seconds = alternate(pair, options.rounds)
        middle, low, high = ratio(seconds["without"], seconds["with"])
        print(f"{name}, {dtype}: training with both callbacks is {middle:.3f} ({low:.3f} to {high:.3f}) of without")
        rows.append({"model": name, "dtype": dtype, "what": "callbacks", "ratio": middle, "ratio_range": [low, high]})
    return rows
