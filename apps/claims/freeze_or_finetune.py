"""Freeze where images are few and similar, fine-tune where they are many or different: a map of which wins where."""

import collections

import numpy as np

import kresnets
from claims import scratch, transfer
from claims.claim import Panel
from claims.judge import of, paired, pick, tested
from claims.transfer import whole

# Passes over the pictures, the same for every method; divisible by the three stages of "head, then stages".
PASSES = {75: 45, 250: 18, "all": 12}


def _stages(rate, passes):
    # The trunk at a tenth of the rate at which the head learned, as the textbook has it.
    third, slow = passes // 3, rate / 10
    return dict(head_epochs=third, epochs_per_stage=third, learning_rate=rate, trunk_learning_rate=slow)


# A way to carry a trunk over: what it is, the rates of which each cell takes its best, and the fields of its
# `kresnets.Recipe` by rate and passes.
Method = collections.namedtuple("Method", "what rates recipe")
METHODS = {
    "head": Method("head only", (1e-2, 3e-2), lambda r, n: dict(head_epochs=n, stages=(), learning_rate=r)),
    "stages": Method("head, then stages", (1e-2, 3e-2), _stages),
    "whole": Method("whole, one rate", (1e-3, 3e-3), whole),
    "layerwise": Method("whole, layer-wise rates", (3e-3, 1e-2), lambda r, n: whole(r, n, ratio=0.5)),
    "norms": Method("whole, norms learn too", (1e-3, 3e-3), lambda r, n: whole(r, n, batchnorm="train")),
    "scratch": Method("from scratch", (3e-3, 1e-2), lambda r, n: whole(r, n, batchnorm="train")),
}


def cells(quick):
    """List the cells of the grid, settings without rate and seed; from scratch knows no source, so no distance. The
    quick ones are few: tracing a step takes longer than all of its training."""
    carried = ("head", "whole") if quick else [method for method in METHODS if method != "scratch"]
    sources = [transfer.FAR] if quick else transfer.SOURCES
    pairs = [(source, method) for source in sources for method in carried] + [("none", "scratch")]
    return [
        {"task": "carry", "source": source, "method": method, "n": n, "passes": passes} | transfer.common(quick)
        for n, passes in ({75: 3} if quick else PASSES).items()
        for source, method in pairs
        if (method, n) != ("norms", 250)  # between the two ends, which say whether it matters
    ]


def _settings(options, rows):
    wanted = []
    for name, method in METHODS.items():
        tried = method.rates[1:2] if options.quick else method.rates
        mine = pick(cells(options.quick), method=name)
        wanted += scratch.tuned(mine, tried, options.count(transfer.SEEDS), rows, by="validation_loss")
    return wanted


def recipe(setting):
    """Return the `kresnets.Recipe` of a setting."""
    fields = METHODS[setting["method"]].recipe(setting["rate"], setting["passes"])
    return kresnets.Recipe.textbook(seed=setting["seed"], augment=setting["augment"], **fields)


def _findings(options, rows):
    near, far = sources = transfer.SOURCES
    done = sorted({(row["source"], row["n"]) for row in rows if row["source"] in sources and "n" in row}, key=str)
    # From scratch is the same at each distance.
    rows = pick(rows, task="carry")
    rows += [row | {"source": source} for row in pick(rows, source="none") for source in sources]
    few, many = [(near, 75), (far, 75)], [(near, "all"), (far, "all")]
    # In the words of the lecture notes: what, one method, the other, the cells in which it should be better.
    for claim, one, other, where, least in (
        ("With few and similar images, training the head alone beats fine-tuning the whole net at one rate.",
         "head", "whole", few[:1], 0),
        ("With few and different images, fine-tuning the whole net beats training the head alone.",
         "whole", "head", few[1:], 0),
        ("With many images, fine-tuning the whole net beats training the head alone, at either distance.",
         "whole", "head", many, 0),
        ("Training the head first, then stage by stage, beats the whole net at once and at one rate.",
         "stages", "whole", done, 0),
        ("Layer-wise rates beat one rate.", "layerwise", "whole", done, 0),
        ("With few images, batch norms are better frozen than trained.", "whole", "norms", few, 0),
        ("With many images, batch norms are better trained than frozen.", "norms", "whole", many, 0),
        ("With few images, a trunk pretrained on similar ones (head first, then stages) beats training from scratch.",
         "stages", "scratch", few[:1], 0),
        ("With few images, a trunk pretrained on another kind (whole net at one rate) beats training from scratch.",
         "whole", "scratch", few[1:], 0),
        ("With many images, training from scratch is at most 1 point behind (head first, then stages).",
         "scratch", "stages", many[:1], -0.01),
    ):  # fmt: skip
        cells = [{"source": source, "n": n} for source, n in where if (source, n) in done]
        cells = [cell for cell in cells if all(pick(rows, method=method, **cell) for method in (one, other))]
        told = f"{METHODS[one].what} less {METHODS[other].what}"
        yield from transfer.compared(claim, told, rows, {"method": one}, {"method": other}, cells, least)
    for source, distance in transfer.SOURCES.items():
        yield from (_winner(rows, source, distance, n) for n in PASSES if (source, n) in done)


def _winner(rows, source, distance, n):
    """Return the finding of a cell of the map: which method is first, and whether that is more than noise."""
    found = {method: of(rows, "test_accuracy", source=source, method=method, n=n) for method in METHODS}
    means = {method: np.mean(list(values.values())) for method, values in found.items() if values}
    order = sorted(means, key=means.get, reverse=True)
    gap = paired(found[order[0]], found[order[1]])
    ranked = ", ".join(f"{METHODS[method].what} {means[method]:.3f}" for method in order)
    claim = f"Map, {n} images, {distance} source: {METHODS[order[0]].what} does best."
    return tested(claim, gap, f"Test accuracy over the next: {gap.points()}. Means: {ranked}.")


PANELS = tuple(Panel(column, ("source", "n"), "method", {"task": "carry"}) for column in ("test_accuracy", "test_auc"))
CLAIM = transfer.claim(_settings, _findings, PANELS, recipe=recipe)
