"""What each group of a trunk gains by its own thawing, how far it is moved, and how far what it learned carries."""

import re

import numpy as np

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import above, exactly, paired

GROUPS = ("stem", "stage1", "stage2", "stage3")
COLOURS = {"only": "#c2410c", "from": "#1d4ed8", "elpv/poly": "#1d4ed8", "digits": "#c2410c", "none": "#15803d"}
RATE = {"thaw": 1e-3, "keep": 3e-3}
HEAD_RATE = 3e-2  # at which the head alone did best in freeze-or-finetune, 250 pictures


def _settings(options, rows):
    quick = options.quick
    common = {"n": 75 if quick else 250, "passes": 1 if quick else 12} | transfer.network(quick)
    near, far = transfer.SOURCES
    if quick:
        thawed, kept = [(far, "only", "stage2")], [(far, 2)]
    else:
        thawed = [(near, "head", "head")] + [(near, way, group) for way in ("only", "from") for group in GROUPS]
        thawed.remove((near, "from", "stage3"))  # is "only stage3"
        kept = [("none", 0)] + [(source, count) for source in (near, far) for count in range(1, len(GROUPS) + 1)]
    parts = [{"task": "thaw", "source": source, "way": way, "group": group} for source, way, group in thawed]
    parts += [{"task": "keep", "source": source, "groups_kept": count} for source, count in kept]
    rated = {"thaw": {"rate": RATE["thaw"], "head_rate": HEAD_RATE}, "keep": {"rate": RATE["keep"]}}
    wanted = [
        common | part | rated[part["task"]] | {"seed": seed}
        for seed in range(options.seeds or (1 if quick else 3))
        for part in parts
    ]
    return transfer.with_lessons(wanted, rows, quick)


def _measure(setting, kept):
    if setting["task"] == "teach":
        return transfer.teach(setting, kept)
    pictures = transfer.data(transfer.TARGET, setting["size"], setting["n"], setting["seed"])
    classes = len(pictures.class_names)
    path = transfer.trunk(setting, kept)
    if setting["task"] == "thaw":
        model = transfer.build(setting, classes, path)
        recipe, groups = thawing(setting)
    else:
        model = partly(setting, classes, path)
        recipe, groups = keeping(setting), None
    before = _weights(model)
    found = transfer.fine_tuned(model, pictures, recipe, groups=groups)
    moved = {group: _distance(before[group], weights) for group, weights in _weights(model).items()}
    return [{"moved_group": group, "moved": distance} | found for group, distance in moved.items()]


def thawing(setting):
    """Return the recipe, and the `groups` for `kresnets.fine_tune`, that train the head and what a setting thaws.

    `way` is `"head"` (nothing), `"only"` (that group alone) or `"from"` (that group and all behind it). For one group
    alone the model is told as three: the rest, that group, the head.
    """
    import kresnets

    ways = {"head": (), "only": ("alone",), "from": (setting["group"],)}
    stages, passes = ways[setting["way"]], setting["passes"]
    # The head first in each way, or what a group gains would be what a head gains by more of its own rate.
    first = passes // 3 if stages else passes
    recipe = kresnets.Recipe.textbook(
        stages=stages,
        head_epochs=first,
        epochs_per_stage=max(1, passes - first),
        learning_rate=setting["head_rate"],
        trunk_learning_rate=setting["rate"],
        ratio=1.0,
        augment=setting["augment"],
        seed=setting["seed"],
    )
    if setting["way"] != "only":
        return recipe, None
    mine = re.escape(setting["group"])
    return recipe, {"rest": f"(?!{mine}_|head_).*", "alone": f"{mine}_.*", "head": "head_.*"}


def keeping(setting):
    """Return the recipe that freezes the groups that a setting keeps, and trains the others, which were redrawn."""
    import kresnets

    count, fields = setting["groups_kept"], {"head_epochs": 0, "epochs_per_stage": setting["passes"]}
    stages = GROUPS[count : count + 1]
    return kresnets.Recipe.textbook(
        stages=stages,
        learning_rate=setting["rate"],
        trunk_learning_rate=setting["rate"],
        ratio=1.0,
        batchnorm="train",  # of what was redrawn: frozen groups keep theirs
        augment=setting["augment"],
        seed=setting["seed"],
        **(fields if stages else {"head_epochs": setting["passes"]}),
    )


def partly(setting, classes, path):
    """Return the network of a setting drawn anew, but for its first `groups_kept` groups, from the trunk's file."""
    import kresnets

    if path is None:
        return transfer.build(setting, classes)
    taught = kresnets.groups(transfer.build(setting, classes, path))
    model = transfer.build(setting, classes)
    for group in GROUPS[: setting["groups_kept"]]:
        for one, other in zip(kresnets.groups(model)[group], taught[group], strict=True):
            one.set_weights(other.get_weights())
    return model


def _weights(model):
    """Return dict group -> its weights, batch norms' statistics too, as one vector."""
    import kresnets

    return {
        group: np.concatenate([weight.ravel() for layer in layers for weight in layer.get_weights()])
        for group, layers in kresnets.groups(model).items()
    }


def _distance(before, after):
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def _thawed(rows, column, way, group, moved="stem"):
    """Return dict seed -> number of a run that thaws; from the last stage on is that stage alone."""
    way = "only" if (way, group) == ("from", GROUPS[-1]) else way
    return rates.compared(rows, column, task="thaw", way=way, group=group, moved_group=moved)


def _kept(rows, column, source, count):
    source = source if count else "none"
    return rates.compared(rows, column, task="keep", source=source, groups_kept=count, moved_group="stem")


def frozen(row):
    """Whether the group of a row, of how far it moved, was frozen."""
    place = [*GROUPS, "head"].index(row["moved_group"])
    if row["moved_group"] == "head":
        return False
    if row["task"] == "keep":
        return place < row["groups_kept"]
    if row["way"] == "only":
        return row["moved_group"] != row["group"]
    return row["way"] == "head" or place < GROUPS.index(row["group"])


def before_thawing(row):
    """Whether the epoch that was kept, the best by validation, is one in which the head learned alone."""
    return row["task"] == "thaw" and row["way"] != "head" and row["best_epoch"] <= row["passes"] // 3


def _findings(options, rows):
    carried = [row for row in rows if row["task"] != "teach"]
    still = [row["moved"] for row in carried if frozen(row)]
    learned = [row["moved"] for row in carried if not frozen(row) and not before_thawing(row)]
    thawed = [row for row in carried if row["task"] == "thaw" and row["way"] != "head" and row["moved_group"] == "head"]
    early = sum(map(before_thawing, thawed))
    findings = [
        Finding(
            claim="Frozen groups do not move at all, the others do once they are unfrozen.",
            verdict=exactly(max(still) == 0 and min(learned) > 0),
            numbers=f"The largest movement of a frozen group {max(still)}, the least of another {min(learned):.2g}. In "
            f"{early} of {len(thawed)} runs that unfreeze the best epoch by validation, which is kept, came before.",
        )
    ]
    return findings if options.quick else findings + _of_thawing(rows) + _of_keeping(rows)


def _of_thawing(rows):
    head = _thawed(rows, "test_accuracy", "head", "head")
    gains = {group: paired(_thawed(rows, "test_accuracy", "only", group), head) for group in GROUPS}
    findings = [
        Finding(
            claim=f"Training {group} with the head beats the head alone.",
            verdict=above(gain),
            numbers=f"Test accuracy: {gain.text(' points', 1, 100)}; AUC: "
            f"{paired(_thawed(rows, 'test_auc', 'only', group), _thawed(rows, 'test_auc', 'head', 'head')).text()}.",
        )
        for group, gain in gains.items()
    ]
    last, first = (_thawed(rows, "test_accuracy", "only", group) for group in ("stage3", "stem"))
    gap = paired(last, first)
    findings.append(
        Finding(
            claim="The last stage gains more from being unfrozen than the stem.",
            verdict=above(gap),
            numbers=f"Test accuracy, head and stage3 less head and stem: {gap.text(' points', 1, 100)}.",
        )
    )
    gap = paired(_thawed(rows, "test_accuracy", "from", "stem"), _thawed(rows, "test_accuracy", "from", "stage3"))
    findings.append(
        Finding(
            claim="Unfreezing everything beats unfreezing the last stage.",
            verdict=above(gap),
            numbers=f"Test accuracy, all less stage3 and head: {gap.text(' points', 1, 100)}.",
        )
    )
    moved = {group: _thawed(rows, "moved", "from", "stem", moved=group) for group in GROUPS}
    gap = paired(moved["stage3"], moved["stem"])
    told = ", ".join(f"{group} {np.mean(list(found.values())):.3f}" for group, found in moved.items())
    findings.append(
        Finding(
            claim="Where all learn at one rate, the last stage moves further than the stem.",
            verdict=above(gap),
            numbers=f"Relative L2 of the weights, stage3 less stem: {gap.text()}. Means: {told}.",
        )
    )
    return findings


def _of_keeping(rows):
    near, far = transfer.SOURCES
    said = [
        ("Keeping the stem and stage1 of the different source, frozen, costs at most 1 point against drawing all anew.",
         (far, 2), (far, 0), -0.01),
        ("All groups of the different source, frozen, are worse than its stem alone: late groups are specific.",
         (far, 1), (far, 4), 0.0),
        ("With all groups kept and frozen, the similar source is better than the different one.",
         (near, 4), (far, 4), 0.0),
        ("With the stem and stage1 kept and frozen, the similar source is better than the different one.",
         (near, 2), (far, 2), 0.0),
    ]  # fmt: skip
    findings = []
    for claim, one, other, least in said:
        gap, area = (
            paired(_kept(rows, column, *one), _kept(rows, column, *other)) for column in ("test_accuracy", "test_auc")
        )
        findings.append(
            Finding(
                claim=claim,
                verdict=above(gap, least),
                numbers=f"Test accuracy, the first less the second: {gap.text(' points', 1, 100)}; AUC: {area.text()}.",
            )
        )
    return findings


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    for way, name in (("only", "head and that group"), ("from", "head and from it on")):
        _line(left, [_thawed(rows, "test_accuracy", way, group) for group in GROUPS], COLOURS[way], name)
    head = _thawed(rows, "test_accuracy", "head", "head")
    if head:
        left.axhline(np.mean(list(head.values())), color="#6b7280", linestyle="--", label="head only")
    left.set(title="what is thawed", ylabel="test accuracy (seeds and mean)")
    _line(
        middle,
        [_thawed(rows, "moved", "from", "stem", moved=group) for group in GROUPS],
        COLOURS["from"],
        "all at one rate",
    )
    _line(
        middle,
        [_thawed(rows, "moved", "only", group, moved=group) for group in GROUPS],
        COLOURS["only"],
        "that group alone",
    )
    middle.set(title="how far weights move", ylabel="relative L2")
    for source, distance in transfer.SOURCES.items():
        _line(
            right,
            [_kept(rows, "test_accuracy", source, count) for count in range(5)],
            COLOURS[source],
            f"{distance} source",
        )
    right.set(title="kept and frozen up to", ylabel="test accuracy")
    for axis, names in ((left, GROUPS), (middle, GROUPS), (right, ("none", *GROUPS))):
        axis.set_xticks(range(len(names)), names)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    figures.save(made, path)


def _line(axis, cells, colour, label):
    """Draw the seeds of each cell as dots, and a line through the means of those that are there."""
    there = [(place, list(found.values())) for place, found in enumerate(cells) if found]
    for place, values in there:
        axis.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.5)
    if there:
        axis.plot(
            [place for place, _ in there], [np.mean(values) for _, values in there], "-", color=colour, label=label
        )


CLAIM = Claim(
    title="early layers are general and gain little from being unfrozen, late ones are specific to their task",
    source="arXiv 1411.1792; arXiv 1801.06146 section 3.1",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=lambda setting: 40.0 if setting["task"] == "teach" else 13.0,
    keeps=True,
    data=(),
    notes=(
        transfer.NOTE,
        "250 images of the target, 12 passes. What is unfrozen: from the similar source, 4 passes of the head alone at "
        "0.03, then 8 at 0.001 of all that learns (the head alone: 12 at 0.03); batch norms frozen. What is kept: the "
        "first groups of the trunk, frozen; the others are drawn "
        "anew and learn at 0.003 with their batch norms.",
    ),
)
