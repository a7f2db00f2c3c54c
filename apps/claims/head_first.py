"""Training the head first spares the trunk: how far its features move with and without it."""

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kresnets
from claims import images, scores, transfer
from claims.claim import Finding, Panel
from claims.judge import exactly, of, paired, pick, tested

RATES = (1e-3, 3e-3)  # those that freeze-or-finetune tries for the whole net
# Epochs of the head alone, then of everything; equal passes.
WAYS = {"whole": (0, 12), "head first": (4, 8), "head only": (12, 0)}
_SEEN = 500  # images by which the trunk's features are judged after each epoch


def _settings(options, rows):
    quick = options.quick
    ways = {"whole": (0, 1), "head first": (1, 1)} if quick else WAYS
    common = {"n": 75 if quick else 250, "known": "digits" if quick else transfer.SIMILAR} | transfer.common(quick)
    return [
        common | {"target": target, "way": way, "head_epochs": head, "whole_epochs": whole, "rate": rate, "seed": seed}
        for seed in range(options.count(transfer.SEEDS))
        for target in list(transfer.TARGETS)[-1 if quick else 0 :]
        for way, (head, whole) in ways.items()
        for rate in (RATES if whole and not quick else RATES[-1:])
    ]


def _measure(setting, target):
    model = transfer.build(setting, target.classes)
    trunk = keras.Model(model.input, model.layers[-2].output)
    # What the trunk knew: a head on its features of photographs of things, asked again of features that moved.
    known = images.target(setting["known"], setting["size"], 400, 0)
    seen, labels = known.test[:_SEEN], known.test_labels[:_SEEN]
    learned = scores.outputs(trunk, known.train)
    old_head = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=1000))
    old_head.fit(learned, known.train_labels)
    before, rows = scores.outputs(trunk, seen), []
    knew = old_head.score(before, labels)

    def look(epoch, logs):
        after = scores.outputs(trunk, seen)
        row = {"epoch": epoch + 1, "thawed": max(0, epoch + 1 - setting["head_epochs"]), "knew": knew}
        row |= {"relative": relative(before, after), "unlike": 1 - alike(before, after)}
        rows.append(row | {"knows": old_head.score(after, labels)})

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


def _of(rows, column, target, way, thawed=None):
    """Return dict seed -> number, the mean over the rates, after so many epochs of the whole net (None: at the end)."""
    mine = pick(rows, target=target, way=way)
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
    for target in dict.fromkeys(row["target"] for row in rows):
        yield from _of_target(rows, target, f"{target} ({transfer.TARGETS[target]})")


def _of_target(rows, target, place):
    def ends(column, thawed=None):
        """Return without and with the head first, as dicts seed -> number, and their means as texts."""
        found = [_of(rows, column, target, way, thawed) for way in ("whole", "head first")]
        return found, [f"{np.mean(list(each.values())):.3f}" for each in found]

    # Without the head first the trunk learns for more of the equal passes: at the end that alone may tell.
    both = max(row["thawed"] for row in pick(rows, target=target, way="head first"))
    moments = {1: "in the first epoch in which the trunk learns"}
    moments |= {both: f"in the first {both} epochs in which the trunk learns"} if both > 1 else {}
    moments |= {None: "in the end, after equal passes, in more of which the trunk learns"}
    for thawed, when in moments.items():
        found, (without, with_it) = ends("relative", thawed)
        gap, unlike = paired(*found), paired(*ends("unlike", thawed)[0])
        claim = f"{place}: without the head first the features of photographs of things move further {when}."
        told = f"Relative distance without {without}, with {with_it}: difference {gap.text()}"
        yield tested(claim, gap, f"{told}; of 1 - CKA {unlike.text()}.")
    for column, claim in (
        ("test_accuracy", f"{place}: head first leads to a better network on the target."),
        ("knows", f"{place}: head first forgets less of photographs of things (old head, new features)."),
    ):
        found, (without, with_it) = ends(column)
        told = f"Accuracy without {without}, with {with_it}: without less with {paired(*found).points()}."
        yield tested(claim, paired(*found[::-1]), told)


PANELS = (
    Panel("relative", "epoch", ("way", "rate"), each="target", curve=True),
    Panel("knows", "epoch", ("way", "rate"), each="target", curve=True),
    Panel("test_accuracy", "target", "way"),
)
CLAIM = transfer.claim(_settings, _findings, PANELS, measure=_measure)
