"""What claims measure of a network without teaching it: what it reads of its input, how far a unit sees, times."""

import statistics

import keras
import numpy as np
import tensorflow as tf
from bench.rounds import alternate

import kresnets
from claims.claim import Finding
from claims.judge import above, interval, pick
from kresnets.analysis.timing import Prediction, Training


def averaging(model):
    """Make every convolution a mean over its window, without bias, and return the model, whose norms are fresh: nothing
    cancels, and no ReLU is shut."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *bias = layer.get_weights()
            layer.set_weights([np.full_like(kernel, 1 / np.prod(kernel.shape[:-1])), *map(np.zeros_like, bias)])
    return model


def read(inputs, outputs, centre=False):
    """Return as a bool array `(height, width)` which positions of an input the output, or its `centre` alone, depends
    on; both are symbolic tensors of a model of `averaging`, with sides that are known."""
    part, image = keras.Model(inputs, outputs), tf.ones((1, *inputs.shape[1:]))
    with tf.GradientTape() as tape:
        tape.watch(image)
        made = part(image, training=False)
        total = tf.reduce_sum(made[:, made.shape[1] // 2, made.shape[2] // 2] if centre else made)
    return np.any(tape.gradient(total, image).numpy()[0] != 0, axis=-1)


def field(inputs, outputs):
    """Return height and width of the receptive field of a unit in the middle."""
    seen = read(inputs, outputs, centre=True)
    return tuple(int(np.ptp(np.flatnonzero(seen.any(axis)))) + 1 for axis in (1, 0))


def times(setting, specs):
    """Measure training and prediction of networks, dict name -> row, in turn, A B A B, in `rounds` of the setting after
    one to warm up; of the steps of a round the median counts."""
    functions = {}
    for name, spec in specs.items():
        model = kresnets.build(spec, input_shape=(setting["size"], setting["size"], 3), classes=10)
        for work, kind in (("training", Training), ("prediction", Prediction)):
            functions[name, work] = kind(model, setting["size"], setting["batch"], 3)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return [
        {"network": name, "work": work, "round": number, "ms": 1000 * seconds, "threads": threads}
        for (name, work), found in alternate(functions, setting["rounds"]).items()
        for number, seconds in enumerate(found)
    ]


def milliseconds(rows, network, work, **where):
    """Return dict round -> milliseconds of a network among rows of `times`."""
    return {row["round"]: row["ms"] for row in pick(rows, network=network, work=work, **where)}


def ratios(time, kinds, rows, work, **where):
    """Return dict round -> time of the first kind over that of the second, by a function like `milliseconds`."""
    ones, others = (time(rows, kind, work, **where) for kind in kinds)
    # A machine that did something else can make a difference of two negative: such a round says nothing.
    return {number: ones[number] / others[number] for number in ones if ones[number] > 0 and others[number] > 0}


def more_time(found):
    """Return ratios of times, one a round, as text such as `-6 % (95 %: -8 to -4; 7 of 7 rounds)`."""
    more = [ratio - 1 for ratio in found.values()]
    return interval(more).text(" %", 0, 100, each="round") if more else "lost in noise"


def faster(claim, told, time, kinds, rows, by_count):
    """Yield the `Finding`s that one kind takes less time than another, in the mean over the channels of the rows;
    `claim` lacks the work at its end, `told` begins the numbers, `by_count` is the ratio by multiply-adds."""
    channels = sorted({row["channels"] for row in pick(rows, part="time")})
    for work in ("training", "prediction"):
        each = {width: ratios(time, kinds, rows, work, channels=width) for width in channels}
        shown = "; ".join(f"C = {width}: {more_time(found)}" for width, found in each.items())
        rounds = sorted(set.intersection(*map(set, each.values())))
        means = [statistics.mean(found[number] for found in each.values()) for number in rounds]
        verdict = above(interval([1 - ratio for ratio in means]))
        yield Finding(f"{claim} {work}.", verdict, f"{told}: {shown}; by multiply-adds {by_count - 1:.0%}.")


def undisturbed(timed, rows, then):
    """Return the settings that measure time one more at a time, so that no other run is beside; when all are measured,
    also those of `then`, a function."""
    done = [setting for setting in timed if pick(rows, **setting)]
    missing = [setting for setting in timed if setting not in done]
    return done + (missing[:1] or then())
