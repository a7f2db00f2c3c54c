"""How good a model of several labels is: each label for itself, by its own threshold, with pictures of both."""

import numpy as np

from kresnets.report import figures
from kresnets.report.metrics import wilson
from kresnets.report.predictions import linked
from kresnets.report.threshold import choices

_DRAWN = 10  # labels that have a curve; of more there is the mean alone
_RESAMPLES = 1000  # of the interval of the mean average precision
_MOST = 200  # mistakes on the page


def thresholds(labels, probabilities):
    """Return for each label the probability from which on it is said: where F1 on these images is highest.

    Args:
        labels: array `(images, labels)` of 0 and 1, of images that were not learned from.
        probabilities: floats `(images, labels)`.

    Returns:
        Float array `(labels,)`; 0.5 for a label that no image has, or all have.

    Example:
        >>> from kresnets.report.multilabel import thresholds
        >>> thresholds([[1], [1], [0]], [[0.9], [0.3], [0.2]]).tolist()
        [0.25]
    """
    labels, probabilities = np.asarray(labels) > 0.5, np.asarray(probabilities, "float64")
    found = np.full(labels.shape[1], 0.5)
    for n in np.flatnonzero(labels.any(0) & ~labels.all(0)):
        found[n] = choices(labels[:, n], probabilities[:, n])["highest F1"]
    return found


def evaluate(labels, probabilities, names, at):
    """Return the numbers of a model of several labels on the test part, ready for JSON.

    Args:
        labels: array `(images, labels)` of 0 and 1.
        probabilities: floats `(images, labels)`, 0..1.
        names: of the labels.
        at: thresholds `(labels,)`, see `thresholds`.

    Returns:
        A dict: `count`; `mAP` (mean over labels of the area under precision and recall, as scikit-learn's
        `average_precision_score`) and `accuracy` (images whose every label is answered right), each with its 95 %
        interval; `f1` (mean over labels); `per_label`, name -> `average_precision`, `auc`, `f1`, `precision`, `recall`,
        `threshold`, `count`; `notes`.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    labels, probabilities = np.asarray(labels) > 0.5, np.nan_to_num(np.asarray(probabilities, "float64"))
    said, count = probabilities >= at, len(labels)
    judged = [n for n in range(len(names)) if labels[:, n].any()]
    notes = [
        f"No test image has the label {names[n]!r}: the means leave it out."
        for n in range(len(names))
        if n not in judged
    ]
    precision, recall, f1, _ = precision_recall_fscore_support(labels, said, average=None, zero_division=0)
    table, precisions = {}, {n: float(average_precision_score(labels[:, n], probabilities[:, n])) for n in judged}
    for n, name in enumerate(names):
        both = n in judged and not labels[:, n].all()
        table[name] = {
            "average_precision": precisions.get(n),
            "auc": float(roc_auc_score(labels[:, n], probabilities[:, n])) if both else None,
            **{key: float(value[n]) for key, value in (("f1", f1), ("precision", precision), ("recall", recall))},
            "threshold": float(at[n]), "count": int(labels[:, n].sum()),
        }  # fmt: skip

    counts = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    drawn = np.nanmean([_average_precisions(labels[:, n], probabilities[:, n], counts) for n in judged], axis=0)
    right = (said == labels).all(1)
    return {
        "count": count,
        "mAP": float(np.mean([*precisions.values()])),
        "mAP_interval": np.nanquantile(drawn, (0.025, 0.975)).tolist(),
        "accuracy": float(right.mean()),
        "accuracy_interval": wilson(right.sum()[None], np.array([count]))[0].tolist(),
        "f1": float(f1[judged].mean()),
        "per_label": table,
        "notes": [
            *notes,
            "Accuracy is the share of images whose every label is right; each label is said from its threshold on, "
            "where F1 is highest on the validation images.",
            f"By chance mAP would be {labels[:, judged].mean():.3f}, the mean share of images that have a label.",
        ],
    }  # fmt: skip


def _average_precisions(truth, scores, counts):
    """Return the average precision of each resample `(resamples,)`, of how often each image is in it `(resamples,
    images)`; NaN where none of the label is. As scikit-learn's, all at once."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of the images of one score
    taken = np.cumsum(counts[:, order], axis=1)[:, ends]
    found = np.cumsum(counts[:, order] * truth[order], axis=1)[:, ends]
    gained = np.diff(found, axis=1, prepend=0) / np.where(found[:, -1:] > 0, found[:, -1:], np.nan)
    return (gained * found / np.maximum(taken, 1)).sum(axis=1)


def precision_recall(labels, probabilities, names, path):
    """Draw precision against recall of each label, or of more than ten their mean, as a PNG."""
    from sklearn.metrics import precision_recall_curve

    labels, probabilities = np.asarray(labels) > 0.5, np.nan_to_num(np.asarray(probabilities, "float64"))
    made = figures.figure(700, 500, layout="constrained")
    axes = made.subplots()
    grid, lines = np.linspace(0, 1, 101), []
    for n in np.flatnonzero(labels.any(0)):
        precision, recall, _ = precision_recall_curve(labels[:, n], probabilities[:, n])
        if len(names) <= _DRAWN:
            axes.step(recall, precision, where="post", linewidth=2, label=figures.name_of(made, names[n], 180))
        lines.append([precision[recall >= at].max() for at in grid])
    if len(names) > _DRAWN:
        axes.plot(grid, np.mean(lines, axis=0), linewidth=2.2, label=f"mean of {len(lines)} labels")
    axes.set_xlabel("recall: share of a label's images that are found", fontsize=figures.TEXT)
    axes.set_ylabel("precision: share of what is said that is right", fontsize=figures.TEXT)
    axes.set_xlim(0, 1), axes.set_ylim(0, 1.02)
    axes.tick_params(labelsize=figures.TEXT)
    axes.grid(color="#e4e4e4")
    figures.legend(made, loc="outside right upper")
    figures.save(made, path)


def mistakes(run, part, probabilities, at):
    """Return rows for the page, the header first: images with a wrong label, the surest first, each file linked."""
    labels, names = part.labels > 0.5, np.array(part.class_names)
    said = probabilities >= at
    # How far beyond the threshold, on the wrong side
    wrong = np.where(said != labels, np.abs(probabilities - at), 0.0)
    order = np.argsort(-wrong.max(1), kind="stable")[:_MOST]
    rows = [
        (linked(run, part, index), ", ".join(names[labels[index]]) or "none", ", ".join(names[said[index]]) or "none",
         names[wrong[index].argmax()], float(probabilities[index, wrong[index].argmax()]))
        for index in order
        if (said[index] != labels[index]).any()
    ]  # fmt: skip
    return [("file", "labels", "answer", "the most wrong", "its probability"), *rows] if rows else []
