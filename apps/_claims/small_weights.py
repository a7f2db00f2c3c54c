"""A small trunk taught on pictures made by procedure, against none, on real pictures that are few."""

import numpy as np

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import CONFIRMED, above, everywhere, interval, paired

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
LEAST = 0.02  # mean gain at few pictures from which on the weights are worth shipping


def _lesson(quick):
    if quick:
        return {"network": "CifarResNet20", "size": 32, "classes": 6, "lessons": 1, "teaching_seed": 0}
    return {"network": "CifarResNet20", "size": 48, "classes": 200, "lessons": 6, "teaching_seed": 0}


def _settings(options, rows):
    lesson, quick = _lesson(options.quick), options.quick
    wanted = [lesson | {"task": "teach", "target": None, "seed": 0}]
    if not rows:
        return wanted
    seeds = range(options.seeds or (1 if quick else 3))
    targets = {"digits": TARGETS["digits"]} if quick else TARGETS
    for target, sizes in targets.items():
        # With 3 seeds it is sifted: who does not gain by few pictures need not be tried with all.
        for n, passes in zip(sizes[:1] if quick else sizes if len(seeds) >= 5 else sizes[:2], PASSES):
            cell = lesson | {"task": "carry", "target": target, "n": n, "passes": 2 if quick else passes}
            tuned_at = n if n != "all" else sizes[-2]  # what was best for many is tried no further for all
            for start in STARTS:
                ways = WAYS[-1:] if quick else WAYS
                mine = [cell | {"start": start, "method": way, "rate": rate} for way, rate in ways]
                trials = [one | {"seed": rates.TUNING_SEED} for one in mine]
                if n != "all" and not quick:
                    wanted += trials
                best = mine[0] if quick else _best(rows, target, tuned_at, start)
                if best is not None:
                    chosen = cell | {"start": start} | {key: best[key] for key in ("method", "rate")}
                    wanted += [chosen | {"seed": seed} for seed in seeds]
    return wanted


def _best(rows, target, n, start):
    """Return the trial with the least validation loss, or None as long as not all are there."""
    where = {"task": "carry", "target": target, "n": n, "start": start, "seed": rates.TUNING_SEED}
    trials = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    return min(trials, key=lambda row: row["validation_loss"]) if len(trials) == len(WAYS) else None


def _trunk(setting, kept):
    """Return the file of the taught trunk; teach it where it is not there."""
    from _claims import runner, teach

    lesson = {name: setting[name] for name in _lesson(quick=False)}
    path = kept / f"small-{runner.key(lesson)}.weights.h5"
    accuracy = path.with_suffix(".txt")
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        model, found = teach.teach(
            lesson["network"], lesson["size"], lesson["lessons"], lesson["teaching_seed"], lesson["classes"], verbose=0
        )
        accuracy.write_text(str(found))
        beside = path.with_name(f".tmp-{path.name}")
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


def _gain(rows, target, n, column="test_accuracy"):
    ends = (rates.compared(rows, column, task="carry", target=target, n=n, start=start) for start in STARTS)
    scratch, taught = ends
    return paired(taught, scratch)


def _cells(rows):
    found = dict.fromkeys(
        (row["target"], row["n"]) for row in rows if row["task"] == "carry" and row["seed"] != rates.TUNING_SEED
    )
    return list(found)


def _findings(options, rows):
    cells = _cells(rows)
    few = [(target, n) for target, n in cells if n == TARGETS[target][0]]

    def mean_gain(chosen):
        gaps = [dict(enumerate(_gain(rows, *cell).values)) for cell in chosen]
        return interval([np.mean([gap[seed] for gap in gaps]) for seed in gaps[0]])

    whole, others = mean_gain(few), [cell for cell in cells if cell not in few]
    found = [
        Finding(
            claim="With few real pictures, a trunk taught on drawn ones gains more than 2 points over none.",
            verdict=above(whole, LEAST),
            numbers=f"Test accuracy, mean over {len(few)} targets: {whole.text(' points', 1, 100)}.",
        )
    ]
    if others:
        rest = mean_gain(others)
        gains = {cell: _gain(rows, *cell) for cell in others}
        worst = min(others, key=lambda cell: gains[cell].low)
        lost = gains[worst]
        found.append(
            Finding(
                claim="With more pictures it loses nothing (1 point at most, in each).",
                verdict=everywhere(gains.values(), -0.01),
                numbers=f"Mean {rest.text(' points', 1, 100)}; least sure, {worst[0]} with {worst[1]}: "
                f"{lost.text(' points', 1, 100)}.",
            )
        )
    for target, n in cells:
        gain = _gain(rows, target, n)
        ways = {
            start: rates.mean(rows, "test_accuracy", task="carry", target=target, n=n, start=start) for start in STARTS
        }
        where = {"task": "carry", "target": target, "n": n, "seed": 0}
        by = {
            start: next(
                f"{row['method']} {row['rate']:g}" for row in rows if (where | {"start": start}).items() <= row.items()
            )
            for start in STARTS
        }
        found.append(
            Finding(
                claim=f"{target}, {n} pictures: the taught trunk is better than none.",
                verdict=above(gain),
                numbers=f"{ways['taught']:.3f} ({by['taught']}) against {ways['scratch']:.3f} ({by['scratch']}): {gain.text(' points', 1, 100)}.",
            )
        )
    return found


def worth_shipping(findings):
    """Whether the weights should ship: a gain at few pictures, and nothing lost elsewhere."""
    return all(found.verdict == CONFIRMED for found in findings[:2])


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    axis, cells = made.subplots(), _cells(rows)
    for place, (target, n) in enumerate(cells):
        for shift, (start, colour) in enumerate(COLOURS.items()):
            where = dict(task="carry", target=target, n=n, start=start)
            values = list(rates.compared(rows, "test_accuracy", **where).values())
            at = place + 0.25 * (shift - 0.5)
            axis.plot([at] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
            axis.plot(at, np.mean(values), "s", color=colour, label=None if place else start)
    axis.set_xticks(range(len(cells)), [f"{target}\n{n}" for target, n in cells], fontsize=figures.TEXT - 3)
    axis.set_ylabel("test accuracy")
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside upper right", ncols=2, frameon=False)
    figures.save(made, path)


def _cost(setting):
    if setting["task"] == "teach":
        return 300.0
    return 6.0 + 0.0015 * setting["passes"] * (1000 if setting["n"] == "all" else setting["n"])


CLAIM = Claim(
    title="a small trunk taught on pictures made by procedure helps where real ones are few",
    source="after 2101.08515 (pre-training without natural images); pictures of `_claims/procedural.py`",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=_cost,
    keeps=True,
    data=(),
    notes=(
        "The trunk is CifarResNet20 with a stride in its first stage, at 48 pixels, taught 200 drawn classes with new "
        "pictures in each epoch. Both starts learn with `kresnets.fine_tune`, the same passes, and the best epoch by "
        "validation; each takes the best of four ways (the head alone, all at three rates) by the validation loss "
        "of one more seed, for all pictures that of the size before. A head on a trunk that was never taught counts as "
        "from scratch. With fewer than 5 seeds all pictures are not tried (--seeds 5 does).",
    ),
)
