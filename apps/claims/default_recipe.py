"""The grid by which the default recipe is chosen, and the cells by which the chosen one is judged against its peers."""

import math
import time

import numpy as np
from scipy import stats

from claims import cells, peers, transfer, tuned, ways
from claims.claim import Claim, Finding, Panel
from claims.judge import UNDECIDED, above, exactly, mean_of, paired, pick, worst
from claims.ways import cell_of

METRICS = {"test_accuracy": "accuracy", "test_auc": "AUC"}
BETTER, FINALISTS = 5, 2  # ways that go on to more seeds, and to the larger cells
CHEAP = ("regression", "regression, all", "head alone")  # peers that cost next to nothing
TO_REACH = {75: (0.835, 0.905), 250: (0.855, 0.92), 806: (0.90, 0.94)}  # accuracy and AUC on elpv/mono
_TAUGHT_SEEDS = 3  # with the trunk that is taught here, and the ways that are cheap or came near


def _settings(options, rows):
    if options.quick:
        small = {"network": "SmallResNet20", "trunk": "none", "dtype": "float32"}
        faces = {name: ways.PEERS[name] for name in CHEAP[:2]} | {"fastai": ways.PEERS["fastai"] | {"epochs": 1}}
        wanted = _in(cells.QUICK[:1], {"start": {"steps": 2}, "regression": ways.PEERS["regression"]}, 0, **small)
        return wanted + _in(cells.QUICK[1:], faces, 0, **small)
    if options.data == "judge":
        return _judge_settings(range(options.seeds or 5), rows)
    return _choose_settings(range(options.seeds or 3), rows)


def _choose_settings(seeds, rows):
    """All ways once in the small cells, then the better ones with all seeds, then the best few in the large cells."""
    small, large = cells.CHOOSE[:2], cells.CHOOSE[2:]
    cheap = {name: ways.PEERS[name] for name in CHEAP}
    wanted = _in(small, cheap | ways.WAYS, seeds[0])
    half = _best(rows, ways.WAYS, small, seeds[:1], BETTER)
    if half is None:
        return wanted
    wanted += [one for seed in seeds[1:] for one in _in(small, cheap | half, seed)]
    finalists = _best(rows, half, small, seeds, FINALISTS)
    if finalists is None:
        return wanted
    *long, longest = ways.LONG.items()
    for seed in seeds:
        wanted += _in(large, cheap | finalists | dict(long) | dict([longest] * (seed == seeds[0])), seed)
    return wanted


def _judge_settings(seeds, rows):
    compared, wanted = {ways.CHOSEN: None} | ways.PEERS, [cells.lesson(ways.DTYPE)]
    for seed in seeds:
        those = {way: fields for way, fields in compared.items() if seed < ways.FEWER.get(way, len(seeds))}
        wanted += _in(cells.JUDGE, those, seed, judged=True)
        scratch = ways.SCRATCH_IN if seed < ways.FEWER["from scratch"] else ways.SCRATCH_IN[:1]
        wanted += _in(scratch, ways.SCRATCH, seed, judged=True, trunk="none")
        if pick(rows, task="teach") and seed < _TAUGHT_SEEDS:
            few = {way: those[way] for way in (ways.CHOSEN, *CHEAP, "everything at once") if way in those}
            wanted += _in(cells.TAUGHT, few, seed, judged=True, network=transfer.PUPIL, trunk=cells.CIFAR)
    return wanted


def _in(where, compared, seed, judged=False, **network):
    pairs = [(way, fields, cell) for way, fields in compared.items() for cell in where]
    return [ways.setting_of(*pair, seed, judged, **network) for pair in pairs]


def _best(rows, compared, where, seeds, count):
    """Return the best `count` of some ways by these seeds, by the last weights; None before all are measured."""
    there = {(row["way"], cell_of(row), row["seed"]) for row in rows}
    if not all((way, cell, seed) in there for way in compared for cell in where for seed in seeds):
        return None
    found = measured([row for row in rows if row["seed"] in seeds])
    means = {
        way: score(metrics for (cell, _), metrics in found[way, "last"].items() if cell in where) for way in compared
    }
    return {way: ways.WAYS[way] for way in sorted(means, key=means.get, reverse=True)[:count]}


def _measure(setting, kept):
    # Five digits are more than any test part tells; what is no number any more is None.
    short = lambda value: round(float(value), 5) if math.isfinite(value) else None
    if setting["task"] == "teach":
        rows, told = cells.teach(setting, kept), {}
    else:
        pictures = cells.draw(cell_of(setting), setting["seed"], setting["judged"])
        model = cells.network(setting, pictures.classes, kept)
        began = time.perf_counter()
        own = {"default": tuned.by_default, "recipe": tuned.tuned, "regression": peers.regressed}
        rows = own.get(setting["rule"], peers.ruled)(model, setting, pictures)
        majority = float(np.bincount(pictures.test_labels).max() / len(pictures.test_labels))
        told = {"majority": majority, "whole_seconds": time.perf_counter() - began}
    return [{n: short(v) if isinstance(v, float) else v for n, v in (row | told).items()} for row in rows]


def measured(rows):
    """Return dict (way, the weights that it keeps) -> (cell, network) -> metric -> seed -> number."""
    found = {}
    for row in pick(rows, task="tune"):
        places = found.setdefault((row["way"], row["keep"]), {})
        metrics = places.setdefault((cell_of(row), row["network"]), {metric: {} for metric in METRICS})
        for metric, seeds in metrics.items():
            seeds[row["seed"]] = row[metric]
    return found


def score(places):
    """Return the mean over places and seeds of half accuracy, half AUC."""
    return float(np.mean([np.mean([list(seeds.values()) for seeds in metrics.values()]) for metrics in places]))


def kept_of(way):
    """Return which weights a way is judged with."""
    return ways.PEERS_KEEP.get(way, "last")


def _is_judged(row):
    return row["task"] == "tune" and row["keep"] == kept_of(row["way"])


def _findings(options, rows):
    if options.data != "judge" or options.quick:
        yield _chosen(measured(rows))
        return
    theirs = {way: places for (way, keep), places in measured(rows).items() if keep == kept_of(way)}
    ours = theirs.pop(ways.CHOSEN)
    yield from (_in_the_mean(ours, theirs, metric) for metric in METRICS)
    for at in dict.fromkeys((cell_of(row), row["network"]) for row in pick(rows, task="tune")):
        yield _in_a_cell(at, ours[at], {way: places[at] for way, places in theirs.items() if at in places})
    judged = pick(rows, task="tune", way=ways.CHOSEN, keep="last")
    below = [row for row in judged if row["test_accuracy"] < row["majority"]]
    claim = "No run of the default is below the share of the largest class."
    yield Finding(claim, exactly(bool(judged) and not below), f"{len(below)} of {len(judged)} runs are.")
    for n, least in TO_REACH.items():
        found = [list(seeds.values()) for seeds in ours[cells.Cell("elpv/mono", n, 128), "ResNet50Thin"].values()]
        means = np.mean(found, 1)
        claim = f"elpv/mono, {n} images: accuracy {least[0]} and AUC {least[1]}, in the mean of the seeds."
        told = f"{means[0]:.3f} and {means[1]:.3f} ({len(found[0])} seeds)."
        yield Finding(claim, exactly(bool((means >= least).all())), told)


def _name(cell, network):
    return f"{cell.target} {cell.n}" + " (trained here)" * (network == transfer.PUPIL)


def _chosen(found):
    """Tell all ways, the best first, each with the weights that suit it best in the cells where it was measured."""
    told = []
    for way in dict.fromkeys(way for way, _ in found):
        scores = {keep: score(places.values()) for (one, keep), places in found.items() if one == way}
        keep = max(scores, key=scores.get)
        places = {at: [np.mean(list(seeds.values())) for seeds in m.values()] for at, m in found[way, keep].items()}
        each = ", ".join(f"{_name(*at)} {'/'.join(f'{mean:.3f}' for mean in means)}" for at, means in places.items())
        told.append((len(places), scores[keep], f"{way} (keeps {keep}): {each}"))
    numbers = "Accuracy/AUC, means over the seeds. " + "; ".join(text for *_, text in sorted(told, reverse=True)) + "."
    return Finding("All ways that were asked for were measured.", exactly(bool(told)), numbers)


def _in_the_mean(ours, theirs, metric):
    """Test that the chosen way is a point above every peer, in the mean over the cells where both were measured."""
    gaps = {
        peer: mean_of([(ours[at][metric], metrics[metric]) for at, metrics in places.items()])
        for peer, places in theirs.items()
    }
    return Finding(
        f"The default is above every peer by a point of {METRICS[metric]} or more, in the mean over the cells.",
        worst(above(gap, 0.01) for gap in gaps.values()),
        f"Over {'; '.join(f'{peer} {gap.points()}' for peer, gap in gaps.items())}.",
    )


def _in_a_cell(at, ours, theirs):
    """Test that the chosen way is not below the best peer, by dicts metric -> seed -> number."""
    told, verdicts = [], []
    for metric, name in METRICS.items():
        means = {peer: np.mean(list(metrics[metric].values())) for peer, metrics in theirs.items()}
        best = max(means, key=means.get)
        gap = paired(ours[metric], theirs[best][metric])
        error = stats.sem(gap.values) if len(gap.values) > 1 else None
        unsure = error is None and gap.mean < 0
        verdicts.append(UNDECIDED if unsure else exactly(gap.mean >= -2 * (error or 0)))
        apart = f"{100 * gap.mean:+.1f} points, " + ("one seed" if error is None else f"SE {100 * error:.1f}")
        told.append(f"{name} {np.mean(list(ours[metric].values())):.3f}, best peer {best} {means[best]:.3f} ({apart})")
    claim = f"{_name(*at)}: the default is not below the best peer by more than two standard errors."
    return Finding(claim, worst(verdicts), "; ".join(told) + ".")


CLAIM = Claim(
    settings=_settings,
    measure=_measure,
    findings=_findings,
    panels=(Panel("test_accuracy", "way", ("target", "n", "network"), _is_judged),),
    committed=True,
    data=("judge",),
)
