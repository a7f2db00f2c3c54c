"""The runs of folds, summed up: what each image was told by the model that did not see it."""

import csv
import pathlib

import numpy as np

from kresnets._util import files
from kresnets.report import figures, metrics, predictions
from kresnets.report.answers import confusion
from kresnets.report.label_issues import label_issues
from kresnets.report.page import html
from kresnets.runs.folder import RunFolder

_SHOWN = 30  # labels that may be wrong, on the page


def check_folder(path):
    """Return a folder in which runs of folds can be, as a path.

    Raises:
        ValueError: where it holds a run, or something else.
    """
    folder = pathlib.Path(path)
    if folder.is_dir():
        ours = {"predictions.csv", "folds.json", "report.html", "confusion.png", "folds.png", "label_issues.csv"}
        strange = [one.name for one in folder.iterdir() if one.name not in ours and not one.match("fold-*")]
        strange = [name for name in strange if not name.startswith(".")]
        if strange:
            raise ValueError(
                f"--out {folder} holds {strange[0]!r}, and with --folds it holds their runs alone: give another."
            )
    return folder


def summarize(folder, count):
    """Write `predictions.csv` (each image by the model that did not see it), `folds.json` and the page of all folds.

    Args:
        folder: path, which holds the finished runs `fold-1` to `fold-COUNT`.
        count: int.

    Returns:
        Lines of text with each measure's mean over the folds and its 95 % interval (Student's t, a little narrow, as
        folds share most of what they learned from; or that of all images together, where it is wider).
    """
    from scipy.stats import t

    runs = [RunFolder(folder / f"fold-{number}") for number in range(1, count + 1)]
    found, config = [run.metrics or {} for run in runs], runs[0].config
    header, rows = _tested(runs)
    with files.replacing(folder / "predictions.csv") as beside, predictions.opened(beside) as to:
        csv.writer(to, lineterminator="\n").writerows([header, *rows])
    summary, pooled = {"count": len(rows)}, _pooled(config, header, rows)
    for name in metrics.MEASURES:
        values = [one.get(name) for one in found]
        if None in values:
            continue
        mean, half = float(np.mean(values)), float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
        low, high = mean - half, mean + half
        if name not in (*metrics.UNBOUNDED, "r2"):
            low, high = max(low, 0.0), min(high, 1.0)
        # Folds that came to the same number by chance say nothing of their spread, their images do.
        least, most = pooled.get(f"{name}_interval", (low, high))
        low, high = min(low, least), max(high, most)
        summary |= {name: mean, f"{name}_interval": [low, high], f"{name}_of_folds": values}
    files.write_json(folder / "folds.json", summary, indent=1)
    _page(folder, config, summary, found, header, rows, pooled)
    first = f"On all {len(rows)} images, each by a model that did not see it:"
    return [first, *metrics.told(summary), f"The page: {folder / 'report.html'}"]


def _tested(runs):
    """Return the header and the rows of all predictions on test parts, with the fold each is of."""
    rows = []
    for number, run in enumerate(runs, start=1):
        with open(run / "predictions.csv", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            header, *each = csv.reader(stream)
        rows += [
            [number if name == "part" else cell for name, cell in zip(header, row)] for row in each if row[1] == "test"
        ]
    return ["fold" if name == "part" else name for name in header], sorted(rows)


def _chances(header, rows):
    first = header.index("correct") + 1
    return np.array([[float(cell) for cell in row[first:]] for row in rows])


def _pooled(config, header, rows):
    """Return what all predictions together say of classes; nothing of other tasks."""
    if config.get("task", "classes") != "classes":
        return {}
    labels = np.array([config["class_names"].index(row[header.index("label")]) for row in rows])
    return metrics.evaluate(labels, _chances(header, rows), config["class_names"])


def _page(folder, config, summary, found, header, rows, pooled):
    shown = {name: value for name, value in summary.items() if not name.endswith("_of_folds")}
    notes = [
        "Each number is the mean over the folds; the range below it is Student's t over them, a little narrow since "
        "folds share most of what they learn from, or that of all images together, whichever is wider."
    ]
    measures = [name for name in metrics.MEASURES if name in summary]
    _bars(folder / "folds.png", summary, measures)
    pictures, answers = {"Each fold": folder / "folds.png"}, {}
    names = config["class_names"]
    if config.get("task", "classes") == "classes":
        labels = np.array([names.index(row[header.index("label")]) for row in rows])
        chances = _chances(header, rows)
        shown["per_class"] = pooled["per_class"]
        confusion(labels, metrics.predict_classes(chances), names, folder / "confusion.png")
        pictures["Confusion"] = folder / "confusion.png"
        answers["Are labels wrong?"] = _wrong_labels(folder, labels, chances, names, rows)
    table = [("fold", "test images", *measures)]
    table += [(n, one["count"], *(one[name] for name in measures)) for n, one in enumerate(found, start=1)]
    html(
        folder / "report.html", f"{config['model']}, {len(found)} folds", shown,
        {**config["recipe"], **{k: v for k, v in config["arguments"].items() if k not in ("fold", *config["recipe"])}},
        config["command"], pictures, notes, {"Folds": table}, answers,
        "all images, each by a model that did not see it",
    )  # fmt: skip


def _wrong_labels(folder, labels, chances, names, rows):
    """Answer by what each fold's model says of images that it did not see (confident learning, arXiv 1911.00068)."""
    suspects, rather = label_issues(labels, np.nan_to_num(chances))
    listed = [("file", "label", "rather", "p(label)", "p(rather)")]
    listed += [
        (rows[i][0], names[labels[i]], names[other], f"{chances[i, labels[i]]:.4f}", f"{chances[i, other]:.4f}")
        for i, other in zip(suspects, rather)
    ]
    if len(listed) == 1:
        return [f"No label of {len(rows)} images looks wrong."]
    with files.replacing(folder / "label_issues.csv") as beside, predictions.opened(beside) as to:
        csv.writer(to, lineterminator="\n").writerows(listed)
    told = (
        f"{len(listed) - 1} of {len(rows)} may be labelled wrong, the likeliest first; label_issues.csv lists them. "
        "Many are hard images with the right label. Here the fine-tuned models speak, each of images that it did not "
        "see; on the page of one run it is a fit on the features of the pretrained trunk: what both name is the "
        "likeliest."
    )
    return [told, listed[: _SHOWN + 1]]


def _bars(path, summary, measures):
    """Draw each fold's measures beside their mean, those within 0..1, as a PNG."""
    within = [name for name in measures if name not in metrics.UNBOUNDED]
    made = figures.figure(700, 60 + 60 * max(1, len(within)), layout="constrained")
    axes = made.subplots()
    for place, name in enumerate(reversed(within)):
        values = summary[f"{name}_of_folds"]
        axes.plot(summary[f"{name}_interval"], [place, place], color="#1f77b4", linewidth=3)
        axes.scatter(values, [place] * len(values), s=36, color="#1f77b4", alpha=0.5, edgecolors="none")
        axes.scatter([summary[name]], [place], s=90, color="#1f77b4", zorder=3)
    axes.set_yticks(range(len(within)), [name.replace("_", " ") for name in reversed(within)], fontsize=figures.TEXT)
    axes.set_ylim(-0.6, len(within) - 0.4)
    axes.tick_params(labelsize=figures.TEXT)
    axes.grid(axis="x", color="#e4e4e4")
    figures.save(made, path)
