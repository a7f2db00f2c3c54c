"""Small images to learn from: real photographs at hand, or CIFAR-10."""

import functools
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from claims.cifar10 import cifar10


class Pictures(NamedTuple):
    """Images in parts, `(n, size, size, 3)`: float32, standardised by the training part, as `pictures` gives them,
    else uint8 RGB; integer labels `(n,)`."""

    classes: int
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    validation: np.ndarray | None = None
    validation_labels: np.ndarray | None = None


@functools.lru_cache(maxsize=4)
def pictures(name, size=32, limit=None):
    """Load images.

    `"digits"` are scikit-learn's 1,797 handwritten ones of 8x8 pixels, enlarged; `"patches"` pieces of the ELPV
    photographs, told by the type of the cell. The test part is a third of the digits and of the cells (no cell is in
    both), CIFAR-10's own. `limit` is the most images to learn from.
    """
    if name not in READERS:
        raise ValueError(f"--data must be one of {', '.join(READERS)}. Received: {name!r}")
    train, train_labels, test, test_labels = READERS[name](size)
    if limit is not None:
        chosen = np.random.default_rng(0).permutation(len(train))[:limit]
        train, train_labels = train[chosen], train_labels[chosen]
    mean, deviation = train.mean(), train.std()
    train, test = ((part - mean) / deviation for part in (train, test))
    train_labels, test_labels = (np.asarray(part, "int32") for part in (train_labels, test_labels))
    return Pictures(int(max(train_labels)) + 1, train, train_labels, test, test_labels)


def _digits(size):
    digits = load_digits()
    images = digits.images.astype("float32")[..., None] / 16
    images = keras.ops.image.resize(images, (size, size), interpolation="bilinear", data_format="channels_last")
    images = np.repeat(keras.ops.convert_to_numpy(images), 3, -1)
    # Without shuffling: neighbours in the file were written by the same hand, so the last third are other writers.
    cut = len(images) - len(images) // 3
    return images[:cut], digits.target[:cut], images[cut:], digits.target[cut:]


def _patches(size):
    """Cut four pieces from each cell, of a quarter of its width."""
    from kresnets.data import elpv

    parts = {"train": ([], []), "test": ([], [])}
    for number, (path, _, kind) in enumerate(elpv.photographs()):
        with path.open("rb") as file:
            pixels = np.asarray(Image.open(file).convert("L").resize((4 * size, 4 * size), Image.Resampling.BOX))
        images, labels = parts["test" if number % 3 == 2 else "train"]
        for top, left in np.random.default_rng(number).integers(0, 3 * size, (4, 2)):
            images.append(pixels[top : top + size, left : left + size])
            labels.append(int(kind == "poly"))
    both = []
    for images, labels in parts.values():
        both += [np.repeat(np.stack(images)[..., None], 3, -1).astype("float32") / 255, np.asarray(labels)]
    return both


def _cifar10(size):
    images, labels, test, test_labels = cifar10()
    if 32 % size:
        raise ValueError(f"CIFAR-10 has 32 pixels a side, which can be halved. Received: size={size}")
    step = 32 // size
    if step > 1:
        images, test = (
            part.reshape(-1, size, step, size, step, 3).mean((2, 4)).astype("float32") for part in (images, test)
        )
    return images / np.float32(255), labels, test / np.float32(255), test_labels


READERS = {"digits": _digits, "patches": _patches, "cifar10": _cifar10}
