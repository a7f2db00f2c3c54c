"""Small images to learn from: real photographs at hand, or CIFAR-10."""

import dataclasses
import functools

import numpy as np

NAMES = ("digits", "patches", "cifar10")


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Images in two parts.

    Args:
        train, test: float32 `(n, size, size, 3)`, standardised by the mean and deviation of the training part.
        train_labels, test_labels: int32 `(n,)`.
        classes: number of classes.
        what: what they are, as a sentence.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    classes: int
    what: str


@functools.lru_cache(maxsize=4)
def pictures(name, size=32, limit=None):
    """Load images.

    Args:
        name: `"digits"`, scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged; `"patches"`, pieces of the
            ELPV photographs, told by the type of the cell; `"cifar10"`.
        size: pixels a side. Defaults to 32.
        limit: images of the training part at most. Defaults to None for all.

    Returns:
        `Pictures`; the test part is a third of the digits and of the cells (no cell is in both), CIFAR-10's own.

    Raises:
        ValueError: for an unknown name, or where CIFAR-10 cannot be had.

    Example:
        >>> pictures("digits", 16).train.shape
        (1198, 16, 16, 3)
    """
    if name not in NAMES:
        raise ValueError(f"--data must be one of {', '.join(NAMES)}. Received: {name!r}")
    train, train_labels, test, test_labels, what = {"digits": _digits, "patches": _patches, "cifar10": _cifar10}[name](
        size
    )
    if limit is not None:
        chosen = np.random.default_rng(0).permutation(len(train))[:limit]
        train, train_labels = train[chosen], train_labels[chosen]
    mean, deviation = train.mean(), train.std()
    train, test = ((part - mean) / deviation for part in (train, test))
    labels = (np.asarray(part, "int32") for part in (train_labels, test_labels))
    return Pictures(train, next(labels), test, next(labels), int(max(train_labels)) + 1, what)


def _digits(size):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = _resized(digits.images.astype("float32")[..., None] / 16, size)
    # Without shuffling: neighbours in the file were written by the same hand, so the last third are other writers.
    cut = len(images) - len(images) // 3
    labels = digits.target
    return images[:cut], labels[:cut], images[cut:], labels[cut:], "scikit-learn's 1,797 handwritten digits"


def _patches(size):
    """Cut four pieces from each cell, of a quarter of its width."""
    from PIL import Image

    from kresnets.data import elpv

    parts = {"train": ([], []), "test": ([], [])}
    for number, (path, _, kind) in enumerate(elpv.photographs()):
        with path.open("rb") as file:
            pixels = np.asarray(Image.open(file).convert("L").resize((4 * size, 4 * size), Image.Resampling.BOX))
        images, labels = parts["test" if number % 3 == 2 else "train"]
        draw = np.random.default_rng(number)
        for top, left in draw.integers(0, 3 * size, (4, 2)):
            images.append(pixels[top : top + size, left : left + size])
            labels.append(int(kind == "poly"))
    both = []
    for images, labels in parts.values():
        pieces = np.repeat(np.stack(images)[..., None], 3, -1).astype("float32") / 255
        both += [pieces, np.asarray(labels)]
    return *both, "pieces of the ELPV photographs of solar cells, mono- or polycrystalline"


def _cifar10(size):
    from _claims.cifar10 import cifar10

    images, labels, test, test_labels = cifar10()
    if size != 32:
        if 32 % size:
            raise ValueError(f"CIFAR-10 has 32 pixels a side, which can be halved. Received: size={size}")
        step = 32 // size
        images, test = (
            part.reshape(-1, size, step, size, step, 3).mean((2, 4)).astype("float32") for part in (images, test)
        )
    return images / np.float32(255), labels, test / np.float32(255), test_labels, "CIFAR-10"


def _resized(images, size):
    import keras

    made = keras.ops.image.resize(images, (size, size), interpolation="bilinear", data_format="channels_last")
    return np.repeat(keras.ops.convert_to_numpy(made), 3, -1)
