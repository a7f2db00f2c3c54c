"""The cells in which a default recipe is chosen and judged: a task and a number of images, drawn by the seed."""

import contextlib
import dataclasses
import functools
import gc
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

import kresnets
from claims import judging, runner, transfer
from claims.cifar10 import cifar10
from claims.pictures import Pictures
from kresnets._util import files
from kresnets.data.split import take

VALIDATION = 0.15  # of the images that a user has, as `kresnets finetune` parts them
_TEST = 1000  # of CIFAR-10's 10,000
CIFAR = "cifar10"


class Cell(NamedTuple):
    """A task, `"cifar10"` or a key of `targets.TARGETS`; the images that a user has in all; pixels a side."""

    target: str
    n: int
    size: int


# What a recipe is chosen by, the two small ones first; then what it is judged by, once, after the choice.
CHOOSE = (Cell("elpv/poly", 100, 128), Cell(CIFAR, 100, 96), Cell("elpv/poly", 400, 128), Cell(CIFAR, 2000, 96))
JUDGE = (
    *(Cell("elpv/mono", n, 128) for n in (75, 250, 806)), Cell(CIFAR, 400, 96), Cell("digits", 100, 96)
)  # fmt: skip
QUICK = (Cell("digits", 60, 32), Cell("faces", 40, 32))
# A network whose trunk is taught here, on CIFAR-10, and where it is carried.
PUPIL = "ResNet18DThin"
TAUGHT = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128))
TEACHING = {"size": 48, "epochs": 6, "rate": 3e-3, "augment": "light"}


def learning(n):
    """Return how many of a user's `n` images are left to learn from."""
    return n - int(VALIDATION * n + 0.5)


@functools.lru_cache(maxsize=2)
def draw(cell, seed, judged):
    """Draw a cell's images: the same test images for each seed, the user's other ones.

    Where a recipe is judged by them, CIFAR-10's images are others than those it is chosen by, to learn from and to
    test; of the other tasks none is in both phases. The classes are in proportion in each part.
    """
    read, labels, test_labels = _source(cell, judged)
    order = np.random.default_rng((seed, int(judged))).permutation(len(labels))
    chosen = take(order.tolist(), labels.tolist(), cell.n)
    again = np.random.default_rng((seed, cell.n)).permutation(chosen)
    validation = np.array(take(again.tolist(), labels.tolist(), cell.n - learning(cell.n)))
    train = np.setdiff1d(chosen, validation)
    learned, validated = ((read("rest", rows), labels[rows]) for rows in (train, validation))
    return Pictures(int(labels.max()) + 1, *learned, read("test", slice(None)), test_labels, *validated)


def _source(cell, judged):
    """Return a function of a part, `"rest"` or `"test"`, and rows to their images, and the labels of both parts."""
    if cell.target == CIFAR:
        images, labels, test, test_labels = _cifar(judged)
        return lambda part, rows: resized((images if part == "rest" else test)[rows], cell.size), labels, test_labels
    drawn = transfer.pictures(cell.target, cell.size, "all", 0)
    parts = {"rest": np.concatenate([drawn.train, drawn.validation]), "test": drawn.test}
    labels = np.concatenate([drawn.train_labels, drawn.validation_labels])
    return lambda part, rows: parts[part][rows], labels, drawn.test_labels


@functools.lru_cache(maxsize=1)
def _cifar_whole():
    return cifar10()


def _cifar(judged):
    """Return a half of CIFAR-10: images to learn from and labels, test images and labels."""
    images, labels, test, test_labels = _cifar_whole()
    half = slice(len(labels) // 2) if judged else slice(len(labels) // 2, None)
    tested = slice(_TEST) if judged else slice(_TEST, 2 * _TEST)
    return images[half], labels[half], test[tested], test_labels[tested]


def resized(images, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])


@contextlib.contextmanager
def policy(name):
    """Begin anew under a dtype policy of Keras, for a while."""
    before = keras.mixed_precision.dtype_policy()
    # What earlier runs of this process traced would fill the memory. It forgets the policy too, so first.
    keras.backend.clear_session()
    gc.collect()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def network(setting, classes, kept):
    """Return the network of a setting with a new head.

    It has `network`, `trunk` (`"open_nsfw"`, `"cifar10"`: taught here and in the folder `kept`, `"none"`), `size` and
    `seed`.
    """
    row = kresnets.SPECS["ResNet18D" if setting["network"] == PUPIL else setting["network"]]
    if setting["network"] == PUPIL:
        row = dataclasses.replace(row, widths=(32, 64, 128, 256), stem_width=32, params=None)
    weights = None if setting["trunk"] == "none" else setting["trunk"]
    if weights == CIFAR:
        weights = _file(lesson(setting["dtype"]), kept)
        if not weights.exists():
            raise ValueError(f"{weights} is not there, though its lesson is done: remove that run, to teach it again.")
    keras.utils.set_random_seed(setting["seed"])
    return kresnets.build(row, input_shape=(setting["size"],) * 2 + (3,), classes=classes, weights=weights)


def lesson(dtype):
    """Return the setting in which the trunk is taught that the judged cells carry too."""
    taught = {f"taught_{name}": value for name, value in TEACHING.items()}
    return {"task": "teach", "network": PUPIL, "trunk": "none", "dtype": dtype, "seed": 0} | taught


def teach(setting, kept):
    """Teach the trunk, and measure how good it is, with its own head, on test images of CIFAR-10."""
    path, size = _file(setting, kept), setting["taught_size"]
    images, labels, test, test_labels = _cifar_whole()
    model = network(setting | {"size": size}, 10, kept)
    if not path.exists():
        recipe = kresnets.Recipe.from_scratch(setting["taught_epochs"], setting["taught_rate"], seed=setting["seed"])
        recipe = dataclasses.replace(recipe, augment=setting["taught_augment"])
        kresnets.fine_tune(model, (resized(images, size), labels), recipe=recipe, verbose=0)
        with files.replacing(path) as beside:
            model.save_weights(beside)
    model.load_weights(path)
    return [judged(model, resized(test[:_TEST], size), test_labels[:_TEST])]


def _file(setting, kept):
    return kept / f"trunk-{runner.key(setting)}.weights.h5"


def judged(model, images, labels):
    """Return how good a network is on images 0..255, see `judging.measured`."""
    return judging.measured(judging.outputs(judging.asker(model), judging.prepared(model, images)), labels)
