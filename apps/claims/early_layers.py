"""What each group of a trunk gains by its own thawing, how far it is moved, and how far what it learned carries."""

import re

import numpy as np

import kresnets
from claims import transfer
from claims.claim import Finding, Panel
from claims.judge import exactly, gap, mean, paired, pick, tested
from claims.transfer import DIFFERENT, GROUPS, SIMILAR

THAW, KEEP = {"rate": 1e-3, "head_rate": 1e-2}, {"rate": 3e-3}


def _settings(options, rows):
    quick = options.quick
    common = {"n": 75 if quick else 250, "passes": 1 if quick else 12} | transfer.common(quick)
    # From the last one on is that one alone.
    thawed = [("head", "head"), *(("only", group) for group in GROUPS), *(("from", group) for group in GROUPS[:-1])]
    thawed = [(way, group, 1.0) for way, group in thawed] + [("from", "stem", 0.5)]
    kept = [(target, count) for target in transfer.TARGETS for count in range(len(GROUPS) + 1)]
    if quick:
        thawed, kept = [("only", "stage2", 1.0)], [(DIFFERENT, 2)]
    thaw, keep = {"task": "thaw", "target": DIFFERENT} | THAW, {"task": "keep"} | KEEP
    parts = [thaw | {"way": way, "group": group, "ratio": ratio} for way, group, ratio in thawed]
    parts += [keep | {"target": target, "groups_kept": count} for target, count in kept]
    return [common | part | {"seed": seed} for seed in range(options.count(transfer.SEEDS)) for part in parts]


def _measure(setting, target):
    build = transfer.build if setting["task"] == "thaw" else partly
    model = build(setting, target.classes)
    before, (how, groups) = _weights(model), recipe(setting)
    found = transfer.fine_tuned(model, target, how, groups=groups)
    distance = lambda one, other: float(np.linalg.norm(other - one) / np.linalg.norm(one))
    return [{"moved_group": g, "moved": distance(before[g], after)} | found for g, after in _weights(model).items()]


def learning(setting):
    """Return the groups of the trunk that learn: what is thawed (`way` is `"head"`, none; `"only"`, that group alone;
    `"from"`, all from it on), or what is not kept."""
    if setting["task"] == "keep":
        return GROUPS[setting["groups_kept"] :]
    if setting["way"] == "from":
        return GROUPS[GROUPS.index(setting["group"]) :]
    return (setting["group"],) if setting["way"] == "only" else ()


def recipe(setting):
    """Return the recipe that trains the head and what learns, and the `groups` of `kresnets.fine_tune`, which for one
    group alone are three: the rest, that group, the head."""
    passes, stages, groups, keep = setting["passes"], learning(setting)[:1], None, setting["task"] == "keep"
    # Norms of what was redrawn learn; frozen groups keep theirs. Where groups thaw the head is first in each way, or
    # what a group gains would be what a head gains by more of its own rate.
    rate, norms, first = (setting["rate"], "train", 0) if keep else (setting["head_rate"], "frozen", passes // 3)
    first = first if stages else passes
    if setting.get("way") == "only":
        stages, mine = ("alone",), re.escape(setting["group"])
        groups = {"rest": f"(?!{mine}_|head_).*", "alone": f"{mine}_.*", "head": "head_.*"}
    fields = {"stages": stages, "head_epochs": first, "epochs_per_stage": max(1, passes - first), "batchnorm": norms}
    fields |= {"learning_rate": rate, "trunk_learning_rate": setting["rate"], "ratio": setting.get("ratio", 1.0)}
    return kresnets.Recipe.textbook(**fields, augment=setting["augment"], seed=setting["seed"]), groups


def partly(setting, classes):
    """Return the network of a setting drawn anew, but for its first `groups_kept` groups, from the trunk."""
    model = transfer.build(setting | {"trunk": "none"}, classes)
    taught = kresnets.groups(transfer.build(setting, classes))
    for group in list(taught)[: setting["groups_kept"]]:
        for one, other in zip(kresnets.groups(model)[group], taught[group], strict=True):
            one.set_weights(other.get_weights())
    return model


def _weights(model):
    """Return dict group -> its weights, batch norms' statistics too, as one vector."""
    flat = lambda layers: np.concatenate([weight.ravel() for layer in layers for weight in layer.get_weights()])
    return {group: flat(layers) for group, layers in kresnets.groups(model).items()}


def before_thawing(row):
    """Whether the epoch that was kept, the best by validation, is one in which the head learned alone."""
    return row["task"] == "thaw" and row["way"] != "head" and row["best_epoch"] <= row["passes"] // 3


def _thawed(group, way="only", moved="stem", ratio=1.0):
    """Return what a row has of a run that thaws a group."""
    return {"task": "thaw", "way": way, "group": group, "moved_group": moved, "ratio": ratio}


def _kept(target, count):
    """Return what a row has of a run that keeps so many groups."""
    return {"task": "keep", "target": target, "groups_kept": count, "moved_group": "stem"}


def _findings(options, rows):
    learns = lambda row: row["moved_group"] in (*learning(row), "head")
    still = [row["moved"] for row in rows if not learns(row)]
    learned = [row["moved"] for row in rows if learns(row) and not before_thawing(row)]
    thawed = [row for row in pick(rows, task="thaw", moved_group="head") if row["way"] != "head"]
    claim = "Frozen groups do not move at all, the others do once they are unfrozen."
    told = f"The largest movement of a frozen group {max(still)}, the least of another {min(learned):.2g}. In "
    told += f"{sum(map(before_thawing, thawed))} of {len(thawed)} runs that unfreeze the best epoch by validation, "
    yield Finding(claim, exactly(max(still) == 0 and min(learned) > 0), told + "which is kept, came before.")
    if options.quick:
        return
    (stem, *_, last), count, alone = GROUPS, len(GROUPS), _thawed("head", "head")
    whole = _thawed(stem, "from")
    for claim, one, other, least in (
        *((f"Training {group} with the head beats the head alone.", _thawed(group), alone, 0) for group in GROUPS),
        ("The last stage gains more from being unfrozen than the stem.", _thawed(last), _thawed(stem), 0),
        ("Unfreezing everything beats unfreezing the last stage.", whole, _thawed(last), 0),
        ("Never training the stem and stage1 costs at most 1 point against training everything.",
         _thawed("stage2", "from"), whole, -0.01),
        ("Smaller rates for earlier layers (half of the next group's each) beat one rate.",
         whole | {"ratio": 0.5}, whole, 0),
        *((f"{target} ({like}): {claim}", _kept(target, one), _kept(target, other), least)
          for target, like in transfer.TARGETS.items()
          for claim, one, other, least in (
              ("the stem and stage1 kept frozen, the rest drawn anew, cost at most 1 point against drawing all anew.",
               2, 0, -0.01),
              ("all groups kept frozen beat drawing all anew.", count, 0, 0),
              ("the last stage drawn anew beats keeping it frozen: late groups are specific.", count - 1, count, 0),
          )),
    ):  # fmt: skip
        yield from transfer.compared(claim, "the first less the second", rows, one, other, least=least)
    gains = []  # what all groups kept bring over none, for each target
    for target in (SIMILAR, DIFFERENT):
        gain = gap(rows, "test_accuracy", _kept(target, count), _kept(target, 0))
        gains.append(dict(enumerate(gain.values)))
    more = paired(*gains)
    told = f"Test accuracy, (all kept less none) on {SIMILAR} less on {DIFFERENT}: {more.points()}."
    yield tested("Keeping all groups frozen brings more where the images are similar.", more, told)
    found = gap(rows, "moved", *(_thawed(stem, "from", moved=group) for group in (last, stem)))
    told = ", ".join(f"{g} {mean(rows, 'moved', **_thawed(stem, 'from', moved=g)):.3f}" for g in GROUPS)
    told = f"Relative L2 of the weights, {last} less stem: {found.text()}. Means: {told}."
    yield tested("Where all learn at one rate, the last stage moves further than the stem.", found, told)


PANELS = (
    Panel("test_accuracy", "group", ("way", "ratio"), {"task": "thaw", "moved_group": "stem"}),
    Panel("moved", "moved_group", ("way", "group"), lambda row: row.get("ratio") == 1 and row["moved_group"] != "head"),
    Panel("test_accuracy", "groups_kept", "target", {"task": "keep", "moved_group": "stem"}),
)
CLAIM = transfer.claim(_settings, _findings, PANELS, measure=_measure)
