"""A small trunk taught on pictures made by procedure, against none, on real pictures that are few."""

import os

import numpy as np

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import CONFIRMED, above, everywhere, exactly, interval

# What is carried to, and in how many sizes; the first is "few".
TARGETS = {
    "elpv/mono": (75, 250, "all"),
    "digits": (100, 300, "all"),
    "tiles": (65, 195, "all"),
}
PASSES = (40, 20, 8)
# Ways to learn, and their rates, of which each start takes its best by validation. They are the same for both: with few
# solar cells a head on a trunk that was never taught is as good as anything, so it must not pass for a gain.
WAYS = (("head", 1e-2), ("whole", 1e-3), ("whole", 3e-3), ("whole", 1e-2))
STARTS = ("scratch", "taught")
COLOURS = {"scratch": "#c2410c", "taught": "#1d4ed8"}
MIRRORED = ("elpv/mono", "tiles")  # what is the same thing mirrored; a digit is not
LEAST, LOSS = 0.02, 0.01  # what weights that ship gain at least with few pictures, and lose at most with more
SIFTING = 3  # seeds that tell which network is worth more of them


def _lessons(quick):
    """List what is taught, one network each: the settings that say all of its weights."""
    if quick:
        return [{"network": "SmallResNet20", "size": 32, "classes": 6, "lessons": 1, "teaching_seed": 0}]
    return [
        {"network": network, "size": size, "classes": 200, "lessons": 6, "teaching_seed": 0}
        for network, size in (("SmallResNet20", 48), ("SmallResNet18D", 64))
    ]


def _settings(options, rows):
    lessons, seeds = _lessons(options.quick), options.seeds or (1 if options.quick else 5)
    wanted = [lesson | {"task": "teach", "target": None, "seed": 0} for lesson in lessons]
    if len([row for row in rows if row["task"] == "teach"]) < len(lessons):
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
            tuned_at = n if n != "all" else TARGETS[target][-2]  # what was best for many is tried no further for all
            for start in STARTS:
                ways = WAYS[-1:] if quick else WAYS
                mine = [cell | {"start": start, "method": way, "rate": rate} for way, rate in ways]
                trials = [one | {"seed": rates.TUNING_SEED} for one in mine]
                if n != "all" and not quick:
                    wanted += trials
                best = mine[0] if quick else _best(rows, lesson["network"], target, tuned_at, start)
                if best is not None:
                    chosen = cell | {"start": start} | {key: best[key] for key in ("method", "rate")}
                    wanted += [chosen | {"seed": seed} for seed in seeds]
    return wanted


def _best(rows, network, target, n, start):
    """Return the trial with the least validation loss, or None as long as not all are there."""
    where = {"task": "carry", "network": network, "target": target, "n": n, "start": start, "seed": rates.TUNING_SEED}
    trials = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    return min(trials, key=lambda row: row["validation_loss"]) if len(trials) == len(WAYS) else None


def _trunk(setting, kept):
    """Return the file of the taught trunk; teach it where it is not there."""
    from _claims import runner, teach

    lesson = {name: setting[name] for name in _lessons(quick=True)[0]}
    path = kept / f"small-{runner.key(lesson)}.weights.h5"
    accuracy = path.with_suffix(".txt")
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        model, found = teach.teach(
            lesson["network"], lesson["size"], lesson["lessons"], lesson["teaching_seed"], lesson["classes"], verbose=0
        )
        accuracy.write_text(str(found))
        beside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        teach.save(model, beside)
        beside.replace(path)
    return path, float(accuracy.read_text())


def _measure(setting, kept):
    import kresnets

    path, accuracy = _trunk(setting, kept)
    if setting["task"] == "teach":
        return [{"held_out_accuracy": accuracy, "file_bytes": path.stat().st_size}]
    pictures = transfer.data(setting["target"], setting["size"], setting["n"], setting["seed"])
    weights = str(path) if setting["start"] == "taught" else None
    model = transfer.build(setting, len(pictures.class_names), weights)
    augment = "light" if setting["target"] in MIRRORED else "none"
    return [transfer.fine_tuned(model, pictures, _recipe(kresnets.Recipe, setting, augment))]


def _recipe(recipe, setting, augment):
    passes, rate, seed = setting["passes"], setting["rate"], setting["seed"]
    if setting["method"] == "head":
        return recipe(head_epochs=passes, stages=(), learning_rate=rate, augment=augment, seed=seed)
    rest = dict(epochs_per_stage=passes, trunk_learning_rate=rate, ratio=1.0, batchnorm="train")
    return recipe(head_epochs=0, stages=("stem",), augment=augment, seed=seed, **rest)


def _gains(rows, network, target, n):
    """Return dict seed -> test accuracy with the taught trunk less that without."""
    where = dict(task="carry", network=network, target=target, n=n)
    scratch, taught = (rates.compared(rows, "test_accuracy", start=start, **where) for start in STARTS)
    return {seed: taught[seed] - scratch[seed] for seed in sorted(taught.keys() & scratch.keys())}


def _gain(rows, network, target, n):
    return interval(_gains(rows, network, target, n).values())


def _cells(rows, network):
    """Return the cells `(target, n)` that are compared: those with few pictures, and the others."""
    found = dict.fromkeys(
        (row["target"], row["n"])
        for row in rows
        if row["task"] == "carry" and row["network"] == network and row["seed"] != rates.TUNING_SEED
    )
    few = [(target, n) for target, n in found if n == TARGETS[target][0]]
    return few, [cell for cell in found if cell not in few]


def _mean_gain(rows, network, cells):
    """Return the `Interval` of the mean gain over cells, of the seeds that all have."""
    gains = [_gains(rows, network, *cell) for cell in cells]
    seeds = set.intersection(*map(set, gains)) if gains else ()
    return interval([np.mean([gain[seed] for gain in gains]) for seed in sorted(seeds)])


def _passes_the_sift(rows, network):
    few, _ = _cells(rows, network)
    gains = _mean_gain(rows, network, few).values[:SIFTING]  # what more seeds say later must not change it
    return len(few) == len(TARGETS) and len(gains) == SIFTING and np.mean(gains) > LEAST


def worth_shipping(rows, network):
    """Whether a network's weights should ship: a mean gain above 2 points with few images that is more than noise,
    and no loss with more, neither one that is sure nor a mean one of above 1 point; in all cells, with 5 seeds."""
    few, others = _cells(rows, network)
    if (
        len(few + others) < sum(map(len, TARGETS.values()))
        or min(len(_gains(rows, network, *c)) for c in few + others) < 5
    ):
        return False
    gain, rest = _mean_gain(rows, network, few), [_gain(rows, network, *cell) for cell in others]
    helps = gain.mean > LEAST and above(gain) == CONFIRMED
    return helps and all(one.high > 0 and one.mean >= -LOSS for one in rest)


def _findings(options, rows):
    return [found for lesson in _lessons(options.quick) for found in _findings_of(rows, lesson["network"])]


def _findings_of(rows, network):
    few, others = _cells(rows, network)
    gain = _mean_gain(rows, network, few)
    found = [
        Finding(
            claim=f"{network}: with few real images, a trunk pretrained on drawn ones gains more than 2 points over "
            "none.",
            verdict=above(gain, LEAST),
            numbers=f"Test accuracy, mean over {len(few)} targets: {gain.text(' points', 1, 100)}.",
        )
    ]
    if others:
        gains = {cell: _gain(rows, network, *cell) for cell in others}
        worst = min(others, key=lambda cell: gains[cell].low)
        found.append(
            Finding(
                claim=f"{network}: with more images it loses nothing (1 point at most, in each).",
                verdict=everywhere(gains.values(), -LOSS),
                numbers=f"Mean {_mean_gain(rows, network, others).text(' points', 1, 100)}; "
                f"least sure, {worst[0]} with "
                f"{worst[1]}: {gains[worst].text(' points', 1, 100)}.",
            )
        )
    found.append(
        Finding(
            claim=f"{network}: its weights are worth shipping.",
            verdict=exactly(worth_shipping(rows, network)),
            numbers=f"That asks for a mean gain of above {100 * LEAST:.0f} points with few images that is more than "
            "noise, "
            f"and with more for no loss that is sure and no mean one of above {100 * LOSS:.0f} point, with 5 seeds in "
            "all cells.",
        )
    )
    return found + [_finding_of(rows, network, *cell) for cell in few + others]


def _finding_of(rows, network, target, n):
    where, told = dict(task="carry", network=network, target=target, n=n), {}
    for start in STARTS:
        way = next(row for row in rows if (where | {"start": start, "seed": 0}).items() <= row.items())
        mean = rates.mean(rows, "test_accuracy", start=start, **where)
        told[start] = f"{mean:.3f} ({way['method']} {way['rate']:g})"
    gain = _gain(rows, network, target, n)
    return Finding(
        claim=f"{network}, {target}, {n} images: the pretrained trunk is better than none.",
        verdict=above(gain),
        numbers=f"{told['taught']} against {told['scratch']}: {gain.text(' points', 1, 100)}.",
    )


def _draw(options, rows, path):
    from kresnets.report import figures

    networks = [lesson["network"] for lesson in _lessons(options.quick)]
    made = figures.figure(1100, 380 * len(networks) + 40, layout="constrained")
    for axis, network in zip(np.ravel(made.subplots(len(networks), sharey=True)), networks):
        cells = sorted(sum(_cells(rows, network), []), key=lambda cell: list(TARGETS).index(cell[0]))
        for place, (target, n) in enumerate(cells):
            for shift, (start, colour) in enumerate(COLOURS.items()):
                where = dict(task="carry", network=network, target=target, n=n, start=start)
                values = list(rates.compared(rows, "test_accuracy", **where).values())
                at = place + 0.25 * (shift - 0.5)
                axis.plot([at] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
                axis.plot(at, np.mean(values), "s", color=colour, label=None if place else start)
        axis.set_xticks(range(len(cells)), [f"{target}\n{n}" for target, n in cells], fontsize=figures.TEXT - 3)
        axis.set_ylabel("test accuracy")
        axis.set_title(network)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    made.legend(*axis.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figures.save(made, path)


def _cost(setting):
    if setting["task"] == "teach":
        return 400.0
    return 6.0 + 0.0015 * setting["passes"] * (1000 if setting["n"] == "all" else setting["n"])


CLAIM = Claim(
    title="a small trunk pretrained on pictures made by procedure helps where real ones are few",
    source="after 2101.08515 (pre-training without natural images); pictures of `_claims/procedural.py`",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=_cost,
    keeps=True,
    data=(),
    notes=(
        "The trunks are SmallResNet20 at 48 pixels and SmallResNet18D at 64, each trained on 200 drawn classes in 6 "
        "epochs of new pictures. Both starts learn with `kresnets.fine_tune`, the same passes, and the best epoch by "
        "validation; each takes the best of four ways (the head alone, all at three rates) by the validation loss "
        "of one more seed, for all images that of the size before. A head on a trunk that was never trained counts as "
        "from scratch. Three seeds at the two smaller sizes sift: only a network that gains above 2 points by few "
        "images goes on to five seeds and all images (--seeds 3 sifts alone). The three are among the five: that "
        "flatters what went on by a little.",
    ),
)
