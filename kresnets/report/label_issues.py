"""Are labels wrong: confident learning (arXiv 1911.00068 sections 3.1 and 3.3) on probabilities of images that the fit
did not see."""

import csv

import numpy as np

from kresnets._util import files
from kresnets.report import predictions

_SHOWN = 30  # on the page; the table has all


def label_issues(labels, probabilities):
    """Return which labels are probably wrong, the surest first: indices, and what each image rather is.

    An image counts as of another class than its label where its probability of that class is at least what images
    labelled so have on average, and where that is the likeliest of such classes.

    Args:
        labels: integers `(images,)`, as given.
        probabilities: floats `(images, classes)` by a fit that did not see the image.

    Returns:
        Two integer arrays `(issues,)`.

    Example:
        >>> from kresnets.report.label_issues import label_issues
        >>> sure = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]]
        >>> [found.tolist() for found in label_issues([0, 0, 1, 1, 0], sure)]
        [[4], [1]]
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    usual = np.array([own[labels == label].mean() if (labels == label).any() else np.inf for label in range(classes)])
    above = probabilities >= usual
    rather = np.where(above, probabilities, -1).argmax(1)
    issues = np.flatnonzero(above.any(1) & (rather != labels))
    order = issues[np.argsort(own[issues] - probabilities[issues, rather[issues]], kind="stable")]
    return order, rather[order]


def answer(run, data, frozen):
    """Return whether labels are wrong, for the page and for metrics.json; write `label_issues.csv` where some may be.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        data: `kresnets.data.Data`.
        frozen: `kresnets.transfer.frozen.Frozen`.
    """
    chances = frozen.out_of_fold()
    if chances is None:
        return ["Not looked at: a class has too few images for folds."], {}
    found, rather = label_issues(frozen.labels, chances)
    looked = f"{len(frozen.labels)} images of all parts, each by a fit on the features of the others"
    if not len(found):
        return [f"No label of {looked} looks wrong."], {"count": 0}
    parts, names = {"train": data.train, "validation": data.validation, "test": data.test}, data.class_names
    rows, shown = [], []
    for index, other in zip(found, rather):
        name, label = frozen.parts[index], frozen.labels[index]
        part, row = parts[name], int(frozen.rows[index])
        numbers = chances[index, label], chances[index, other]
        rows.append((part.ids[row], name, names[label], names[other], *map("{:.4f}".format, numbers)))
        shown.append((predictions.linked(run.path, part, row), *rows[-1][1:4], *map(float, numbers)))
    header = ("file", "part", "label", "rather", "p(label)", "p(rather)")
    with files.replacing(run / "label_issues.csv") as beside, predictions.opened(beside) as to:
        csv.writer(to, lineterminator="\n").writerows([header, *rows])
    told = f"{len(found)} of {looked}, may be labelled wrong, the likeliest first: look at them before anything else. "
    told += "Many are hard images with the right label. label_issues.csv lists them" + "." * (len(found) <= _SHOWN)
    told += f"; here are {_SHOWN}." * (len(found) > _SHOWN)
    return [told, [header, *shown[:_SHOWN]]], {"count": len(found)}
