"""Training the head first spares the trunk: how far its features move with and without it."""

import numpy as np

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import above, exactly, interval

RATES = (1e-3, 3e-3)  # those that freeze-or-finetune tries for the whole net
# Epochs of the head alone, then of everything; equal passes.
WAYS = {"whole": (0, 12), "head first": (4, 8), "head only": (12, 0)}
COLOURS = {"whole": "#c2410c", "head first": "#1d4ed8", "head only": "#6b7280"}


def _settings(options, rows):
    sources = ("digits",) if options.quick else tuple(transfer.SOURCES)
    ways = {"whole": (0, 1), "head first": (1, 1)} if options.quick else WAYS
    common = {"task": "carry", "n": 75 if options.quick else 250} | transfer.network(options.quick)
    wanted = [
        common | {"source": source, "way": way, "head_epochs": head, "whole_epochs": whole, "rate": rate, "seed": seed}
        for seed in range(options.seeds or (1 if options.quick else 3))
        for source in sources
        for way, (head, whole) in ways.items()
        for rate in (RATES if whole and not options.quick else RATES[-1:])
    ]
    return transfer.with_lessons(wanted, rows, options.quick)


def _measure(setting, kept):
    if setting["task"] == "teach":
        return transfer.teach(setting, kept)
    import keras

    import kresnets

    path = transfer.trunk(setting, kept)
    source = transfer.data(setting["source"], setting["size"], "all", 0)
    teacher = transfer.build(setting, len(source.class_names), path)
    judge = [np.asarray(weight) for weight in teacher.get_layer("head_dense").get_weights()]
    pictures = transfer.data(transfer.TARGET, setting["size"], setting["n"], setting["seed"])
    model = transfer.build(setting, len(pictures.class_names), path)
    trunk = keras.Model(model.input, model.layers[-2].output)
    before = transfer.outputs(trunk, source.test)
    rows = []

    def look(epoch, logs):
        after = transfer.outputs(trunk, source.test)
        right = np.mean((after @ judge[0] + judge[1]).argmax(1) == source.test_labels)
        moved = {"relative": relative(before, after), "unlike": 1 - alike(before, after), "source_accuracy": right}
        rows.append({"epoch": epoch + 1, "thawed": max(0, epoch + 1 - setting["head_epochs"])} | moved)

    recipe = kresnets.Recipe.textbook(
        head_epochs=setting["head_epochs"],
        stages=("stem",) if setting["whole_epochs"] else (),
        epochs_per_stage=setting["whole_epochs"] or 1,
        learning_rate=1e-2,
        trunk_learning_rate=setting["rate"],
        ratio=1.0,
        augment=setting["augment"],
        seed=setting["seed"],
    )
    found = transfer.fine_tuned(model, pictures, recipe, [keras.callbacks.LambdaCallback(on_epoch_end=look)])
    rows[-1] |= found
    return rows


def relative(before, after):
    """Return how far features `(images, channels)` moved, as a share of what they vary by: 0 for not at all."""
    return float(np.linalg.norm(after - before) / np.linalg.norm(before - before.mean(0)))


def alike(before, after):
    """Return the linear CKA of two sets of features of the same images, 0..1: 1 where one is the other, turned and
    scaled (arXiv 1905.00414 section 3)."""
    before, after = (np.float64(features - features.mean(0)) for features in (before, after))
    norms = np.linalg.norm(before.T @ before) * np.linalg.norm(after.T @ after)
    return float(np.linalg.norm(after.T @ before) ** 2 / norms) if norms else 0.0


def _of(rows, column, source, way, thawed=None):
    """Return dict seed -> number, the mean over the rates, after so many epochs of the whole net (None: at the end)."""
    tried = {row["rate"] for row in rows if row["task"] == "carry" and row["way"] == way}
    end = "test_accuracy" if thawed is None else column  # only a run's last row has it
    mine = [row for row in rows if row["task"] == "carry" and end in row]
    each = [rates.compared(mine, column, source=source, way=way, rate=rate) for rate in tried]
    if thawed is not None:
        mine = [row for row in mine if row["thawed"] == thawed]
        each = [rates.compared(mine, column, source=source, way=way, rate=rate) for rate in tried]
    seeds = set.intersection(*map(set, each))
    return {seed: float(np.mean([one[seed] for one in each])) for seed in sorted(seeds)}


def _gap(rows, column, source, thawed=None):
    ones, others = (_of(rows, column, source, way, thawed) for way in ("whole", "head first"))
    return interval([ones[seed] - others[seed] for seed in ones.keys() & others.keys()]), ones, others


def _findings(options, rows):
    still = [row["relative"] for row in rows if row["task"] == "carry" and row["thawed"] == 0]
    findings = [
        Finding(
            claim="While the head learns alone, the features do not move at all.",
            verdict=exactly(max(still) == 0),
            numbers=f"The largest movement in {len(still)} epochs of the head alone: {max(still)}.",
        )
    ]
    for source in dict.fromkeys(row["source"] for row in rows if row["task"] == "carry"):
        like = transfer.SOURCES[source]
        # Without the head first the trunk learns for more of the equal passes: at the end that alone may tell.
        both = max(row["thawed"] for row in rows if (row.get("source"), row.get("way")) == (source, "head first"))
        moments = {both: f"in the first {both} epochs in which the trunk learns"}
        moments = {1: "in the first epoch in which the trunk learns"} | (moments if both > 1 else {})
        for thawed, when in (
            *moments.items(),
            (None, "in the end, after equal passes, in more of which the trunk learns"),
        ):
            gap, ones, others = _gap(rows, "relative", source, thawed)
            unlike, *_ = _gap(rows, "unlike", source, thawed)
            findings.append(
                Finding(
                    claim=f"Without the head first the features of the {like} source's images move further {when}.",
                    verdict=above(gap),
                    numbers=f"Relative distance without {_mean(ones)}, with {_mean(others)}: difference {gap.text()}; "
                    f"of 1 - CKA {unlike.text()}.",
                )
            )
        for column, claim in (
            ("test_accuracy", f"From the {like} source, head first leads to a better network on the target."),
            ("source_accuracy", f"Head first forgets less of the {like} source (old head, new features)."),
        ):  # fmt: skip
            gap, ones, others = _gap(rows, column, source)
            findings.append(
                Finding(
                    claim=claim,
                    verdict=above(interval([-value for value in gap.values])),
                    numbers=f"Accuracy without {_mean(ones)}, with {_mean(others)}: without less with "
                    f"{gap.text(' points', 1, 100)}.",
                )
            )
    return findings


def _mean(found):
    return f"{np.mean(list(found.values())):.3f}"


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 440, layout="constrained")
    axes = made.subplots(1, 3)
    carried = [row for row in rows if row["task"] == "carry"]
    for axis, (source, distance) in zip(axes, transfer.SOURCES.items()):
        for way, colour in COLOURS.items():
            for rate, style in zip(RATES, ("--", "-")):
                mine = [r for r in carried if (r["source"], r["way"], r["rate"]) == (source, way, rate)]
                curves = {
                    seed: [r["relative"] for r in mine if r["seed"] == seed] for seed in {r["seed"] for r in mine}
                }
                if curves:
                    told = way if way == "head only" else f"{way}, {rate:g}"
                    axis.plot(range(1, 1 + len(next(iter(curves.values())))), np.mean(list(curves.values()), 0), style,
                              color=colour, label=told, linewidth=2)  # fmt: skip
                for curve in curves.values():
                    axis.plot(range(1, 1 + len(curve)), curve, style, color=colour, alpha=0.3, linewidth=0.8)
        axis.set(
            title=f"{distance} source: {transfer.PICTURES[source]}",
            xlabel="epoch",
            ylabel="features moved by (relative L2)",
        )
    places = [(source, way) for source in transfer.SOURCES for way in COLOURS]
    for place, (source, way) in enumerate(places):
        if any((row["source"], row["way"]) == (source, way) for row in carried):
            values = list(_of(rows, "test_accuracy", source, way).values())
            axes[2].plot([place] * len(values), values, "o", color=COLOURS[way], alpha=0.6)
            axes[2].plot(place, np.mean(values), "_", color=COLOURS[way], markersize=22, markeredgewidth=3)
    axes[2].set(title="target", ylabel="test accuracy (seeds and mean)")
    axes[2].set(xlim=(-0.7, 5.7))
    axes[2].set_xticks([1, 4], [f"{distance} source" for distance in transfer.SOURCES.values()])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes[:2]), key=lambda found: len(found[1]))
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figures.save(made, path)


CLAIM = Claim(
    title="training the head first keeps the trunk's features from being distorted",
    source="arXiv 1801.06146 section 3.3; arXiv 2202.10054",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=lambda setting: 40.0 if setting["task"] == "teach" else 9.0 if setting["way"] == "head only" else 15.0,
    keeps=True,
    data=(),
    notes=(
        transfer.NOTE,
        "250 images of the target, 12 passes: everything at one rate, or 4 passes of the head alone at 0.01 and 8 of "
        "everything at that rate; batch norms frozen. Where two rates are tried, the numbers are the means over both. "
        "Distances are of the trunk's pooled features of the source's test images: relative L2 is the norm of the "
        "change over the norm of the features about their mean.",
    ),
)
