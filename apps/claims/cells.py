"""The cells in which a default recipe is chosen and judged: a task and a number of images, drawn by the seed."""

import contextlib
import dataclasses
import functools
import gc
from typing import NamedTuple

import numpy as np

from claims import judging, runner
from kresnets._util import files
from kresnets.data.split import take

VALIDATION = 0.15  # of the images that a user has, as `kresnets finetune` parts them
_TEST = 1000  # of CIFAR-10's 10,000
CIFAR = "cifar10"


class Cell(NamedTuple):
    """A task at one number of images.

    Args:
        target: `"cifar10"`, or a key of `targets.TARGETS`.
        n: images in all that a user has, those to validate by included.
        size: pixels a side.
    """

    target: str
    n: int
    size: int


# What a recipe is chosen by, the two small ones first; then what it is judged by, once, after the choice.
CHOOSE = (Cell("elpv/poly", 100, 128), Cell(CIFAR, 100, 96), Cell("elpv/poly", 400, 128), Cell(CIFAR, 2000, 96))
JUDGE = (
    Cell("elpv/mono", 75, 128),
    Cell("elpv/mono", 250, 128),
    Cell("elpv/mono", 806, 128),
    Cell(CIFAR, 400, 96),
    Cell("digits", 100, 96),
)
QUICK = (Cell("digits", 60, 32), Cell("faces", 40, 32))
# A network whose trunk is taught here, on CIFAR-10, and where it is carried.
PUPIL = "ResNet18DThin"
TAUGHT = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128))
TEACHING = {"size": 48, "epochs": 6, "rate": 3e-3, "augment": "light"}


class Pictures(NamedTuple):
    """A cell's images as one seed draws them: uint8 RGB `(n, size, size, 3)`, and int64 labels `(n,)`."""

    classes: int
    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @property
    def majority(self):
        """The share of the largest class among the test images, 0..1."""
        return float(np.bincount(self.test_labels).max() / len(self.test_labels))


def learning(n):
    """Return how many of a user's `n` images are left to learn from."""
    return n - int(VALIDATION * n + 0.5)


@functools.lru_cache(maxsize=2)
def draw(cell, seed, judged):
    """Draw a cell's images: the same test images for each seed, the user's other ones.

    Args:
        cell: a `Cell`.
        seed: of the draw, from 0.
        judged: whether a recipe is judged by them. CIFAR-10's images are then others than those it is chosen by, to
            learn from and to test; of the other tasks none is in both phases.

    Returns:
        `Pictures`, the classes in proportion in each part.
    """
    labels, test_labels = _labels(cell.target, judged)
    order = np.random.default_rng((seed, int(judged))).permutation(len(labels))
    chosen = take(order.tolist(), labels.tolist(), cell.n)
    again = np.random.default_rng((seed, cell.n)).permutation(chosen)
    validation = take(again.tolist(), labels.tolist(), cell.n - learning(cell.n))
    train = np.setdiff1d(chosen, validation)
    read = functools.partial(_images, cell.target, cell.size, judged)
    return Pictures(
        int(labels.max()) + 1,
        read("rest", train),
        labels[train],
        read("rest", np.array(validation)),
        labels[validation],
        read("test", np.arange(len(test_labels))),
        test_labels,
    )


def _labels(task, judged):
    if task == CIFAR:
        return _cifar(judged)[1::2]
    drawn = _target(task, 32)  # at any size
    return np.concatenate([drawn.train_labels, drawn.validation_labels]), drawn.test_labels


def _images(task, size, judged, part, rows):
    if task == CIFAR:
        return _resized(_cifar(judged)[0 if part == "rest" else 2][rows], size)
    drawn = _target(task, size)
    return (np.concatenate([drawn.train, drawn.validation]) if part == "rest" else drawn.test)[rows]


@functools.lru_cache(maxsize=4)
def _target(task, size):
    from claims import targets

    return targets.target(task, size, None, seed=0)


@functools.lru_cache(maxsize=1)
def _cifar_whole():
    from claims.cifar10 import cifar10

    return cifar10()


def _cifar(judged):
    """Return a half of CIFAR-10: images to learn from and labels, test images and labels."""
    images, labels, test, test_labels = _cifar_whole()
    half = slice(len(labels) // 2) if judged else slice(len(labels) // 2, None)
    tested = slice(_TEST) if judged else slice(_TEST, 2 * _TEST)
    return images[half], labels[half], test[tested], test_labels[tested]


def _resized(images, size):
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])


@contextlib.contextmanager
def policy(name):
    """Begin anew under a dtype policy of Keras, for a while."""
    import keras

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

    Args:
        setting: with `network`, `trunk` (`"open_nsfw"`, `"cifar10"`: taught here, `"none"`), `size` and `seed`.
        classes: number of its outputs.
        kept: folder in which a taught trunk is kept.
    """
    import keras

    import kresnets

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
    import kresnets

    path, size = _file(setting, kept), setting["taught_size"]
    images, labels, test, test_labels = _cifar_whole()
    model = network(setting | {"size": size}, 10, kept)
    if not path.exists():
        recipe = kresnets.Recipe.from_scratch(setting["taught_epochs"], setting["taught_rate"], seed=setting["seed"])
        recipe = dataclasses.replace(recipe, augment=setting["taught_augment"])
        kresnets.fine_tune(model, (_resized(images, size), labels), recipe=recipe, verbose=0)
        with files.replacing(path) as beside:
            model.save_weights(beside)
    model.load_weights(path)
    return [judged(model, _resized(test[:_TEST], size), test_labels[:_TEST])]


def _file(setting, kept):
    return kept / f"trunk-{runner.key(setting)}.weights.h5"


def judged(model, images, labels):
    """Return how good a network is on images 0..255, see `judging.measured`."""
    return judging.measured(judging.outputs(judging.asker(model), judging.prepared(model, images)), labels)
