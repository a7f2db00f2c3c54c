"""How good a classifier is on the test part, with intervals that say how far to trust the numbers.

The intervals are closed formulas that stay honest where an answer is right for all of a few images; there a bootstrap
has no width, since no resample differs, and near there it is too narrow: with ten images a class and a true AUC of 0.95
its 95 % intervals hold that AUC in four of five cases.

- accuracy, recall, precision: Wilson's score interval (J. Am. Stat. Assoc. 22, 1927);
- balanced accuracy: those of the recalls, joined as the variances of their mean (Zou, Huang and Zhang, Comput. Stat.
  Data Anal. 53, 2009: "MOVER");
- AUC: Newcombe's method 5 (Stat. Med. 25, 2006, part 2), Hanley and McNeil's variance at the bound itself;
- a difference on the same images: Bonett and Price's adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kresnets._util.types import Array

# What a run is known by, of whatever task; those of `UNBOUNDED` have units of their own.
MEASURES = ("accuracy", "balanced_accuracy", "auc", "mAP", "f1", "mae", "rmse", "r2")
UNBOUNDED = ("mae", "rmse")
_NORMAL_QUANTILE = 1.959963984540054  # two-sided, for the 95 % of every interval


def evaluate(labels: Array, probabilities: Array, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of a classifier on the test part, ready for JSON.

    Args:
        labels: integers `(images,)`, the true class of each, 0 to classes - 1.
        probabilities: floats `(images, classes)`, the model's answer after softmax: 0..1, rows that sum to 1. A row
            with a value that is not finite counts as a wrong answer.
        class_names: list of `classes` different strings, in the order of the columns.

    Returns:
        A dict: `count` (images), `accuracy`, `balanced_accuracy` (mean recall of the classes that have a test image)
        and, for two classes, `auc` (the second class is the positive one), each with its 95 % interval
        `<name>_interval: [low, high]`; `per_class`, class name -> `recall`, `precision` with their intervals and
        `count`; `notes`, a list of sentences about what could not be computed and why. What is undefined is None.

    Raises:
        ValueError: for no images, shapes that do not agree, labels out of range, names that repeat, or values that are
            no probabilities.

    Example:
        >>> from kresnets.report.metrics import evaluate
        >>> evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["whole", "cracked"])["auc"]
        1.0
    """
    from sklearn.metrics import accuracy_score, confusion_matrix

    labels, probabilities, class_names = _checked(labels, probabilities, class_names)
    count, classes = probabilities.shape
    predictions = predict_classes(probabilities)
    finite = predictions >= 0
    notes: list[str] = []
    if not finite.all():
        notes.append(f"{count - finite.sum()} of {count} answers are not finite numbers; they count as wrong.")
    # A column of its own for "no answer" keeps those images in the recalls.
    matrix = confusion_matrix(labels, np.where(finite, predictions, classes), labels=range(classes + 1))[:classes]
    right, true = np.diag(matrix), matrix.sum(axis=1)
    result = {"count": count, "accuracy": float(accuracy_score(labels, predictions))}
    result["accuracy_interval"] = wilson(right.sum()[None], true.sum()[None])[0].tolist()
    # Equal to sklearn's balanced_accuracy_score, which has no word for an answer that is no class.
    recalls = (right / np.maximum(true, 1))[true > 0]
    result["balanced_accuracy"] = float(recalls.mean())
    sides = np.abs(wilson(right, true)[true > 0].T - recalls)  # from each recall to the ends of its interval
    low, high = np.sqrt(np.sum(sides**2, axis=1)) / len(recalls) * (-1, 1) + recalls.mean()
    result["balanced_accuracy_interval"] = [float(max(low, 0)), float(min(high, 1))]
    if classes == 2:
        result.update(_auc(labels, np.where(finite, probabilities[:, 1], np.nan), notes))
    result["per_class"] = _per_class(matrix, class_names, notes)
    return {**result, "notes": notes}


def told(numbers: Mapping[str, Any]) -> list[str]:
    """Return a line of text for each of `MEASURES` that there is, with its 95 % interval.

    Example:
        >>> from kresnets.report.metrics import told
        >>> told({"accuracy": 0.5, "accuracy_interval": [0.25, 0.75]})
        ['  accuracy           0.500  (95 %: 0.250 to 0.750)']
    """
    lines = []
    for name in MEASURES:
        if numbers.get(name) is not None:
            form, ends = ".4g" if name in UNBOUNDED else ".3f", numbers.get(f"{name}_interval")
            interval = f"  (95 %: {ends[0]:{form}} to {ends[1]:{form}})" if ends else ""
            lines.append(f"  {name:18} {numbers[name]:{form}}{interval}")
    return lines


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


def difference(labels: Array, probabilities: Array, others: Array) -> dict[str, Any]:
    """Return by how much one classifier is more often right than another on the same images.

    Args:
        labels: integers `(images,)`, the true class of each.
        probabilities: floats `(images, classes)`, the answers of the one.
        others: floats `(images, classes)`, those of the other.

    Returns:
        A dict: `accuracy`, that of the one less that of the other; `interval`, its paired 95 % interval `[low, high]`.

    Example:
        >>> from kresnets.report.metrics import difference
        >>> difference([0, 1], [[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.2, 0.8]])["accuracy"]
        0.5
    """
    labels = np.asarray(labels)
    one, other = (predict_classes(answers) == labels for answers in (probabilities, others))
    count = len(labels)
    # Two made-up images, one for each side: with all alike there would be no width.
    better, worse = ((np.sum(side) + 1) / (count + 2) for side in (one & ~other, other & ~one))
    half = _NORMAL_QUANTILE * np.sqrt((better + worse - (better - worse) ** 2) / (count + 2))
    interval = np.clip((better - worse - half, better - worse + half), -1, 1).tolist()
    return {"accuracy": float(one.mean() - other.mean()), "interval": interval}


def _checked(labels, probabilities, class_names):
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
    rows = probabilities[np.isfinite(probabilities).all(axis=1)]
    # The tolerance lets bfloat16 softmaxes pass, and no logits.
    if rows.size and (rows.min() < -1e-3 or rows.max() > 1.001 or np.abs(rows.sum(axis=1) - 1).max() > 0.05):
        raise ValueError(
            f"`probabilities` must be 0..1 with rows that sum to 1. Received: {rows.min():.3g} to {rows.max():.3g}, "
            f"sums {rows.sum(axis=1).min():.3g} to {rows.sum(axis=1).max():.3g}; apply softmax to logits first."
        )
    return labels, probabilities, class_names


def _auc(labels, scores, notes):
    from sklearn.metrics import roc_auc_score

    undefined = {"auc": None, "auc_interval": None}
    if not np.isfinite(scores).all():
        notes.append("The AUC is unknown, because some answers are not finite numbers.")
        return undefined
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        notes.append("The AUC is unknown, because the test images are all of one class.")
        return undefined
    auc = float(roc_auc_score(labels, scores))
    return {"auc": auc, "auc_interval": _newcombe(auc, positives, len(labels) - positives)}


def _newcombe(auc, positives, negatives):
    """Return the AUCs at the ends of those from which the one that was found is less than 1.96 deviations away."""

    def is_near(value):
        more = (positives + negatives) / 2 - 1
        spread = 1 + more * (1 - value) / (2 - value) + more * value / (1 + value)
        return abs(value - auc) <= _NORMAL_QUANTILE * np.sqrt(value * (1 - value) * spread / (positives * negatives))

    ends = []
    for far in (0.0, 1.0):
        near = auc
        for _ in range(60):  # halves: to the last digit
            middle = (near + far) / 2
            near, far = (middle, far) if is_near(middle) else (near, middle)
        ends.append(near)
    return ends


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
        for name, hits, total, (low, high) in zip(class_names, right, of, wilson(right, of)):
            table[name][metric] = float(hits / total) if total else None
            table[name][f"{metric}_interval"] = [float(low), float(high)] if total else None
    for name, images in zip(class_names, true):
        table[name]["count"] = int(images)
    return table


def wilson(hits, totals):
    """Return Wilson's score intervals `(n, 2)`: closed, and honest for the few images of a rare class."""
    z2 = _NORMAL_QUANTILE**2
    totals = np.maximum(totals, 1)  # the caller shows nothing where there was nothing
    centre = (hits + z2 / 2) / (totals + z2)
    half = _NORMAL_QUANTILE / (totals + z2) * np.sqrt(hits * (totals - hits) / totals + z2 / 4)
    return np.clip(np.stack([centre - half, centre + half], axis=1), 0, 1)
