"""Is the test honest: test images that are nearly the same as one that was learned from.

The same thing photographed twice, a frame of the same video, a copy saved anew. What an image looks like is kept small:
its light and dark in 16 x 16, its details in 48 x 48, each less what all training images have in common. Two images are
nearly the same where they are alike by far more than the first is like its twentieth neighbour (of few images a nearer
one): in pictures of one kind (cells, scans) all are alike, and no fixed measure would tell.
"""

import csv
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kresnets._util import files
from kresnets.report import figures, predictions

_COARSE, _FINE, _BLUR = 16, 48, 2.0  # pixels a side, and of the blur that details are left by
# Chosen on ELPV's cells, of which many were photographed several times, CIFAR-10 and tiles of photographs, with copies
# planted: saved anew, resized, brighter, cut by 3 %.
_LEAST, _RATIO, _NEIGHBOUR = 0.85, 0.12, 20
_PAIRS = 50_000_000  # compared at a time: 200 MB
_MOST = 100_000  # training images: those of so many take 1 GB to compare with


class Near(NamedTuple):
    """Images of one part that are nearly the same as one of another.

    Args:
        rows: integers `(found,)`, which images of the part that judges.
        like: integers `(found,)`, for each of them the training image that it is most like.
        similarity: floats `(found,)`, up to 1.
    """

    rows: np.ndarray
    like: np.ndarray
    similarity: np.ndarray


def signatures(part, size, crop=1.0):
    """Return what the images of a `kresnets.data.Part` look like, float16 `(images, numbers)`."""
    found = [_signature(images) for images, _ in part.arrays(size, crop, 256)]
    return np.concatenate(found) if found else np.empty((0, _COARSE**2 + _FINE**2), np.float16)


def _signature(images):
    from scipy.ndimage import gaussian_filter

    three = images.shape[-1] == 3
    grey = images @ np.float32([[0.299], [0.587], [0.114]]) if three else images.mean(-1, keepdims=True)
    coarse, fine = (tf.image.resize(grey, (side, side), "area").numpy()[..., 0] for side in (_COARSE, _FINE))
    fine = fine - gaussian_filter(fine, (0, _BLUR, _BLUR))
    return np.concatenate([_unit(kind.reshape(len(images), -1)) for kind in (coarse, fine)], axis=1).astype(np.float16)


def _unit(rows):
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def near_duplicates(judged, learned):
    """Return which images are nearly the same as one of those that were learned from, as `Near`.

    Args:
        judged: `signatures` of the images that judge.
        learned: those of the images that were learned from.

    Example:
        >>> import numpy as np
        >>> learned = np.random.default_rng(0).normal(size=(50, 2560)).astype("float16")
        >>> near_duplicates(learned[[7]] * 1.01, learned).like.tolist()
        [7]
    """
    count = len(learned)
    if count < 4 or not len(judged):
        return Near(*(np.empty(0, kind) for kind in (int, int, float)))
    common = learned.mean(0, dtype="float64").astype("float32")
    learned = _less(learned, common)
    neighbour = min(_NEIGHBOUR, max(2, round(0.03 * count)))  # of few images the twentieth is unlike any
    rows, like, similarity = [], [], []
    block = max(1, _PAIRS // count)
    for start in range(0, len(judged), block):
        alike = _less(judged[start : start + block], common) @ learned.T
        nearest = alike.argmax(1)
        best = alike[np.arange(len(alike)), nearest]
        usual = np.partition(alike, count - neighbour, axis=1)[:, count - neighbour]
        near = np.flatnonzero((best > _LEAST) & (1 - best < _RATIO * (1 - usual)))
        rows.append(start + near)
        like.append(nearest[near])
        similarity.append(best[near])
    return Near(*map(np.concatenate, (rows, like, similarity)))


def _less(found, common):
    """Return signatures less what all have in common, so that a product is the mean of both likenesses."""
    kinds = np.split(found.astype(np.float32) - common, [_COARSE**2], axis=1)
    return np.concatenate([_unit(kind) for kind in kinds], axis=1) / np.float32(np.sqrt(len(kinds)))


def answer(run, data, config, right):
    """Return whether the test is honest, for the page and for metrics.json; write `near_duplicates.csv` and the picture
    into a run's folder where there are any.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        data: `kresnets.data.Data`.
        config: what the run's config.json holds.
        right: bool array, whether the answer to each test image is right; None where answers are numbers.

    Returns:
        What answers the question (see `kresnets.report.html`), and a dict: `count`, `accuracy_without`.
    """
    if len(data.train) > _MOST:
        return [f"Not looked at: there are more than {_MOST:,} training images to compare with."], {}
    # A network of few pixels sees no details; of others' size there may be decoded images.
    size, crop = max(config["size"], 2 * _FINE), config["preprocess"]["crop"]
    near = near_duplicates(*(signatures(part, size, crop) for part in (data.test, data.train)))
    count, total = len(near.rows), len(data.test)
    without = () if right is None else np.delete(right, near.rows)
    if not count:
        return ["No test image is nearly the same as a training image."], {"count": 0}
    others = float(without.mean()) if len(without) else None
    with files.replacing(run / "near_duplicates.csv") as beside, predictions.opened(beside) as to:
        writer = csv.writer(to, lineterminator="\n")
        writer.writerow(["test_file", "training_file", "similarity"])
        for row, like, similarity in zip(*near):
            writer.writerow([data.test.ids[row], data.train.ids[like], f"{similarity:.4f}"])
    draw(near, data.test, data.train, size, crop, run / "near_duplicates.png")
    told = f"{count} of {total} test images ({count / total:.0%}) are nearly the same as a training image"
    told += f": accuracy without them {others:.3f}, with them {right.mean():.3f}. " if len(without) else ". "
    told += "Where these are the same thing twice (a patient, a frame of a video), keep what belongs together in one "
    told += "part, by --columns group=COLUMN or --group-by. near_duplicates.csv lists them."
    return [told, run / "near_duplicates.png"], {"count": count, "accuracy_without": others}


def draw(near, judged, learned, size, crop, path, most=6):
    """Draw pairs as a PNG, the most alike first: above what judges, below what was learned from."""
    chosen = np.argsort(-near.similarity, kind="stable")[:most]
    sides = [judged.pixels(size, near.rows[chosen], crop), learned.pixels(size, near.like[chosen], crop)]
    photo, gap, text = 150, 10, 30
    width, height = max(3, len(chosen)) * (photo + gap) + gap, 2 * (photo + gap) + text
    made = figures.figure(width, height)
    made.text(
        gap / width, 1 - text / 2 / height, "Above: test images. Below: training images", va="center",
        fontsize=figures.TEXT,
    )  # fmt: skip
    for row, images in enumerate(sides):
        for column, image in enumerate(images):
            place = gap + column * (photo + gap), (1 - row) * (photo + gap) + gap
            figures.photograph(made, (*place, photo, photo), image)
    figures.save(made, path)
