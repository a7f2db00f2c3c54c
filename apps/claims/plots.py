"""The claims' pictures: panels side by side, seeds as dots, means as marks and lines, curves of a training."""

import contextlib

import numpy as np

from claims import verdicts
from claims.results import TUNING_SEED, of, pick
from kresnets.report import figures


@contextlib.contextmanager
def panels(path, columns=3, rows=1, width=1100, height=420, legend=None, **options):
    """Give the axes of a picture, which is written at the end; each that names something has a legend.

    Args:
        path: of the PNG.
        columns, rows: of panels.
        width, height: in pixels.
        legend: where one legend for all panels stands, such as `"outside lower center"`. Defaults to one in each.
        options: for `Figure.subplots`.
    """
    made = figures.figure(width, height, layout="constrained")
    axes = made.subplots(rows, columns, **options)
    yield axes
    named = {}
    for axis in made.axes:
        axis.spines[["top", "right"]].set_visible(False)
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles))
        if labels and not legend:
            axis.legend(frameon=False, fontsize=9)
    if legend:
        made.legend(named.values(), named, loc=legend, ncols=min(len(named), 6), frameon=False)
    figures.save(made, path)


def dots(axis, place, values, colour, label=None, mark="s", size=6, interval=False):
    """Draw values as dots, and their mean as a mark, with its interval where that is asked for."""
    values = list(values)
    axis.plot([place] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
    if values:
        axis.plot(place, np.mean(values), mark, color=colour, label=label, markersize=size)
    if interval and len(values) > 1:
        found = verdicts.interval(values)
        axis.vlines(place, max(found.low, 0), min(found.high, 1), color=colour, linewidth=1.2, alpha=0.7)


def line(axis, places, cells, colour, label=None):
    """Draw the values of each place as dots, and a line through the means of those that are there."""
    there = [(place, list(values)) for place, values in zip(places, cells) if len(values)]
    for place, values in there:
        axis.plot([place] * len(values), values, "o", color=colour, alpha=0.5, markersize=4)
    means = [np.mean(values) for _, values in there]
    axis.plot([place for place, _ in there], means, "-", color=colour, label=label)


def bars(axis, groups, colours):
    """Draw bars side by side, dict name -> a height a place."""
    for number, (name, heights) in enumerate(groups.items()):
        at = np.arange(len(heights)) + 0.27 * (number - (len(groups) - 1) / 2)
        axis.bar_label(axis.bar(at, heights, 0.25, color=colours[number], label=name), fmt="%g", fontsize=8)


def curves(axis, rows, colour, label, style="-", x="epoch", y="loss", **where):
    """Draw a column over the epochs, a line a seed."""
    mine = [row for row in pick(rows, **where) if row["seed"] != TUNING_SEED and y in row]
    for number, seed in enumerate(sorted({row["seed"] for row in mine})):
        each = [(row[x], row[y]) for row in mine if row["seed"] == seed]
        axis.plot(*zip(*each), style, color=colour, alpha=0.6, label=None if number else label)


def by_depth(axis, rows, column, colours):
    """Draw the end of the training by depth: a line through the means a kind, a dot a seed."""
    depths = sorted({row["depth"] for row in rows})
    for kind, colour in colours.items():
        line(axis, depths, [of(rows, column, kind=kind, depth=depth).values() for depth in depths], colour, kind)
    axis.set(xticks=depths, xlabel="layers", ylabel=column.replace("_", " "))


def errors(axis, rows, colours, key="kind"):
    """Draw the test errors of each kind in percent."""
    for place, (kind, colour) in enumerate(colours.items()):
        found = [100 * error for error in of(rows, "test_error", **{key: kind}).values()]
        dots(axis, place, found, colour, mark="_", size=28)
    axis.set(title="a dot a seed", ylabel="test error, percent", xlim=(-0.6, len(colours) - 0.4))
    axis.set_xticks(range(len(colours)), list(colours))
