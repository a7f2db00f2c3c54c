"""The claims' pictures, as declared: panels of a column by another, coloured by a third."""

import numpy as np

from claims.claim import TUNING_SEED
from claims.judge import pick
from kresnets.report import figures

_COLOURS = "#c2410c #1d4ed8 #15803d #7e22ce #a16207 #0f766e #be185d #64748b".split()


def draw(panels, rows, path):
    """Draw `claim.Panel`s of rows, and write a PNG of less than 300 kB."""
    shown = [one for panel in panels for one in _split(panel, rows)]
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    made = figures.figure(max(900, 380 * columns), 440 * lines, layout="constrained")
    axes = np.ravel(made.subplots(lines, columns, squeeze=False))
    for axis, panel in zip(axes, shown):
        _draw(axis, rows, panel)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figures.save(made, path)


def _split(panel, rows):
    """Return the panels that one stands for, given the rows."""
    if not panel.each:
        return [panel]
    values = dict.fromkeys(row[panel.each] for row in pick(rows, **panel.where) if panel.y in row)
    return [panel._replace(where=panel.where | {panel.each: value}, each="") for value in values]


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
        dots = [(place + at, value) for place, values in enumerate(each) for value in values]
        means = [(place + at, np.mean(values)) for place, values in enumerate(each) if values]
        axis.plot(*zip(*dots), ".", color=colour, alpha=0.4)
        axis.plot(*zip(*means), "_", color=colour, label=group, markersize=12, mew=2)
    if not panel.curve:
        axis.set_xticks(range(len(places)), places, rotation=90 if sum(map(len, places)) > 36 else 0)
    told = [f"{name} {value}" for name, value in panel.where.items()] if isinstance(panel.where, dict) else []
    axis.set(xlabel=_words(panel.x), ylabel=_words(panel.y), yscale="log" if panel.log else "linear")
    axis.set_title(_words(", ".join(told)), fontsize=10)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if panel.by and rows:
        # The best place is slow to find among many curves; more than four have no room among the dots.
        where = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(groups) > 4 else {"loc": "best"}
        where = {"loc": "upper right"} if panel.curve and len(groups) <= 4 else where
        axis.legend(**where, frameon=False, fontsize=8, title=_words(panel.by), title_fontsize=8)


def _label(row, columns):
    return " ".join(str(row.get(column)) for column in ([columns] if isinstance(columns, str) else columns))


def _words(columns):
    return (columns if isinstance(columns, str) else ", ".join(columns)).replace("_", " ")
