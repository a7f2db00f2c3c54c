"""Freeze where images are few and similar, fine-tune where they are many or different: a map of which wins where."""

import collections
import math

import numpy as np

import kresnets
from claims import scratch, transfer
from claims.claim import Panel
from claims.judge import of, paired, pick, tested
from claims.transfer import whole

# Images to learn from -> passes over them, the same for every method that carries the trunk; divisible by the four
# parts of "head, then stages".
PASSES = {75: 48, 250: 20, 640: 12}
FEW, MANY = min(PASSES), max(PASSES)
_STEPS = 600  # from scratch, a network has to learn for longer: as long as in default-recipe


def _stages(rate, passes):
    # The trunk at a tenth of the rate at which the head learned, as the textbook has it.
    part, slow = passes // 4, rate / 10
    return dict(head_epochs=part, epochs_per_stage=part, learning_rate=rate, trunk_learning_rate=slow)


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
    """List the cells of the grid, settings without rate and seed. The quick ones are few: tracing a step takes longer
    than all of its training."""
    if quick:
        grid = [(transfer.DIFFERENT, method, FEW, 3) for method in ("head", "whole", "scratch")]
    else:
        # Norms that learn and networks from scratch at the two ends alone, which say whether they matter.
        grid = [
            (target, method, n, math.ceil(_STEPS / math.ceil(n / 32)) if method == "scratch" else passes)
            for target in transfer.TARGETS
            for n, passes in PASSES.items()
            for method in METHODS
            if n in (FEW, MANY) or method not in ("norms", "scratch")
        ]
    return [
        transfer.common(quick)
        | {"target": target, "method": method, "n": n, "passes": passes}
        | ({"trunk": "none"} if method == "scratch" else {})
        for target, method, n, passes in grid
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
    similar, different = targets = list(transfer.TARGETS)
    done = sorted({(row["target"], row["n"]) for row in rows})
    at = lambda n: [(target, n) for target in targets]
    few, many = at(FEW), at(MANY)
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
        ("With few and similar images, the trunk (head first, then stages) beats training from scratch.",
         "stages", "scratch", few[:1], 0),
        ("With few and different images, the trunk (head first, then stages) beats training from scratch.",
         "stages", "scratch", few[1:], 0),
        ("With many and different images, training from scratch is at most 1 point behind (head first, then stages).",
         "scratch", "stages", many[1:], -0.01),
        ("What the trunk gains over training from scratch shrinks with the images: with many and similar ones it is "
         "at most 1 point.", "scratch", "stages", many[:1], -0.01),
    ):  # fmt: skip
        cells = [{"target": target, "n": n} for target, n in where if (target, n) in done]
        cells = [cell for cell in cells if all(pick(rows, method=method, **cell) for method in (one, other))]
        told = f"{METHODS[one].what} less {METHODS[other].what}"
        yield from transfer.compared(claim, told, rows, {"method": one}, {"method": other}, cells, least)
    yield from (_winner(rows, target, n) for target, n in done)


def _winner(rows, target, n):
    """Return the finding of a cell of the map: which method is first, and whether that is more than noise."""
    found = {method: of(rows, "test_accuracy", target=target, method=method, n=n) for method in METHODS}
    means = {method: np.mean(list(values.values())) for method, values in found.items() if values}
    order = sorted(means, key=means.get, reverse=True)
    gap = paired(found[order[0]], found[order[1]])
    ranked = ", ".join(f"{METHODS[method].what} {means[method]:.3f}" for method in order)
    claim = f"Map, {n} images of {target} ({transfer.TARGETS[target]}): {METHODS[order[0]].what} does best."
    return tested(claim, gap, f"Test accuracy over the next: {gap.points()}. Means: {ranked}.")


PANELS = tuple(Panel(column, ("target", "n"), "method") for column in ("test_accuracy", "test_auc"))
CLAIM = transfer.claim(_settings, _findings, PANELS, recipe=recipe)
