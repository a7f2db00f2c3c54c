"""What each group of a trunk gains by its own thawing, how far it is moved, and how far what it learned carries."""

import re

import numpy as np

import kresnets
from claims import transfer
from claims.claim import Finding, Panel
from claims.judge import above, exactly, gap, mean, pick

# The head's rate is the one at which it did best alone in freeze-or-finetune, 250 pictures.
THAW, KEEP = {"rate": 1e-3, "head_rate": 3e-2}, {"rate": 3e-3}


def _settings(options, rows, trunk):
    quick, groups = options.quick, trunk.groups
    common = {"n": 75 if quick else 250, "passes": 1 if quick else 12} | trunk.part(quick)
    sources = list(trunk.sources)
    thawed = [(sources[0], "head", "head")] + [(sources[0], way, group) for way in ("only", "from") for group in groups]
    thawed.pop()  # from the last one on is that one alone
    kept = [("none", 0)] + [(source, count) for source in sources for count in range(1, len(groups) + 1)]
    if quick:
        thawed, kept = [(sources[-1], "only", "stage2")], [(sources[-1], 2)]
    parts = [{"task": "thaw", "source": source, "way": way, "group": group} | THAW for source, way, group in thawed]
    parts += [{"task": "keep", "source": source, "groups_kept": count} | KEEP for source, count in kept]
    return [common | part | {"seed": seed} for seed in range(options.count(trunk.seeds)) for part in parts]


def _measure(setting, target, weights):
    build = transfer.build if setting["task"] == "thaw" else partly
    model = build(setting, target.classes, weights)
    before, (how, groups) = _weights(model), recipe(setting)
    found = transfer.fine_tuned(model, target, how, groups=groups)
    distance = lambda one, other: float(np.linalg.norm(other - one) / np.linalg.norm(one))
    return [{"moved_group": g, "moved": distance(before[g], after)} | found for g, after in _weights(model).items()]


def learning(setting):
    """Return the groups of the trunk that learn: what is thawed (`way` is `"head"`, none; `"only"`, that group alone;
    `"from"`, all from it on), or what is not kept."""
    groups = transfer.TRUNKS["imagenet" if "network" in setting else None].groups
    if setting["task"] == "keep":
        return groups[setting["groups_kept"] :]
    if setting["way"] == "from":
        return groups[groups.index(setting["group"]) :]
    return (setting["group"],) if setting["way"] == "only" else ()


def recipe(setting):
    """Return the recipe that trains the head and what learns, and the `groups` of `kresnets.fine_tune`, which for one
    group alone are three: the rest, that group, the head."""
    fields = {"trunk_learning_rate": setting["rate"], "augment": setting["augment"], "seed": setting["seed"]}
    passes, stages, groups = setting["passes"], learning(setting)[:1], None
    if setting["task"] == "keep":
        # Norms of what was redrawn learn; frozen groups keep theirs.
        fields |= {"learning_rate": setting["rate"], "batchnorm": "train"}
        first = 0 if stages else passes
    else:
        # The head first in each way, or what a group gains would be what a head gains by more of its own rate.
        fields |= {"learning_rate": setting["head_rate"]}
        first = passes // 3 if stages else passes
        if setting["way"] == "only":
            stages, mine = ("alone",), re.escape(setting["group"])
            groups = {"rest": f"(?!{mine}_|head_).*", "alone": f"{mine}_.*", "head": "head_.*"}
    fields |= {"stages": stages, "head_epochs": first, "epochs_per_stage": max(1, passes - first)}
    return kresnets.Recipe.textbook(ratio=1.0, **fields), groups


def partly(setting, classes, weights):
    """Return the network of a setting drawn anew, but for its first `groups_kept` groups, from the trunk's weights."""
    if weights is None:
        return transfer.build(setting, classes)
    taught = kresnets.groups(transfer.build(setting, classes, weights))
    model = transfer.build(setting, classes)
    for group in list(taught)[: setting["groups_kept"]]:
        for one, other in zip(kresnets.groups(model)[group], taught[group], strict=True):
            one.set_weights(other.get_weights())
    return model


def _weights(model):
    """Return dict group -> its weights, batch norms' statistics too, as one vector."""
    return {
        group: np.concatenate([weight.ravel() for layer in layers for weight in layer.get_weights()])
        for group, layers in kresnets.groups(model).items()
    }


def frozen(row):
    """Whether the group of a row, of how far it moved, was frozen."""
    return row["moved_group"] not in (*learning(row), "head")


def before_thawing(row):
    """Whether the epoch that was kept, the best by validation, is one in which the head learned alone."""
    return row["task"] == "thaw" and row["way"] != "head" and row["best_epoch"] <= row["passes"] // 3


HEAD = {"task": "thaw", "way": "head", "moved_group": "stem"}


def _thawed(group, way="only", moved="stem"):
    """Return what a row has of a run that thaws a group."""
    return {"task": "thaw", "way": way, "group": group, "moved_group": moved}


def _kept(source, count):
    """Return what a row has of a run that keeps so many groups."""
    return {"task": "keep", "source": source if count else "none", "groups_kept": count, "moved_group": "stem"}


def _findings(options, rows):
    trunk = transfer.TRUNKS[options.data]
    carried = [row for row in rows if row["task"] != "teach"]
    still = [row["moved"] for row in carried if frozen(row)]
    learned = [row["moved"] for row in carried if not frozen(row) and not before_thawing(row)]
    thawed = [row for row in pick(rows, task="thaw", moved_group="head") if row["way"] != "head"]
    yield Finding(
        "Frozen groups do not move at all, the others do once they are unfrozen.",
        exactly(max(still) == 0 and min(learned) > 0),
        f"The largest movement of a frozen group {max(still)}, the least of another {min(learned):.2g}. In "
        f"{sum(map(before_thawing, thawed))} of {len(thawed)} runs that unfreeze the best epoch by validation, which "
        "is kept, came before.",
    )
    if options.quick:
        return
    stem, last, count = trunk.groups[0], trunk.groups[-1], len(trunk.groups)
    near, far = list(trunk.sources)[0], list(trunk.sources)[-1]
    unlike = trunk.sources[far]
    said = [
        *((f"Training {group} with the head beats the head alone.", _thawed(group), HEAD, 0)
          for group in trunk.groups),
        ("The last stage gains more from being unfrozen than the stem.", _thawed(last), _thawed(stem), 0),
        ("Unfreezing everything beats unfreezing the last stage.", _thawed(stem, "from"), _thawed(last), 0),
        (f"Keeping the stem and stage1 of the {unlike} source, frozen, costs at most 1 point against drawing all anew.",
         _kept(far, 2), _kept(far, 0), -0.01),
        (f"All groups of the {unlike} source, frozen, are worse than its stem alone: late groups are specific.",
         _kept(far, 1), _kept(far, count), 0),
    ]  # fmt: skip
    if near != far:
        said += [
            (f"With {what} kept and frozen, the {trunk.sources[near]} source is better than the {unlike} one.",
             _kept(near, number), _kept(far, number), 0)
            for what, number in (("all groups", count), ("the stem and stage1", 2))
        ]  # fmt: skip
    for claim, one, other, least in said:
        yield from transfer.compared(claim, "the first less the second", rows, one, other, least=least)
    found = gap(rows, "moved", *(_thawed(stem, "from", moved=group) for group in (last, stem)))
    told = ", ".join(f"{g} {mean(rows, 'moved', **_thawed(stem, 'from', moved=g)):.3f}" for g in trunk.groups)
    yield Finding(
        "Where all learn at one rate, the last stage moves further than the stem.",
        above(found),
        f"Relative L2 of the weights, {last} less stem: {found.text()}. Means: {told}.",
    )


CLAIM = transfer.claim(
    settings=_settings,
    measure=_measure,
    findings=_findings,
    panels=(
        Panel("test_accuracy", "group", "way", {"task": "thaw", "moved_group": "stem"}),
        Panel("moved", "moved_group", ("way", "group"), {"task": "thaw"}),
        Panel("test_accuracy", "groups_kept", "source", {"task": "keep", "moved_group": "stem"}),
    ),
)
