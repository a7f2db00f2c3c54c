"""Freeze where images are few and similar, fine-tune where they are many or different: a map of which wins where."""

import dataclasses

import numpy as np

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import above, interval, paired

# Passes over the pictures, the same for every method; divisible by the three stages of "head, then stages".
PASSES = {75: 45, 250: 18, "all": 12}


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to carry a trunk over.

    Args:
        what: what is done, in a few words.
        colour: in the picture.
        rates: of the head, from which each cell takes its best.
        recipe: function `(rate, passes) -> dict` of what the `kresnets.Recipe` is.
    """

    what: str
    colour: str
    rates: tuple[float, ...]
    recipe: object


PUBLISHED_NOTE = (
    "The trunk is ResNet50 at 96 pixels with the weights of keras.applications, pretrained on ImageNet; from scratch "
    "starts "
    f"without them. {transfer.TARGET_NOTE}"
)


def _whole(rate, passes, **more):
    return dict(head_epochs=0, stages=("stem",), epochs_per_stage=passes, trunk_learning_rate=rate, ratio=1.0) | more


METHODS = {
    "head": Method(
        "head only", "#6b7280", (1e-2, 3e-2), lambda rate, n: dict(head_epochs=n, stages=(), learning_rate=rate)
    ),
    # The trunk at a tenth of the rate at which the head learned, as the defaults of Recipe have it.
    "stages": Method(
        "head, then stages",
        "#1d4ed8",
        (1e-2, 3e-2),
        lambda rate, n: dict(
            head_epochs=n // 3, epochs_per_stage=n // 3, learning_rate=rate, trunk_learning_rate=rate / 10
        ),
    ),
    "whole": Method("whole, one rate", "#c2410c", (1e-3, 3e-3), _whole),
    "layerwise": Method("whole, layer-wise rates", "#a21caf", (3e-3, 1e-2), lambda rate, n: _whole(rate, n, ratio=0.5)),
    "norms": Method(
        "whole, norms learn too", "#d97706", (1e-3, 3e-3), lambda rate, n: _whole(rate, n, batchnorm="train")
    ),
    "scratch": Method("from scratch", "#15803d", (3e-3, 1e-2), lambda rate, n: _whole(rate, n, batchnorm="train")),
}
CARRIED = tuple(name for name in METHODS if name != "scratch")


def _sources(options):
    """Return dict source -> how far it is from the target, the nearest first."""
    return {"imagenet": "ImageNet"} if options.data == "imagenet" else transfer.SOURCES


def cells(options):
    """List the cells of the grid, settings without rate and seed; from scratch knows no source, so no distance.

    The quick ones are few: tracing a step takes longer than all of its training.
    """
    pairs = [(source, method) for source in _sources(options) for method in CARRIED] + [("none", "scratch")]
    if options.quick:
        far = list(_sources(options))[-1]
        pairs = [(far, "head"), (far, "whole"), ("none", "scratch")]
    network = transfer.published(options.quick) if options.data == "imagenet" else transfer.network(options.quick)
    return [
        {"task": "carry", "source": source, "method": method, "n": n, "passes": passes} | network
        for n, passes in ({75: 3} if options.quick else PASSES).items()
        for source, method in pairs
        if (method, n) != ("norms", 250)  # between the two ends, which say whether it matters
    ]


def _settings(options, rows):
    seeds = options.seeds or (1 if options.quick else 3)
    wanted = []
    for name, method in METHODS.items():
        mine = [cell for cell in cells(options) if cell["method"] == name]
        tried = method.rates[1:2] if options.quick else method.rates
        wanted += rates.tuned(mine, tried, seeds, rows, by="validation_loss")
    return transfer.with_lessons(wanted, rows, options.quick)


def recipe(setting):
    """Return the `kresnets.Recipe` of a setting."""
    import kresnets

    fields = METHODS[setting["method"]].recipe(setting["rate"], setting["passes"])
    if setting["method"] == "stages" and "network" in setting:
        fields["stages"] = ("stage4", "stage3")  # two, as of the slim trunk: a third of the passes each
    return kresnets.Recipe.textbook(seed=setting["seed"], augment=setting["augment"], **fields)


def _measure(setting, kept):
    if setting["task"] == "teach":
        return transfer.teach(setting, kept)
    pictures = transfer.data(transfer.TARGET, setting["size"], setting["n"], setting["seed"])
    model = transfer.build(setting, len(pictures.class_names), transfer.trunk(setting, kept))
    return [transfer.fine_tuned(model, pictures, recipe(setting))]


def compared(rows, column, source, method, n):
    """Return dict seed -> number of a cell; from scratch is the same at both distances."""
    source = "none" if method == "scratch" else source
    return rates.compared(rows, column, task="carry", source=source, method=method, n=n)


def _over_cells(rows, one, other, where, column="test_accuracy"):
    """Return the `Interval` of one method less another, each seed's mean over the cells `(source, n)`."""
    gaps = []
    for source, n in where:
        ones, others = (compared(rows, column, source, method, n) for method in (one, other))
        gaps.append({seed: ones[seed] - others[seed] for seed in ones.keys() & others.keys()})
    seeds = set.intersection(*map(set, gaps))
    return interval([np.mean([gap[seed] for gap in gaps]) for seed in sorted(seeds)])


def _findings(options, rows):
    done = {(row["source"], row["n"]) for row in rows if row["task"] == "carry" and row["source"] != "none"}
    sources = list(_sources(options))
    nearest, far, two = sources[0], sources[-1], len(sources) > 1
    near = nearest if two else None  # nothing that is published has learned from pictures like the target's
    # In the words of the lecture notes: what, one method, the other, the cells in which it should be better.
    said = [
        ("With few and similar images, training the head alone beats fine-tuning the whole net at one rate.",
         "head", "whole", [(near, 75)]),
        ("With few and different images, fine-tuning the whole net beats training the head alone.",
         "whole", "head", [(far, 75)]),
        (f"With many images, fine-tuning the whole net beats training the head alone{', at either distance' * two}.",
         "whole", "head", [(near, "all"), (far, "all")]),
        ("Training the head first, then stage by stage, beats the whole net at once and at one rate.",
         "stages", "whole", sorted(done, key=str)),
        ("Layer-wise rates beat one rate.", "layerwise", "whole", sorted(done, key=str)),
        ("With few images, batch norms are better frozen than trained.", "whole", "norms", [(near, 75), (far, 75)]),
        ("With many images, batch norms are better trained than frozen.", "norms", "whole",
         [(near, "all"), (far, "all")]),
        ("With few images, a trunk pretrained on similar ones (head first, then stages) beats training from scratch.",
         "stages", "scratch", [(near, 75)]),
        ("With few images, a trunk pretrained on another kind (whole net at one rate) beats training from scratch.",
         "whole", "scratch", [(far, 75)]),
    ]  # fmt: skip
    findings = []
    for claim, one, other, where in said:
        where = [cell for cell in where if cell in done and _both(rows, cell, one, other)]
        if where:
            gap, area = (_over_cells(rows, one, other, where, column) for column in ("test_accuracy", "test_auc"))
            findings.append(Finding(claim=claim, verdict=above(gap), numbers=_numbers(gap, area, one, other)))
    if (nearest, "all") in done:
        caught = _over_cells(rows, "scratch", "stages", [(nearest, "all")])
        area = _over_cells(rows, "scratch", "stages", [(nearest, "all")], "test_auc")
        findings.append(
            Finding(
                claim="With many images, training from scratch is at most 1 point behind (head first, then stages).",
                verdict=above(caught, -0.01),
                numbers=_numbers(caught, area, "scratch", "stages"),
            )
        )
    return findings + [
        _winner(rows, source, distance, n)
        for source, distance in _sources(options).items()
        for n in PASSES
        if (source, n) in done
    ]


def _both(rows, cell, one, other):
    return all(compared(rows, "test_accuracy", cell[0], method, cell[1]) for method in (one, other))


def _numbers(gap, area, one, other):
    return (
        f"Test accuracy, {METHODS[one].what} less {METHODS[other].what}: {gap.text(' points', 1, 100)}; "
        f"AUC: {area.text('', 3)}."
    )


def _winner(rows, source, distance, n):
    """Return the finding of a cell of the map: which method is first, and whether that is more than noise."""
    found = {method: compared(rows, "test_accuracy", source, method, n) for method in METHODS}
    means = {method: np.mean(list(values.values())) for method, values in found.items() if values}
    order = sorted(means, key=means.get, reverse=True)
    gap = paired(found[order[0]], found[order[1]])
    ranked = ", ".join(f"{METHODS[method].what} {means[method]:.3f}" for method in order)
    how_many = "all" if n == "all" else str(n)
    return Finding(
        claim=f"Map, {how_many} images, {distance} source: {METHODS[order[0]].what} does best.",
        verdict=above(gap),
        numbers=f"Test accuracy over the next: {gap.text(' points', 1, 100)}. Means: {ranked}.",
    )


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 760, layout="constrained")
    sources = _sources(options)
    axes = made.subplots(2, len(sources), sharex=True, sharey="row", squeeze=False)
    sizes = list(dict.fromkeys(row["n"] for row in rows if row["task"] == "carry"))
    for line, (column, label) in enumerate((("test_accuracy", "test accuracy"), ("test_auc", "test AUC"))):
        for axis, (source, distance) in zip(axes[line], sources.items()):
            for place, method in enumerate(METHODS):
                _draw_method(axis, rows, column, source, method, sizes, (place - 2.5) * 0.13)
            axis.set_xticks(range(len(sizes)), [f"{n} pictures" for n in sizes])
            axis.grid(axis="y", alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            if line == 0:
                axis.set_title(
                    f"{distance} source: {transfer.PICTURES[source]}" if source in transfer.PICTURES else distance
                )
        axes[line, 0].set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figures.save(made, path)


def _draw_method(axis, rows, column, source, method, sizes, shift):
    """Draw one method's mean with its interval for each data size, and each seed as a dot."""
    what, colour = METHODS[method].what, METHODS[method].colour
    for index, n in enumerate(sizes):
        values = list(compared(rows, column, source, method, n).values())
        if not values:
            continue
        found, place = interval(values), index + shift
        label = what if index == 0 else None
        axis.plot(place, found.mean, "s", color=colour, markersize=7, label=label)
        axis.plot([place] * len(values), values, "o", color=colour, markersize=3, alpha=0.6)
        if np.isfinite(found.low):
            axis.vlines(place, max(found.low, 0.0), min(found.high, 1.0), color=colour, linewidth=1.2, alpha=0.7)


def _cost(setting):
    """Return about how many seconds a run takes: an epoch of the pictures, and what tracing the steps costs."""
    if setting["task"] == "teach":
        return 40.0
    share = {"head": 0.5, "stages": 0.7}.get(setting["method"], 1.0)
    traced = 9.0 if setting["method"] == "stages" else 5.0
    per_image = 0.03 if "network" in setting else 0.001
    return traced + share * setting["passes"] * (0.15 + per_image * (650 if setting["n"] == "all" else setting["n"]))


CLAIM = Claim(
    title="freeze the trunk where images are few and similar, fine-tune it where they are many or different",
    source="the advice in common use (CS231n, Transfer Learning); arXiv 1411.1792, 1801.06146 section 3.2 and 3.3",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=_cost,
    keeps=True,
    data=("imagenet",),
    notes=lambda options: (
        transfer.NOTE if options.data is None else PUBLISHED_NOTE,
        "All methods go through `kresnets.fine_tune` with the same number of passes ("
        + ", ".join(f"{passes} at {n}" for n, passes in PASSES.items())
        + "), light augmentation, and keep the epoch with the best validation loss. Each cell of the grid takes the "
        "best of two rates, by the validation loss of one more seed that is not compared.",
        "The winners of the map were picked by the very numbers that are then compared, which flatters them. A demo of "
        "before carried a CifarResNet20 so trained to 75 cells and lost to training from scratch (accuracy 0.683 "
        "against "
        "0.810, AUC 0.782 against 0.842, one seed): a trunk trained on 1,162 photographs of the same kind is not "
        "ImageNet's.",
    ),
)
