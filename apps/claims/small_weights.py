"""A small trunk taught on pictures made by procedure, against none, on real pictures that are few."""

import numpy as np

import kresnets
from claims import images, runner, scratch, teach, transfer
from claims.claim import TUNING_SEED, Claim, Finding, Panel
from claims.judge import CONFIRMED, above, exactly, gap, mean, pick, worst
from kresnets._util import files

# What is carried to, and in how many sizes; the first is "few".
TARGETS = {"elpv/mono": (75, 250, "all"), "digits": (100, 300, "all"), "tiles": (65, 195, "all")}
PASSES = (40, 20, 8)
# Ways to learn, and their rates, of which each start takes its best by validation. They are the same for both: with few
# solar cells a head on a trunk that was never taught is as good as anything, so it must not pass for a gain.
WAYS = (("head", 1e-2), ("whole", 1e-3), ("whole", 3e-3), ("whole", 1e-2))
STARTS = ("scratch", "taught")
MIRRORED = ("elpv/mono", "tiles")  # what is the same thing mirrored; a digit is not
LEAST, LOSS = 0.02, 0.01  # what weights that ship gain at least with few pictures, and lose at most with more
SIFTING = 3  # seeds that tell which network is worth more of them


_LESSON = ("network", "size", "classes", "lessons", "teaching_seed")  # what says all of the weights that are taught


def _lessons(quick):
    """List what is taught, one network each."""
    taught = [("SmallResNet20", 32, 6, 1, 0)]
    if not quick:
        taught = [("SmallResNet20", 48, 200, 6, 0), ("SmallResNet18D", 64, 200, 6, 0)]
    return [dict(zip(_LESSON, each)) for each in taught]


def _settings(options, rows):
    lessons, seeds = _lessons(options.quick), options.count(5)
    wanted = [lesson | {"task": "teach", "target": None, "seed": 0} for lesson in lessons]
    if len(pick(rows, task="teach")) < len(lessons):
        return wanted
    for lesson in lessons:
        wanted += _carried(lesson, options.quick, rows, range(min(seeds, SIFTING)), sizes=2)
        # Who does not gain by few pictures need not be tried with more seeds and all pictures.
        if seeds > SIFTING and _passes_the_sift(rows, lesson["network"]):
            wanted += _carried(lesson, options.quick, rows, range(seeds), sizes=3)
    return list({tuple(setting.items()): setting for setting in wanted}.values())


def _carried(lesson, quick, rows, seeds, sizes):
    """List the settings of one network with the first so many sizes: the ways tried, then the best with all seeds."""
    wanted = []
    for target in ("digits",) if quick else TARGETS:
        for n, passes in list(zip(TARGETS[target], PASSES))[: 1 if quick else sizes]:
            cell = lesson | {"task": "carry", "target": target, "n": n, "passes": 2 if quick else passes}
            for start in STARTS:
                tried = [cell | {"start": start, "method": way, "rate": r} for way, r in (WAYS[-1:] if quick else WAYS)]
                if n != "all" and not quick:
                    wanted += [one | {"seed": TUNING_SEED} for one in tried]
                # What was best for many is tried no further for all.
                where = cell | {"start": start, "n": n if n != "all" else TARGETS[target][-2]}
                del where["passes"]
                best = tried[0] if quick else scratch.best(rows, "validation_loss", **where)
                if best is not None:
                    chosen = cell | {"start": start, "method": best["method"], "rate": best["rate"]}
                    wanted += [chosen | {"seed": seed} for seed in seeds]
    return wanted


def _trunk(setting, kept):
    """Return the file of the taught trunk, and its accuracy; teach it where it is not there."""
    lesson = {name: setting[name] for name in _LESSON}
    path = kept / f"small-{runner.key(lesson)}.weights.h5"
    accuracy = path.with_suffix(".txt")
    if not path.exists():
        name, size, classes, epochs, seed = lesson.values()
        model, found = teach.teach(name, size, epochs, seed, classes, verbose=0)
        files.write_text(accuracy, str(found))
        with files.replacing(path) as beside:
            teach.save(model, name, beside)
    return path, float(accuracy.read_text())


def _measure(setting, kept):
    path, accuracy = _trunk(setting, kept)
    if setting["task"] == "teach":
        return [{"held_out_accuracy": accuracy, "file_bytes": path.stat().st_size}]
    target = images.target(setting["target"], setting["size"], setting["n"], setting["seed"])
    weights = str(path) if setting["start"] == "taught" else None
    model = transfer.build(setting, target.classes, weights)
    return [transfer.fine_tuned(model, target, _recipe(setting))]


def _recipe(setting):
    if setting["method"] == "head":
        fields = transfer.head_alone(setting["rate"], setting["passes"])
    else:
        fields = transfer.whole(setting["rate"], setting["passes"], batchnorm="train")
    augment = "light" if setting["target"] in MIRRORED else "none"
    return kresnets.Recipe(augment=augment, seed=setting["seed"], **fields)


BOTH = {"start": "taught"}, {"start": "scratch"}


def _cells(rows, network):
    """Return the cells that are compared, as what their rows have: those with few pictures, and the others."""
    compared = [row for row in pick(rows, task="carry", network=network) if row["seed"] != TUNING_SEED]
    found = dict.fromkeys((row["target"], row["n"]) for row in compared)
    few = [(target, n) for target, n in found if n == TARGETS[target][0]]
    return [
        [{"task": "carry", "network": network, "target": target, "n": n} for target, n in part]
        for part in (few, [cell for cell in found if cell not in few])
    ]


def _gain(rows, *cells):
    """Return the `Interval` of what the taught trunk gains, in the mean over the cells."""
    return gap(rows, "test_accuracy", *BOTH, cells)


def _passes_the_sift(rows, network):
    few, _ = _cells(rows, network)
    gains = _gain(rows, *few).values[:SIFTING]  # what more seeds say later must not change it
    return len(few) == len(TARGETS) and len(gains) == SIFTING and np.mean(gains) > LEAST


def worth_shipping(rows, network):
    """Whether a network's weights should ship: a mean gain above 2 points with few images that is more than noise,
    and no loss with more, neither one that is sure nor a mean one of above 1 point; in all cells, with 5 seeds."""
    few, others = _cells(rows, network)
    enough = all(len(_gain(rows, cell).values) >= 5 for cell in few + others)
    if len(few + others) < sum(map(len, TARGETS.values())) or not enough:
        return False
    gain, rest = _gain(rows, *few), [_gain(rows, cell) for cell in others]
    helps = gain.mean > LEAST and above(gain) == CONFIRMED
    return helps and all(one.high > 0 and one.mean >= -LOSS for one in rest)


def _findings(options, rows):
    for lesson in _lessons(options.quick):
        network = lesson["network"]
        few, others = _cells(rows, network)
        gain = _gain(rows, *few)
        yield Finding(
            f"{network}: with few real images, a trunk pretrained on drawn ones gains more than 2 points over none.",
            above(gain, LEAST),
            f"Test accuracy, mean over {len(few)} targets: {gain.points()}.",
        )
        if others:
            gains = [_gain(rows, cell) for cell in others]
            unsure, cell = min(zip(gains, others), key=lambda pair: pair[0].low)
            yield Finding(
                f"{network}: with more images it loses nothing (1 point at most, in each).",
                worst(above(one, -LOSS) for one in gains),
                f"Mean {_gain(rows, *others).points()}; least sure, {cell['target']} with {cell['n']}: "
                f"{unsure.points()}.",
            )
        yield Finding(
            f"{network}: its weights are worth shipping.",
            exactly(worth_shipping(rows, network)),
            f"That asks for a mean gain of above {100 * LEAST:.0f} points with few images that is more than noise, and "
            f"with more for no loss that is sure and no mean one of above {100 * LOSS:.0f} point, with 5 seeds in all "
            "cells.",
        )
        yield from (_in_a_cell(rows, cell) for cell in few + others)


def _in_a_cell(rows, cell):
    told = []
    for start in BOTH:
        way = pick(rows, **cell, **start, seed=0)[0]
        told.append(f"{mean(rows, 'test_accuracy', **cell, **start):.3f} ({way['method']} {way['rate']:g})")
    gain = _gain(rows, cell)
    claim = f"{cell['network']}, {cell['target']}, {cell['n']} images: the pretrained trunk is better than none."
    return Finding(claim, above(gain), f"{told[0]} against {told[1]}: {gain.points()}.")


CLAIM = Claim(
    settings=_settings,
    measure=_measure,
    findings=_findings,
    panels=(Panel("test_accuracy", ("target", "n"), "start", each="network"),),
    data=(),
)
