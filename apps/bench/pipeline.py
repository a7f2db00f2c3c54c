"""How many images a second the input pipeline delivers from a folder of large photographs, and how many a training step
uses."""

import pathlib
import statistics
import tempfile
import time

from bench.asking import pictures
from bench.rounds import seconds, tell, write

_IMAGES, _DIFFERENT = 128, 8  # the other files are copies: what decoding them takes is the same
_SECONDS = 1.0  # for which a pipeline is drawn from at least, each round
LEAST = 3  # times what a training step uses, that the pipeline must deliver after the first epoch


def bench_input(options):
    """Tell what the pipeline delivers for ResNet50 and CifarResNet20, and whether that is enough."""
    rows = []
    for model, size, batch_size in (("ResNet50", 224, 16), ("CifarResNet20", 32, 128)):
        found = measure(model, max(_IMAGES, 2 * batch_size), size, batch_size, options.rounds)
        row = {"what": f"{model}, images a second", **found, "limit": LEAST, "kept": found["ratio"] >= LEAST}
        rows.append(tell(row))
    return write(options, rows)


def measure(model, images, size, batch_size, rounds, width=2000, height=1500):
    """Measure pipelines alone and the training step alone, in turn, on JPEGs of `width` x `height` pixels.

    Returns dict, images a second: `"decoded in every epoch"`, `"first epoch"` (from nothing: the pipeline is made,
    images are decoded, kept and read), `"later epochs"`, `"later epochs, augmented"` (light) and `"training step"`; and
    the `"ratio"` of later epochs to the step.
    """
    import kresnets
    from kresnets.analysis.timing import Training
    from kresnets.data import Part, augment_batches, augmentation

    with tempfile.TemporaryDirectory() as folder:
        encoded = pictures(_DIFFERENT, height, width)
        files = [str(pathlib.Path(folder) / f"{number}.jpg") for number in range(images)]
        for number, path in enumerate(files):
            pathlib.Path(path).write_bytes(encoded[number % _DIFFERENT])

        def batches(cache):
            part = Part(files, [0] * images, files, ["one"], progress=False)  # a new one, which keeps nothing yet
            return part.batches(batch_size, size, shuffle_seed=0, cache=cache)

        network = getattr(kresnets, model)(weights=None, input_shape=(size, size, 3), classes=10)
        step, kept = Training(network, size, batch_size, 4), batches(f"{folder}/kept")
        timed = {
            "decoded in every epoch": lambda: _rate(batches(False)),
            "first epoch": lambda: images / seconds(lambda: list(batches(tempfile.mkdtemp(dir=folder)))),
            "later epochs": lambda: _rate(kept),
            "later epochs, augmented": lambda: _rate(augment_batches(kept, augmentation("light"))),
            "training step": lambda: batch_size / step(),
        }
        seen = [{name: rate() for name, rate in timed.items()} for _ in range(rounds)]
    found = {name: statistics.median(one[name] for one in seen) for name in timed}
    return found | {"ratio": found["later epochs"] / found["training step"]}


def _rate(dataset):
    """Return the images a second that a pipeline delivers to one who only takes them, epoch after epoch."""
    drawn = iter(dataset.repeat())
    next(drawn)  # what the first takes is making the pipeline
    images, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _SECONDS:
        images += len(next(drawn)[1])
    return images / passed
