"""How many images a second the input pipeline delivers from a folder of large photographs, and how many a training step
uses."""

import io
import pathlib
import statistics
import tempfile
import time

from bench.rounds import write

_DIFFERENT = 8  # pictures; the other files are copies: what decoding them takes is the same
_SECONDS = 1.0  # for which a pipeline is drawn from at least, each round


LEAST = 3  # times what a training step uses, that the pipeline must deliver after the first epoch


def bench_input(options):
    """Print what the pipeline delivers for ResNet50 and CifarResNet20, and whether that is enough."""
    import keras

    keras.mixed_precision.set_dtype_policy(options.dtype)
    rows = []
    for model, size, batch_size in (("ResNet50", 224, 16), ("CifarResNet20", 32, 128)):
        images = max(options.images, 2 * batch_size)
        found = measure(model, images, size=size, batch_size=batch_size, rounds=options.rounds)
        ratio = found.pop("ratio")
        print(f"{model}, {size} pixels, batch {batch_size}, {options.dtype}; {images} JPEGs of 2000 x 1500, images/s")
        for name, rate in found.items():
            print(f"    {name:28}{rate:10.0f}")
        kept = ratio >= LEAST
        print(
            f"    later epochs / training step = {ratio:.0f}, at least {LEAST}: {'kept' if kept else 'MISSED'}",
            flush=True,
        )
        rows.append({"model": model, **found, "ratio": ratio, "limit": LEAST, "kept": kept})
    keras.mixed_precision.set_dtype_policy("float32")
    return write(options, rows)


def measure(model="ResNet50", images=64, width=2000, height=1500, size=224, batch_size=16, rounds=3):
    """Measure pipelines alone and the training step alone, in turn, on JPEGs of smooth colours with noise, quality 90.

    Args:
        model: name of a builder of kresnets. Defaults to `"ResNet50"`.
        images: number of files. Defaults to 64.
        width, height: of the files, in pixels. Default to 2000 and 1500.
        size: pixels a side of what the model takes. Defaults to 224.
        batch_size: images a batch. Defaults to 16.
        rounds: of which the medians are taken. Defaults to 3.

    Returns:
        Dict, images a second: `"decoded in every epoch"`, `"first epoch"` (from nothing: the pipeline is made, images
            are
        decoded, kept and read), `"later epochs"`, `"later epochs, augmented"` (light) and `"training step"` (under the
        dtype policy that is set); and `"ratio"`, of later epochs to the step.

    Example:
        >>> found = measure("CifarResNet20", images=4, size=32, batch_size=2, rounds=1)
        >>> found["later epochs"] > found["decoded in every epoch"]
        True
    """
    import kresnets
    from kresnets.data import Part, augment_batches, augmentation

    with tempfile.TemporaryDirectory() as folder:
        files = _photographs(pathlib.Path(folder), images, width, height)

        def batches(cache):
            part = Part(files, [0] * images, files, ["one"], progress=False)  # a new one, which keeps nothing yet
            return part.batches(batch_size, size, shuffle_seed=0, cache=cache)

        step = _Step(getattr(kresnets, model)(weights=None, input_shape=(size, size, 3), classes=10), size, batch_size)
        kept = batches(f"{folder}/kept")
        timed = {
            "decoded in every epoch": lambda: _rate(batches(False)),
            "first epoch": lambda: images / _seconds(lambda: list(batches(tempfile.mkdtemp(dir=folder)))),
            "later epochs": lambda: _rate(kept),
            "later epochs, augmented": lambda: _rate(augment_batches(kept, augmentation("light"))),
            "training step": step.rate,
        }
        seen = [{name: rate() for name, rate in timed.items()} for _ in range(rounds)]
    found = {name: statistics.median(one[name] for one in seen) for name in timed}
    return {**found, "ratio": found["later epochs"] / found["training step"]}


def _photographs(folder, count, width, height):
    """Write JPEGs and return their paths."""
    import numpy as np
    from PIL import Image

    encoded = []
    for number in range(min(count, _DIFFERENT)):
        random = np.random.default_rng(number)
        colours = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-12, 13, (height, width, 3), dtype=np.int16)
        stream = io.BytesIO()
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded[number % len(encoded)])
    return [str(path) for path in paths]


def _rate(dataset):
    """Return the images a second that a pipeline delivers to one who only takes them, epoch after epoch."""
    drawn = iter(dataset.repeat())
    next(drawn)  # what the first takes is making the pipeline
    images, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < _SECONDS:
        images += len(next(drawn)[1])
    return images / seconds


def _seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


class _Step:
    """Time training steps on one batch that is in memory."""

    def __init__(self, model, size, batch_size, steps=4):
        import tensorflow as tf

        self._model, self._images = model, batch_size * steps
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        batch = tf.random.stateless_normal((batch_size, size, size, 3), (0, 0)), tf.zeros(batch_size, tf.int32)
        self._batches = tf.data.Dataset.from_tensors(batch).cache().repeat(steps)
        self.rate()  # traces

    def rate(self):
        """Return images a second."""
        return self._images / _seconds(lambda: self._model.fit(self._batches, shuffle=False, verbose=0))
