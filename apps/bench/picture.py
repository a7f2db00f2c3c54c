"""The pictures of a bench run."""

COLOURS = {"kresnets": "#1d4ed8", "keras.applications": "#c2410c", "keras_hub": "#a16207", "timm": "#64748b"}


def shares(rows, path):
    """Draw each library's share of the peak as bars, a group a network, dtype and kind of step."""
    from kresnets.report import figures

    rows = [row for row in rows if "share_of_peak" in row]
    groups = list(dict.fromkeys((row["model"], row["dtype"], row["what"]) for row in rows))
    made = figures.figure(900, 90 + 62 * len(groups), layout="constrained")
    axis, names = made.subplots(), list(dict.fromkeys(row["library"] for row in rows))
    for number, group in enumerate(groups):
        bars = [row for row in rows if (row["model"], row["dtype"], row["what"]) == group]
        for place, row in enumerate(bars):
            position, height = number + (place - (len(bars) - 1) / 2) * 0.27, 0.25
            axis.barh(position, row["share_of_peak"], height, color=COLOURS.get(row["library"], "#94a3b8"))
            axis.text(
                row["share_of_peak"] + 0.01,
                position,
                f"{row['images_per_second']:.1f}",
                va="center",
                fontsize=figures.TEXT - 2,
            )
    axis.set_yticks(range(len(groups)), ["\n".join((f"{a}, {c}", b)) for a, b, c in groups], fontsize=figures.TEXT - 1)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.05)
    axis.axvline(1, color="#334155", linewidth=1)
    axis.set_xlabel("share of the machine's convolution peak; at the bars images a second", fontsize=figures.TEXT)
    axis.spines[["top", "right"]].set_visible(False)
    for name in names:
        axis.barh([0], [0], color=COLOURS.get(name, "#94a3b8"), label=name)
    made.legend(loc="outside upper right", ncols=4, fontsize=figures.TEXT, frameon=False)
    figures.save(made, path)


def stacks(kinds, path, label):
    """Draw seconds as stacked bars, a bar a thing measured.

    Args:
        kinds: dict of thing -> dict of kind -> seconds.
        path: of the PNG file.
        label: what the axis says.
    """
    from kresnets.report import figures

    made = figures.figure(900, 150 + 50 * len(kinds), layout="constrained")
    axis = made.subplots()
    names = list(dict.fromkeys(kind for seconds in kinds.values() for kind in seconds))
    colours = [
        "#1d4ed8",
        "#3b82f6",
        "#93c5fd",
        "#c2410c",
        "#f59e0b",
        "#a16207",
        "#65a30d",
        "#0f766e",
        "#7e22ce",
        "#be185d",
    ]
    colours += ["#94a3b8", "#cbd5e1"] * len(names)
    left = dict.fromkeys(kinds, 0.0)
    for name, colour in zip(names, colours):
        widths = [seconds.get(name, 0.0) for seconds in kinds.values()]
        axis.barh(range(len(kinds)), widths, 0.6, left=list(left.values()), color=colour, label=name)
        left = {thing: left[thing] + width for thing, width in zip(left, widths)}
    axis.set_yticks(range(len(kinds)), list(kinds), fontsize=figures.TEXT)
    axis.invert_yaxis()
    axis.set_xlabel(label, fontsize=figures.TEXT)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside lower center", ncols=4, fontsize=figures.TEXT - 1, frameon=False)
    figures.save(made, path)
