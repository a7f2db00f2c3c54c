"""How good a classifier is on the test part, with intervals that say how far to trust the numbers.

The bootstrap draws test images with replacement. A resample's accuracy and recalls depend only on how many images fall
into each cell of the confusion matrix, and its AUC only on how many positives and negatives have each score: so the
cells are drawn (one multinomial draw a resample), not the images, which has the same distribution and is much faster.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kresnets._util.types import Array

_LEVEL = 95  # per cent, of every interval
_NORMAL_QUANTILE = 1.959963984540054  # two-sided, for that level
_DRAWN_AT_ONCE = 4_000_000  # cells of resamples in memory (int64, so 32 MB); more is done in pieces


def evaluate(
    labels: Array, probabilities: Array, class_names: Sequence[str], seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """Return the numbers of a classifier on the test part, ready for JSON.

    Args:
        labels: integers `(images,)`, the true class of each, 0 to classes - 1.
        probabilities: floats `(images, classes)`, the model's answer after softmax: 0..1, rows that sum to 1. A row
            with a value that is not finite counts as a wrong answer.
        class_names: list of `classes` different strings, in the order of the columns.
        seed: int, of the bootstrap. Defaults to 0.
        resamples: int, number of bootstrap resamples. Defaults to 1000.

    Returns:
        A dict: `count` (images), `accuracy`, `balanced_accuracy` (mean recall of the classes that have a test image)
        and, for two classes, `auc` (the second class is the positive one), each with a 95 % percentile bootstrap
        interval `<name>_interval: [low, high]`; `per_class`, class name -> `recall`, `precision` with their Wilson
        intervals and `count`; `notes`, a list of sentences about what could not be computed and why. What is
        undefined is None.

    Raises:
        ValueError: for no images, shapes that do not agree, labels out of range, names that repeat, or values that are
            no probabilities.

    Example:
        >>> from kresnets.report.metrics import evaluate
        >>> evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["whole", "cracked"])["auc"]
        1.0
    """
    from sklearn.metrics import accuracy_score, confusion_matrix

    labels, probabilities, class_names = _checked(labels, probabilities, class_names, resamples)
    count, classes = probabilities.shape
    predictions = predict_classes(probabilities)
    finite = predictions >= 0
    rng, notes = np.random.default_rng(seed), []
    if not finite.all():
        notes.append(f"{count - finite.sum()} of {count} answers are not finite numbers; they count as wrong.")
    # A column of its own for "no answer" keeps those images in the resamples.
    matrix = confusion_matrix(labels, np.where(finite, predictions, classes), labels=range(classes + 1))[:classes]
    # Equal to sklearn's balanced_accuracy_score, which has no word for an answer that is no class.
    with np.errstate(invalid="ignore"):
        balanced = np.nanmean(np.diag(matrix) / matrix.sum(axis=1))
    accuracy_interval, balanced_interval = _confusion_intervals(matrix, rng, resamples)
    result = {
        "count": count,
        "accuracy": float(accuracy_score(labels, predictions)),
        "accuracy_interval": accuracy_interval,
        "balanced_accuracy": float(balanced),
        "balanced_accuracy_interval": balanced_interval,
    }
    if classes == 2:
        result.update(_auc(labels, np.where(finite, probabilities[:, 1], np.nan), rng, resamples, notes))
    if result["accuracy"] in (0, 1):
        low, high = _wilson(np.array([result["accuracy"] * count]), np.array([count]))[0]
        notes.append(
            f"Every answer is {'right' if result['accuracy'] else 'wrong'}, so no resample differs and the bootstrap "
            f"interval has no width; Wilson's 95 % interval on {count} images is {low:.3f} to {high:.3f}."
        )
    result["per_class"] = _per_class(matrix, class_names, notes)
    return {**result, "notes": notes}


def predict_classes(probabilities: Array) -> Array:
    """Return the class with the highest probability for each row, -1 where a value of the row is not finite.

    Args:
        probabilities: floats `(images, classes)`.

    Returns:
        Integers `(images,)`, -1 to classes - 1.

    Example:
        >>> from kresnets.report.metrics import predict_classes
        >>> predict_classes([[0.1, 0.9], [float("nan"), 0.5]]).tolist()
        [1, -1]
    """
    probabilities = np.asarray(probabilities, dtype="float64")
    return np.where(np.isfinite(probabilities).all(axis=1), probabilities.argmax(axis=1), -1)


def difference(
    labels: Array, probabilities: Array, others: Array, seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """Return by how much one classifier is more often right than another on the same images.

    Args:
        labels: integers `(images,)`, the true class of each.
        probabilities: floats `(images, classes)`, the answers of the one.
        others: floats `(images, classes)`, those of the other.
        seed: int, of the bootstrap. Defaults to 0.
        resamples: int, number of bootstrap resamples. Defaults to 1000.

    Returns:
        A dict: `accuracy`, that of the one less that of the other; `interval`, its paired 95 % percentile bootstrap
        interval `[low, high]` (images are drawn, each with both answers).

    Example:
        >>> from kresnets.report.metrics import difference
        >>> difference([0, 1], [[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.2, 0.8]])["accuracy"]
        0.5
    """
    labels = np.asarray(labels)
    right = [predict_classes(answers) == labels for answers in (probabilities, others)]
    gains = right[0].astype(int) - right[1]  # -1, 0 or 1 an image: how many of each is all that a resample needs
    counts = np.array([np.sum(gains == value) for value in (-1, 0, 1)])
    drawn = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), size=resamples)
    return {"accuracy": float(gains.mean()), "interval": _percentiles((drawn[:, 2] - drawn[:, 0]) / len(labels))}


def _checked(labels, probabilities, class_names, resamples):
    labels, probabilities, class_names = (
        np.asarray(labels),
        np.asarray(probabilities, dtype="float64"),
        list(class_names),
    )
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(class_names)) or not probabilities.size:
        raise ValueError(
            "`labels` must be (images,) and `probabilities` (images, classes), with at least one image and a class for "
            f"each of `class_names`. Received: {labels.shape}, {probabilities.shape}, {len(class_names)} names."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"`labels` must be integers from 0 to {len(class_names) - 1}. Received: {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    if len(set(class_names)) != len(class_names):
        raise ValueError("`class_names` must all be different: the table of classes is keyed by them.")
    if resamples < 1:
        raise ValueError(f"`resamples` must be at least 1. Received: {resamples}")
    rows = probabilities[np.isfinite(probabilities).all(axis=1)]
    # The tolerance lets bfloat16 softmaxes pass, and no logits.
    if rows.size and (rows.min() < -1e-3 or rows.max() > 1.001 or np.abs(rows.sum(axis=1) - 1).max() > 0.05):
        raise ValueError(
            f"`probabilities` must be 0..1 with rows that sum to 1. Received: {rows.min():.3g} to {rows.max():.3g}, "
            f"sums {rows.sum(axis=1).min():.3g} to {rows.sum(axis=1).max():.3g}; apply softmax to logits first."
        )
    return labels, probabilities, class_names


def _resampled(cells, rng, resamples):
    """Yield `(some resamples, *cells.shape)`: how many of the images fall into each cell, `resamples` times in all."""
    total, filled = cells.sum(), cells > 0
    shares = cells[filled] / total
    piece = max(1, _DRAWN_AT_ONCE // cells.size)
    for start in range(0, resamples, piece):
        drawn = np.zeros((min(piece, resamples - start), *cells.shape), dtype="int64")
        drawn[:, filled] = rng.multinomial(total, shares, size=len(drawn))
        yield drawn


def _confusion_intervals(matrix, rng, resamples):
    """Return the bootstrap intervals of accuracy and balanced accuracy."""
    cells = np.stack([np.diag(matrix), matrix.sum(axis=1) - np.diag(matrix)], axis=1)  # right and wrong of each class
    accuracies, balanced = [], []
    for drawn in _resampled(cells, rng, resamples):
        right = drawn[:, :, 0]
        accuracies.append(right.sum(axis=1) / matrix.sum())
        with np.errstate(invalid="ignore"):  # 0 / 0: a class that this resample misses is left out of its mean
            balanced.append(np.nanmean(right / drawn.sum(axis=2), axis=1))
    return _percentiles(np.concatenate(accuracies)), _percentiles(np.concatenate(balanced))


def _auc(labels, scores, rng, resamples, notes):
    from sklearn.metrics import roc_auc_score

    undefined = {"auc": None, "auc_interval": None}
    if not np.isfinite(scores).all():
        notes.append("The AUC is unknown, because some answers are not finite numbers.")
        return undefined
    if len(np.unique(labels)) < 2:
        notes.append("The AUC is unknown, because the test images are all of one class.")
        return undefined
    # (distinct scores, ascending; negatives and positives)
    cells = np.zeros((len(np.unique(scores)), 2), dtype="int64")
    np.add.at(cells, (np.unique(scores, return_inverse=True)[1], labels), 1)
    aucs = np.concatenate([_auc_of_cells(drawn) for drawn in _resampled(cells, rng, resamples)])
    single = np.isnan(aucs).sum()
    if single:
        notes.append(
            f"{single} of {resamples} resamples hold one class only and are left out of the interval of the AUC."
        )
    interval = None if single == resamples else _percentiles(aucs[~np.isnan(aucs)])
    return {"auc": float(roc_auc_score(labels, scores)), "auc_interval": interval}


def _auc_of_cells(drawn):
    """Mann-Whitney's form: the share of (positive, negative) pairs in the right order, a tie counting half."""
    negatives, positives = drawn[..., 0], drawn[..., 1]
    below = negatives.cumsum(axis=1) - negatives / 2
    pairs = negatives.sum(axis=1) * positives.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a resample holds one class only
        return (positives * below).sum(axis=1) / pairs


def _percentiles(values):
    tail = (100 - _LEVEL) / 2
    return [float(value) for value in np.percentile(values, [tail, 100 - tail])]


def _per_class(matrix, class_names, notes):
    right, true, answered = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)[: len(matrix)]
    absent = [name for name, images in zip(class_names, true) if not images]
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
        notes.append(
            f"No test image of {len(absent)} of the {len(matrix)} classes ({shown}): their recall is unknown and the "
            "balanced accuracy leaves them out."
        )
    table = {name: {} for name in class_names}
    for metric, of in (("recall", true), ("precision", answered)):
        for name, hits, total, (low, high) in zip(class_names, right, of, _wilson(right, of)):
            table[name][metric] = float(hits / total) if total else None
            table[name][f"{metric}_interval"] = [float(low), float(high)] if total else None
    for name, images in zip(class_names, true):
        table[name]["count"] = int(images)
    return table


def _wilson(hits, totals):
    """Return Wilson's score intervals `(n, 2)`: closed, and honest for the few images of a rare class."""
    z2 = _NORMAL_QUANTILE**2
    totals = np.maximum(totals, 1)  # the caller shows nothing where there was nothing
    centre = (hits + z2 / 2) / (totals + z2)
    half = _NORMAL_QUANTILE / (totals + z2) * np.sqrt(hits * (totals - hits) / totals + z2 / 4)
    return np.clip(np.stack([centre - half, centre + half], axis=1), 0, 1)
