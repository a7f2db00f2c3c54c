"""Training the head first spares the trunk: how far its features move with and without it."""

import keras
import numpy as np

import kresnets
from claims import images, scores, transfer
from claims.claim import Finding, Panel
from claims.judge import exactly, of, paired, pick, tested

RATES = (1e-3, 3e-3)  # those that freeze-or-finetune tries for the whole net
# Epochs of the head alone, then of everything; equal passes.
WAYS = {"whole": (0, 12), "head first": (4, 8), "head only": (12, 0)}


def _settings(options, rows):
    quick = options.quick
    ways = {"whole": (0, 1), "head first": (1, 1)} if quick else WAYS
    common = {"task": "carry", "n": 75 if quick else 250} | transfer.common(quick)
    return [
        common | {"source": source, "way": way, "head_epochs": head, "whole_epochs": whole, "rate": rate, "seed": seed}
        for seed in range(options.count(transfer.SEEDS))
        for source in list(transfer.SOURCES)[-1 if quick else 0 :]
        for way, (head, whole) in ways.items()
        for rate in (RATES if whole and not quick else RATES[-1:])
    ]


def _measure(setting, target, weights):
    seen = images.target(setting["source"], setting["size"], "all", 0)  # what the trunk has learned from
    old_head = transfer.build(setting, seen.classes, weights).get_layer("head_dense").get_weights()
    model = transfer.build(setting, target.classes, weights)
    trunk = keras.Model(model.input, model.layers[-2].output)
    before, rows = scores.outputs(trunk, seen.test), []

    def look(epoch, logs):
        after = scores.outputs(trunk, seen.test)
        row = {"epoch": epoch + 1, "thawed": max(0, epoch + 1 - setting["head_epochs"])}
        row |= {"relative": relative(before, after), "unlike": 1 - alike(before, after)}
        row["source_accuracy"] = np.mean((after @ old_head[0] + old_head[1]).argmax(1) == seen.test_labels)
        rows.append(row)

    fields = transfer.whole(setting["rate"], setting["whole_epochs"] or 1)
    fields |= {} if setting["whole_epochs"] else {"stages": ()}
    fields |= {"head_epochs": setting["head_epochs"], "learning_rate": 1e-2, "augment": setting["augment"]}
    recipe = kresnets.Recipe.textbook(**fields, seed=setting["seed"])
    found = transfer.fine_tuned(model, target, recipe, [keras.callbacks.LambdaCallback(on_epoch_end=look)])
    rows[-1] |= found
    return rows


def relative(before, after):
    """Return how far features `(images, channels)` moved, as a share of what they vary by: 0 for not at all."""
    return float(np.linalg.norm(after - before) / np.linalg.norm(before - before.mean(0)))


def alike(before, after):
    """Return the linear CKA of two sets of features of the same images, 0..1 (arXiv 1905.00414 section 3)."""
    before, after = (np.float64(features - features.mean(0)) for features in (before, after))
    norms = np.linalg.norm(before.T @ before) * np.linalg.norm(after.T @ after)
    return float(np.linalg.norm(after.T @ before) ** 2 / norms) if norms else 0.0


def _of(rows, column, source, way, thawed=None):
    """Return dict seed -> number, the mean over the rates, after so many epochs of the whole net (None: at the end)."""
    mine = pick(rows, source=source, way=way)
    # Only a run's last row has an accuracy.
    mine = [row for row in mine if ("test_accuracy" in row if thawed is None else row["thawed"] == thawed)]
    each = [of(mine, column, rate=rate) for rate in dict.fromkeys(row["rate"] for row in mine)]
    seeds = set.intersection(*map(set, each)) if each else ()
    return {seed: float(np.mean([one[seed] for one in each])) for seed in sorted(seeds)}


def _findings(options, rows):
    still = [row["relative"] for row in rows if row.get("thawed") == 0]
    claim = "While the head learns alone, the features do not move at all."
    told = f"The largest movement in {len(still)} epochs of the head alone: {max(still)}."
    yield Finding(claim, exactly(max(still) == 0), told)
    for source in dict.fromkeys(row["source"] for row in rows if row["task"] == "carry"):
        yield from _of_source(rows, source, transfer.SOURCES[source])


def _of_source(rows, source, like):
    def ends(column, thawed=None):
        """Return without and with the head first, as dicts seed -> number, and their means as texts."""
        found = [_of(rows, column, source, way, thawed) for way in ("whole", "head first")]
        return found, [f"{np.mean(list(each.values())):.3f}" for each in found]

    # Without the head first the trunk learns for more of the equal passes: at the end that alone may tell.
    both = max(row["thawed"] for row in pick(rows, source=source, way="head first"))
    moments = {1: "in the first epoch in which the trunk learns"}
    moments |= {both: f"in the first {both} epochs in which the trunk learns"} if both > 1 else {}
    moments |= {None: "in the end, after equal passes, in more of which the trunk learns"}
    for thawed, when in moments.items():
        found, (without, with_it) = ends("relative", thawed)
        gap, unlike = paired(*found), paired(*ends("unlike", thawed)[0])
        claim = f"Without the head first the features of the {like} source's images move further {when}."
        told = f"Relative distance without {without}, with {with_it}: difference {gap.text()}"
        yield tested(claim, gap, f"{told}; of 1 - CKA {unlike.text()}.")
    for column, claim in (
        ("test_accuracy", f"From the {like} source, head first leads to a better network on the target."),
        ("source_accuracy", f"Head first forgets less of the {like} source (old head, new features)."),
    ):
        found, (without, with_it) = ends(column)
        told = f"Accuracy without {without}, with {with_it}: without less with {paired(*found).points()}."
        yield tested(claim, paired(*found[::-1]), told)


PANELS = (
    Panel("relative", "epoch", ("way", "rate"), each="source", curve=True),
    Panel("test_accuracy", "source", "way", {"task": "carry"}),
)
CLAIM = transfer.claim(_settings, _findings, PANELS, measure=_measure)
