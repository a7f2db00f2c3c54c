"""The claims' pictures, as declared: panels of a column by another, coloured by a third."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from claims.results import TUNING_SEED, pick
from kresnets.report import figures

_COLOURS = "#c2410c #1d4ed8 #15803d #7e22ce #a16207 #0f766e #be185d #64748b".split()


class Panel(NamedTuple):
    """A panel: each seed as a dot beside the mean, or as a curve.

    Args:
        y: column that is shown, of the rows that have it.
        x: column, or columns that make a place together.
        by: column or columns of the colours; () for one.
        where: what the rows have, or a function that says whether a row belongs.
        curve: whether each seed is a curve over `x`.
        log: whether `y` lies on a scale of powers of ten.
        each: column of which every value has a panel of its own.
    """

    y: str
    x: str | tuple[str, ...]
    by: str | tuple[str, ...] = ()
    where: dict | Callable = {}
    curve: bool = False
    log: bool = False
    each: str = ""

    def split(self, rows):
        """Return the panels that this one stands for, given the rows."""
        if not self.each:
            return [self]
        values = dict.fromkeys(row[self.each] for row in pick(rows, **self.where) if self.y in row)
        return [self._replace(where=self.where | {self.each: value}, each="") for value in values]


def panels(*wanted):
    """Return a function `(options, rows, path)` that draws `Panel`s, for `Claim.draw`."""

    def draw(options, rows, path):
        shown = [one for panel in wanted for one in panel.split(rows)]
        columns = min(len(shown), 3)
        lines = -(-len(shown) // columns)
        made = figures.figure(max(900, 380 * columns), 440 * lines, layout="constrained")
        for axis, panel in zip(np.ravel(made.subplots(lines, columns, squeeze=False)), shown):
            _draw(axis, rows, panel)
        figures.save(made, path)

    return draw


def _draw(axis, rows, panel):
    rows = list(filter(panel.where, rows)) if callable(panel.where) else pick(rows, **panel.where)
    rows = [row for row in rows if row.get(panel.y) is not None and row.get("seed") != TUNING_SEED]
    groups, places = ({_label(row, columns): row for row in rows} for columns in (panel.by, panel.x))
    if isinstance(panel.x, str) and not any(isinstance(row[panel.x], str) for row in rows):
        places = dict(sorted(places.items(), key=lambda place: place[1][panel.x]))
    for number, group in enumerate(groups):
        mine = [row for row in rows if _label(row, panel.by) == group]
        colour, at = _COLOURS[number % len(_COLOURS)], (number - (len(groups) - 1) / 2) * 0.6 / len(groups)
        if panel.curve:
            for first, seed in enumerate(dict.fromkeys(row["seed"] for row in mine)):
                curve = [(row[panel.x], row[panel.y]) for row in mine if row["seed"] == seed]
                axis.plot(*zip(*curve), color=colour, alpha=0.6, label=None if first else group)
            continue
        each = [[row[panel.y] for row in mine if _label(row, panel.x) == place] for place in places]
        there = [(place + at, values) for place, values in enumerate(each) if values]
        for place, values in there:
            axis.plot([place] * len(values), values, ".", color=colour, alpha=0.4)
        means = [np.mean(values) for _, values in there]
        axis.plot([place for place, _ in there], means, "_", color=colour, label=group, markersize=12, mew=2)
    if not panel.curve:
        axis.set_xticks(range(len(places)), places, rotation=90 if sum(map(len, places)) > 36 else 0)
    told = [f"{name} {value}" for name, value in panel.where.items()] if isinstance(panel.where, dict) else []
    axis.set(xlabel=_words(panel.x), ylabel=_words(panel.y), yscale="log" if panel.log else "linear")
    axis.set_title(_words(", ".join(told)), fontsize=10)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if panel.by and rows:
        where = {"loc": "upper right" if panel.curve else "best"}  # which is slow to find among many curves
        if len(groups) > 4:  # no room among the dots
            where = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        axis.legend(**where, frameon=False, fontsize=8, title=_words(panel.by), title_fontsize=8)


def _label(row, columns):
    return " ".join(str(row.get(column)) for column in ([columns] if isinstance(columns, str) else columns))


def _words(columns):
    return (columns if isinstance(columns, str) else ", ".join(columns)).replace("_", " ")
