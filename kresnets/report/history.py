"""The picture of a training: loss, accuracy and the learning rate of each group, with the unfreezings marked."""

import csv
import math
import pathlib
from typing import Any

import numpy as np

from kresnets._util.types import PathLike
from kresnets.report import figures
from kresnets.report.parameters import depth

_RATE = "learning_rate/"
_TRAINING, _VALIDATION = "#1f77b4", "#d95f02"


def curves(history: Any, path: PathLike) -> None:
    """Draw the course of a training as a PNG.

    Loss and accuracy of training and validation, and below them the learning rate of each group (a group that does not
    train has none). Where the `stage` or the number of trainable parameters changes, a line says what was unfrozen.

    Args:
        history: path of a `history.csv`, or a dict of columns (lists of one value an epoch) as in it: `epoch`, `loss`,
            `accuracy`, `val_loss`, `val_accuracy`, `learning_rate`, `learning_rate/<group>`, `trainable_parameters`,
            `stage`. Only `loss` must be there.
        path: where the PNG goes.

    Raises:
        ValueError: for a history without epochs or without `loss`, or columns of different lengths.

    Example:
        >>> from kresnets.report import curves
        >>> curves({"loss": [0.9, 0.5, 0.3], "val_loss": [0.8, 0.6, 0.5]}, "/tmp/curves.png")
    """
    figures.save(_draw(_columns(history)), path)


def _columns(history):
    """Return column name -> list; numbers as floats, NaN where there is none."""
    if not isinstance(history, dict):
        with open(pathlib.Path(history), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    lengths = {name: len(values) for name, values in history.items()}
    if not lengths.get("loss") or len(set(lengths.values())) != 1:
        raise ValueError(f"A history needs a column `loss` and as many epochs in each column. Received: {lengths}")
    columns = {name: [_number(value) for value in values] for name, values in history.items() if name != "stage"}
    if "stage" in history:
        columns["stage"] = [str(value) for value in history["stage"]]
    epochs = columns.get("epoch") or range(lengths["loss"])
    columns["epoch"] = [float(epoch) + 1 for epoch in epochs]  # in the file from 0; people count from 1
    return columns


def _number(value):
    try:
        return float(value)
    except (TypeError, ValueError):  # an empty cell: the epoch was cut off, or nothing was measured
        return math.nan


def _rates(columns):
    """Return group -> learning rates, NaN where it does not train, from the head down to the stem."""
    rates = {name[len(_RATE) :]: values for name, values in columns.items() if name.startswith(_RATE)}
    if not rates and "learning_rate" in columns:
        rates = {"all": columns["learning_rate"]}
    # Sorted, because Keras's CSVLogger sorts the columns by the alphabet; other names than kresnets' stay in order.
    return {
        name: np.where(np.array(rates[name]) > 0, rates[name], np.nan)
        for name in sorted(reversed(rates), key=lambda name: depth(name) or (0, 0))  # noqa: C414, order of equals
    }


def _stages(columns, rates):
    """Return (first epoch, what it unfroze) of each stage, or nothing where there is only one."""
    marks = list(zip(*[columns[name] for name in ("stage", "trainable_parameters") if name in columns]))
    starts = [i for i in range(len(marks)) if i == 0 or marks[i] != marks[i - 1]]
    if len(starts) < 2:
        return []
    return [(columns["epoch"][i], _unfrozen(columns, rates, i)) for i in starts]


def _unfrozen(columns, rates, start):
    stages = columns.get("stage", [""] * (start + 1))
    new = [group for group, rate in rates.items() if rate[start] > 0 and not (start and rate[start - 1] > 0)]
    named = stages[start] and math.isnan(_number(stages[start]))  # by the run; it may be a block, finer than a group
    if named and (start == 0 or stages[start] != stages[start - 1]):
        name = stages[start]
    elif len(new) > 2:
        name = f"{new[0]} … {new[-1]}"
    elif new:
        name = ", ".join(new)
    else:
        change = columns.get("trainable_parameters", [0.0] * (start + 1))
        name = f"{change[start] - (change[start - 1] if start else 0):+,.0f} parameters".lstrip("+")
    return name if start == 0 else f"+ {name}"


def _draw(columns):
    rates = _rates(columns)
    panels = ["loss", *(name for name in ("accuracy", "mae") if name in columns)] + ["learning rate"] * bool(rates)
    made = figures.figure(900, 70 + 270 * len(panels), layout="constrained")
    made.get_layout_engine().set(h_pad=0.1)  # inches; the panels' lowest and highest numbers are neighbours
    axes = made.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, panels):
        axis.set_ylabel(name, fontsize=figures.TEXT + 1)
        axis.tick_params(labelsize=figures.TEXT)
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    lines = max((_metric(axis, columns, name) for axis, name in zip(axes, panels) if name != "learning rate"), key=len)
    made.legend(handles=lines, loc="outside upper right", ncols=2, fontsize=figures.TEXT, frameon=False)
    if rates:
        _rate_panel(made, axes[-1], columns["epoch"], rates)
    _epoch_axis(axes[-1], columns["epoch"])
    made.align_ylabels(axes)
    _mark_stages(made, axes, _stages(columns, rates))
    return made


def _metric(axis, columns, name):
    drawn = []
    for key, label, colour in ((name, "training", _TRAINING), (f"val_{name}", "validation", _VALIDATION)):
        values = np.array(columns.get(key, [math.nan]))
        if np.isfinite(values).any():
            drawn += axis.plot(
                columns["epoch"], values, color=colour, linewidth=2.2, label=label, **_dots(columns["epoch"])
            )
    if not drawn:
        axis.text(
            0.5, 0.5, "no finite value", transform=axis.transAxes, ha="center", va="center", fontsize=figures.TEXT
        )
    elif name == "loss":
        _cut_outliers(axis, np.concatenate([line.get_ydata() for line in drawn]))
    return drawn


def _cut_outliers(axis, losses):
    """End the axis below a few epochs that would press the others flat (fresh norms are wild at first), and say so."""
    losses = losses[np.isfinite(losses)]
    usual, highest = np.quantile(losses, 0.9), losses.max()
    if highest > 5 * usual > 0:
        axis.set_ylim(top=2 * usual)
        axis.set_ylabel(f"loss (at most {highest:.3g})", fontsize=figures.TEXT + 1)


def _dots(epochs):
    return {"marker": "o", "markersize": 6} if len(epochs) <= 20 else {}


def _rate_panel(made, axis, epochs, rates):
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullFormatter

    for i, (name, values) in enumerate(rates.items()):
        share = i / max(1, len(rates) - 1)
        # Groups at one rate lie on one another: the wider lines show below the narrower.
        style = {"color": colormaps["viridis"](0.9 * share), "linewidth": 2 + 3.5 * (1 - share) * (len(rates) > 1)}
        axis.plot(epochs, values, label=_rate_label(made, name, values), **style, **_dots(epochs))
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(numticks=6))
    axis.yaxis.set_minor_formatter(NullFormatter())
    labels = [line.get_label() for line in axis.lines]
    column = max(figures.text_width(made.canvas, label) for label in labels) + 60  # its line and the gap
    made.legend(
        handles=axis.lines, loc="outside lower center", ncols=max(1, min(len(labels), int(860 / column))),
        fontsize=figures.TEXT, frameon=False,
    )  # fmt: skip
    for text in made.legends[-1].get_texts():
        text.set_parse_math(False)


def _rate_label(made, name, values):
    label = figures.fitted(made.canvas, name, 200)
    return label if np.isfinite(values).any() else f"{label} (frozen)"


def _epoch_axis(axis, epochs):
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch", fontsize=figures.TEXT + 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axis.set_xlim(epochs[0] - 0.6, epochs[-1] + 0.6)


def _mark_stages(made, axes, stages):
    """Draw a line at the start of each stage, and its name above in as many rows as keep names and lines apart."""
    style = {"color": "#888", "linewidth": 1, "linestyle": (0, (4, 3))}
    arrow = {"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, **style}
    names, leaders = [], []
    for epoch, label in stages:
        top = {"xy": (epoch - 0.5, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        label = figures.fitted(made.canvas, label, 260)
        names.append(
            axes[0].annotate(label, xytext=(4, 4), fontsize=figures.TEXT, color="#444", parse_math=False, **top)
        )
        leaders.append(axes[0].annotate("", xytext=(0, 16), arrowprops=arrow, **top))
        for axis in axes:
            axis.axvline(epoch - 0.5, zorder=1, **style)
    for _ in range(2):  # the names take room from the panels, which moves the lines once
        made.draw_without_rendering()
        for name, leader, row in zip(names, leaders, _rows([name.get_window_extent() for name in names])):
            name.xyann, leader.xyann = (4, 4 + 16 * row), (0, 16 + 16 * row)


def _rows(boxes):
    """Return a row for each name so that neither a later name nor its line, which runs up to its row, touches it."""
    rows = [0] * len(boxes)
    for i in reversed(range(len(boxes))):
        reached = [rows[j] for j in range(i + 1, len(boxes)) if boxes[j].x0 < boxes[i].x1 + 12]
        rows[i] = 1 + max(reached, default=-1)
    return rows
