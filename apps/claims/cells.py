"""The cells in which a default recipe is chosen and judged: a task and a number of images, drawn by the seed."""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from claims import images, runner, scores, transfer
from kresnets.data.split import take

VALIDATION = 0.15  # of the images that a user has, as `kresnets finetune` parts them
_TEST = 1000  # of CIFAR-10's 10,000
CIFAR = "cifar10"


class Cell(NamedTuple):
    """A task, `"cifar10"` or a key of `images.TARGETS`; the images that a user has in all; pixels a side."""

    target: str
    n: int
    size: int


# What a recipe is chosen by, the two small ones first; then what it is judged by, once, after the choice.
CHOOSE = (Cell("elpv/poly", 100, 128), Cell(CIFAR, 100, 96), Cell("elpv/poly", 400, 128), Cell(CIFAR, 2000, 96))
JUDGE = (*(Cell("elpv/mono", n, 128) for n in (75, 250, 806)), Cell(CIFAR, 400, 96), Cell("digits", 100, 96))
QUICK = (Cell("digits", 60, 32), Cell("faces", 40, 32))
# Where a trunk is carried that is taught here, on CIFAR-10.
TAUGHT = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128))
TEACHING = {"taught_size": 48, "taught_epochs": 6, "taught_rate": 3e-3, "taught_augment": "light"}


def learning(n):
    """Return how many of a user's `n` images are left to learn from."""
    return n - int(VALIDATION * n + 0.5)


@functools.lru_cache(maxsize=2)
def draw(cell, seed, judged):
    """Draw a cell's images: the same test images for each seed, the user's other ones.

    Where a recipe is judged by them, CIFAR-10's images are others than those it is chosen by, to learn from and to
    test; of the other tasks none is in both phases. The classes are in proportion in each part.
    """
    if cell.target == CIFAR:
        pixels, labels, test, test_labels = _cifar10(judged)
    else:
        drawn = images.target(cell.target, cell.size, "all", 0)
        (pixels, labels), test, test_labels = drawn.whole, drawn.test, drawn.test_labels
    order = np.random.default_rng((seed, int(judged))).permutation(len(labels))
    chosen = take(order.tolist(), labels.tolist(), cell.n)
    again = np.random.default_rng((seed, cell.n)).permutation(chosen)
    validation = np.array(take(again.tolist(), labels.tolist(), cell.n - learning(cell.n)))
    train = np.setdiff1d(chosen, validation)
    learned, validated = ((resized(pixels[rows], cell.size), labels[rows]) for rows in (train, validation))
    return images.Pictures(int(labels.max()) + 1, *learned, resized(test, cell.size), test_labels, *validated)


_cifar10_whole = functools.cache(lambda: images.cifar10())


def _cifar10(judged):
    """Return a half of CIFAR-10: images to learn from and labels, test images and labels."""
    pixels, labels, test, test_labels = _cifar10_whole()
    half = slice(len(labels) // 2) if judged else slice(len(labels) // 2, None)
    tested = slice(_TEST) if judged else slice(_TEST, 2 * _TEST)
    return pixels[half], labels[half], test[tested], test_labels[tested]


def resized(pixels, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in pixels])


def network(setting, classes, kept):
    """Return the network of a setting with a new head, `trunk` being `"open_nsfw"`, `"cifar10"`: taught here and in the
    folder `kept`, or `"none"`."""
    weights = None if setting["trunk"] == "none" else setting["trunk"]
    if weights == CIFAR:
        weights = _file(lesson(setting["dtype"]), kept)
        if not weights.exists():
            raise ValueError(f"{weights} is not there, though its lesson is done: remove that run, to teach it again.")
    return transfer.build(setting, classes, weights)


def lesson(dtype):
    """Return the setting in which the trunk is taught that the judged cells carry too."""
    return {"task": "teach", "network": transfer.PUPIL, "trunk": "none", "dtype": dtype, "seed": 0} | TEACHING


def teach(setting, kept):
    """Teach the trunk, and measure how good it is, with its own head, on test images of CIFAR-10."""
    path, size = _file(setting, kept), setting["taught_size"]
    pixels, labels, test, test_labels = _cifar10_whole()
    model = network(setting | {"size": size}, 10, kept)
    if not path.exists():
        transfer.teach(model, resized(pixels, size), labels, setting["taught_augment"], setting, path)
    model.load_weights(path)
    return [judged(model, resized(test[:_TEST], size), test_labels[:_TEST])]


def _file(setting, kept):
    return kept / f"trunk-{runner.key(setting)}.weights.h5"


def judged(model, pixels, labels):
    """Return how good a network is on images 0..255, see `scores.measured`."""
    return scores.measured(scores.outputs(scores.asker(model), scores.prepared(model, pixels)), labels)
