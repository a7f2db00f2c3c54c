"""What a model said of each image: a table for other programs, and the mistakes with their files for the page."""

import csv
import os
import pathlib
import urllib.parse

import numpy as np

from kresnets._util import files
from kresnets.data.label_cells import said
from kresnets.report.answers import worst_mistakes
from kresnets.report.metrics import predict_classes
from kresnets.report.page import Link

_MOST = 200  # mistakes on the page; the table has all


def write(path, class_names, parts, thresholds=None):
    """Write `predictions.csv`: file, part, label, prediction, correct (1 or 0), and the probability of each class.

    Several labels stand in one cell, parted by `|`. Of numbers there are two columns each: as it is, and as answered.

    Args:
        path: where the table goes.
        class_names: sequence of str.
        parts: dict name -> (`kresnets.data.Part`, float array `(images, classes)` of probabilities, or numbers).
        thresholds: of several labels, the probability from which on each is said. Defaults to None.
    """
    task = next(part.task for part, _ in parts.values())
    columns = ["label", "prediction", "correct", *(f"p({name})" for name in class_names)]
    if task == "numbers":
        columns = [*class_names, *(f"predicted {name}" for name in class_names)]
    with files.replacing(path) as beside, opened(beside) as to:
        writer = csv.writer(to, lineterminator="\n")
        writer.writerow(["file", "part", *columns])
        for name, (part, outputs) in parts.items():
            answers = _answers(part, outputs, thresholds)
            for file, label, answer, row in zip(part.ids, part.labels, answers, outputs, strict=True):
                cells = [f"{one:.{9 if task == 'numbers' else 6}g}" for one in row]
                if task == "numbers":
                    writer.writerow([file, name, *(f"{number:.9g}" for number in label), *cells])
                    continue
                known = said(label, class_names, task)
                writer.writerow([file, name, known, answer, int(answer == known), *cells])


def _answers(part, outputs, thresholds):
    """Return what is said of each image, in words; nothing for what is no finite number."""
    if part.task == "classes":
        return [part.class_names[answer] if answer >= 0 else "" for answer in predict_classes(outputs)]
    if part.task == "labels":
        return [said(row, part.class_names, "labels") for row in outputs >= thresholds]
    return [""] * len(part)


def opened(path):
    """Open a CSV file to write; names of files may hold what is no UTF-8."""
    return open(path, "w", encoding="utf-8", errors="surrogateescape", newline="")


def mistakes(run, part, probabilities):
    """Return rows for the page, the header first: the wrong answers, the surest ones first, each file linked; nothing
    without any.

    Args:
        run: folder of the page, to which links are relative.
        part: the `kresnets.data.Part` that was asked.
        probabilities: float array `(images, classes)`.
    """
    answers, names = predict_classes(probabilities), part.class_names
    wrong = worst_mistakes(part.labels, probabilities, _MOST)
    rows = [
        (
            linked(run, part, index),
            names[part.labels[index]],
            names[answers[index]] if answers[index] >= 0 else "not a finite number",
            float(np.nan_to_num(probabilities[index]).max()),
            float(np.nan_to_num(probabilities[index])[part.labels[index]]),
        )
        for index in wrong
        if answers[index] != part.labels[index]
    ]
    return [("file", "label", "answer", "its probability", "that of the label"), *rows] if rows else []


def linked(run, part, index):
    """Return the name of an image of a part, which leads to its file where it has one."""
    content, name = part.encoded(index), part.ids[index]
    if not isinstance(content, bytes):  # of a data set, which has no files
        return name
    relative = os.path.relpath(os.fsdecode(content), pathlib.Path(run).absolute())
    return Link(name, urllib.parse.quote(os.fsencode(relative)))
