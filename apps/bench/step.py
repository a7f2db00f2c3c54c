"""Training and prediction of one network in every library that has it, and their share of the machine's peak."""

import statistics

from bench import picture
from bench.peak import peaks
from bench.peers import peers
from bench.rounds import alternate, ratio, tell, write
from bench.start import training_memory

FORWARDS = {"training": 3, "prediction": 1}  # forward passes that a step counts as: backward by input and by filter


def bench_step(options):
    """Tell images a second, ratio and share of the peak of each network, library, dtype; write JSON and a picture."""
    import keras

    import kresnets

    best = {dtype: peaks(dtype.removeprefix("mixed_"), rounds=5)["convolution"] for dtype in options.dtype}
    print(f"kresnets / it: the ratio of medians, and its range over {options.rounds} rounds")
    rows = []
    for model in options.model:
        own = kresnets.SPECS[model].input_size
        size = options.size or own
        operations = 2 * kresnets.summarize(getattr(kresnets, model)(weights=None)).total.multiply_adds
        operations *= (size / own) ** 2
        for dtype in options.dtype:
            keras.mixed_precision.set_dtype_policy(dtype)
            timed = peers(model, dtype, size, options.batch_size, options.steps)
            for index, (what, passes) in enumerate(FORWARDS.items()):
                seconds = alternate({name: both[index] for name, both in timed.items()}, options.rounds)
                for name, times in seconds.items():
                    rate = options.batch_size / statistics.median(times)
                    row = {"what": what, "model": model, "dtype": dtype, "library": name, "images_per_second": rate}
                    row["share_of_peak"] = rate * operations * passes / best[dtype]
                    if name != "kresnets":
                        row["ratio"], *row["ratio_range"] = ratio(times, seconds["kresnets"])
                    rows.append(tell(row))
            if options.memory:
                rows += _memory(model, dtype, size, options.batch_size)
            for one in timed.get("timm", ()):
                one.close()
    rows += _callbacks(options)
    keras.mixed_precision.set_dtype_policy("float32")
    picture.shares([row for row in rows if "share_of_peak" in row], options.out.with_suffix(".png"))
    return write(options, rows, peak={dtype: peak / 1e9 for dtype, peak in best.items()})


def _memory(model, dtype, size, batch_size):
    """Yield what a training step adds to a process's peak memory: ours, ours with recompute, keras.applications'."""
    import keras

    tried = {"kresnets": ("kresnets", False), "kresnets, recompute": ("kresnets", True)}
    if hasattr(keras.applications, model):
        tried["keras.applications"] = ("keras.applications", False)
    for name, (library, again) in tried.items():
        used = training_memory(library, model, dtype, size, batch_size, again)
        yield tell({"what": "memory", "model": model, "dtype": dtype, "library": name, "MiB": used / 2**20})


def _callbacks(options):
    """Yield training without both callbacks against training with them, the first network alone."""
    import keras

    import kresnets
    from kresnets.analysis.timing import Training

    name = options.model[0]
    size = options.size or kresnets.SPECS[name].input_size
    for dtype in options.dtype:
        keras.mixed_precision.set_dtype_policy(dtype)
        model = getattr(kresnets, name)(weights=None, input_shape=(size, size, 3))
        callbacks = [kresnets.StagedUnfreezing({0: "stem"}, "train"), kresnets.LayerwiseLearningRate(0.5)]
        how = model, size, options.batch_size, options.steps
        seconds = alternate({"with": Training(*how, callbacks), "without": Training(*how)}, options.rounds)
        middle, *spread = ratio(seconds["without"], seconds["with"])
        yield tell({"what": "callbacks", "model": name, "dtype": dtype, "ratio": middle, "ratio_range": spread})
