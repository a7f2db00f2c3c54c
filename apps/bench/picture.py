"""The pictures of a bench run."""

COLOURS = {"kresnets": "#1d4ed8", "keras.applications": "#c2410c", "keras_hub": "#a16207", "timm": "#64748b"}
_KINDS = "#1d4ed8 #3b82f6 #93c5fd #c2410c #f59e0b #a16207 #65a30d #0f766e #7e22ce #be185d".split()


def shares(rows, path):
    """Draw each library's share of the peak as bars, a group a network, dtype and kind of step."""
    from kresnets.report import figures

    names = [(row["model"], row["dtype"], row["what"]) for row in rows]
    groups = list(dict.fromkeys(names))
    made, axis = _figure(90 + 62 * len(groups), ["\n".join((f"{a}, {c}", b)) for a, b, c in groups])
    labels = set()
    for number, group in enumerate(groups):
        bars = [row for row, name in zip(rows, names) if name == group]
        for place, row in enumerate(bars):
            at, share = number + (place - (len(bars) - 1) / 2) * 0.27, row["share_of_peak"]
            label = None if row["library"] in labels else row["library"]
            axis.barh(at, share, 0.25, color=COLOURS.get(row["library"], "#94a3b8"), label=label)
            axis.text(share + 0.01, at, f"{row['images_per_second']:.1f}", va="center", fontsize=figures.TEXT - 2)
            labels.add(label)
    axis.set_xlim(0, 1.05)
    axis.axvline(1, color="#334155", linewidth=1)
    _save(made, path, "share of the machine's convolution peak; at the bars images a second", "outside upper right")


def stacks(kinds, path, label):
    """Draw seconds as stacked bars, a bar for each thing of `kinds`, dict thing -> dict kind -> seconds."""
    made, axis = _figure(150 + 50 * len(kinds), list(kinds))
    names = list(dict.fromkeys(kind for seconds in kinds.values() for kind in seconds))
    left = [0.0] * len(kinds)
    for name, colour in zip(names, _KINDS + ["#94a3b8", "#cbd5e1"] * len(names)):
        widths = [seconds.get(name, 0.0) for seconds in kinds.values()]
        axis.barh(range(len(kinds)), widths, 0.6, left=left, color=colour, label=name)
        left = [start + width for start, width in zip(left, widths)]
    _save(made, path, label, "outside lower center")


def _figure(height, names):
    from kresnets.report import figures

    made = figures.figure(900, height, layout="constrained")
    axis = made.subplots()
    axis.set_yticks(range(len(names)), names, fontsize=figures.TEXT - 1)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return made, axis


def _save(made, path, label, place):
    from kresnets.report import figures

    made.axes[0].set_xlabel(label, fontsize=figures.TEXT)
    made.legend(loc=place, ncols=4, fontsize=figures.TEXT - 1, frameon=False)
    figures.save(made, path)
