"""Measure kresnets against its peers, in one process, alternating: python apps/bench.py step

Every figure is a ratio of medians over rounds A B A B, with the spread of the ratios round by round: machines are
noisy.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import time

import _common


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser(
        "step", help="training step and prediction against keras.applications, and the cost of the callbacks"
    )
    step.add_argument("--model", default="ResNet50", help="a network that keras.applications has too; default ResNet50")
    step.add_argument("--size", type=_common.positive_int, default=224)
    step.add_argument("--batch-size", type=_common.positive_int, default=16)
    step.add_argument("--steps", type=_common.positive_int, default=3, help="timed steps a round; default 3")
    step.add_argument("--rounds", type=_common.positive_int, default=5)
    step.add_argument(
        "--dtype", nargs="+", choices=("float32", "mixed_bfloat16"), default=["float32", "mixed_bfloat16"]
    )
    step.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/bench/step.json"))
    options = parser.parse_args(argv)
    _common.import_tensorflow()
    return bench_step(options)


def bench_step(options):
    """Time training and prediction of one network in both libraries, and training with and without the callbacks."""
    import keras

    import kresnets
    from kresnets.hardware import describe

    if options.model not in kresnets.SPECS or not hasattr(keras.applications, options.model):
        both = [name for name in kresnets.list_models() if hasattr(keras.applications, name)]
        raise ValueError(f"--model must be a network of both libraries: {', '.join(both)}. Received: {options.model}")
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
    measured = {"machine": describe(), "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}
    _common.write_text(options.out, json.dumps(measured, indent=1) + "\n")
    print(
        f"A is kresnets (or training with both callbacks), B the other; medians of {options.rounds} rounds, alternating. {options.out}"
    )
    return 0


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
    """Run both in turn and return images a second of each, the ratio of the medians, and the ratio of each round."""
    one(), other()  # warm
    rounds = [(one(), other()) for _ in range(options.rounds)]
    a, b = (options.batch_size / statistics.median(times) for times in zip(*rounds))
    return {"a": a, "b": b, "ratio": a / b, "ratios": [second / first for first, second in rounds]}


if __name__ == "__main__":
    _common.run(main)
