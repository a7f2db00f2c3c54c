"""The cells by which the default recipe is judged against its peers."""

import math
import time

import numpy as np
from scipy import stats

from claims import cells, peers, transfer
from claims.cells import cell_of
from claims.claim import Claim, Finding, Panel
from claims.judge import UNDECIDED, above, exactly, mean_of, paired, pick, worst

METRICS = {"test_accuracy": "accuracy", "test_auc": "AUC"}
CHEAP = ("regression", "regression, all", "head alone")  # peers that cost next to nothing
TO_REACH = {75: (0.835, 0.905), 250: (0.855, 0.92), 806: (0.90, 0.94)}  # accuracy and AUC on elpv/mono
_TAUGHT_SEEDS = 3  # with the trunk that is taught here, and the ways that are cheap or came near


def _settings(options, rows):
    if options.quick:
        one, two = cells.QUICK
        few = {name: cells.PEERS[name] for name in CHEAP[:2]} | {"fastai": cells.PEERS["fastai"] | {"epochs": 1}}
        some = {"from scratch": cells.SCRATCH["from scratch"] | {"steps": 2}, "regression": cells.PEERS["regression"]}
        small = {"network": "SmallResNet20", "trunk": "none", "dtype": "float32"}
        return _in([one], some, 0, **small) + _in([two], few, 0, **small)
    seeds, wanted = range(options.seeds or 5), [cells.lesson(cells.DTYPE)]
    for seed in seeds:
        compared = {cells.CHOSEN: None} | cells.PEERS
        those = {way: fields for way, fields in compared.items() if seed < cells.FEWER.get(way, len(seeds))}
        wanted += _in(cells.JUDGE, those, seed)
        scratch = cells.SCRATCH_IN if seed < cells.FEWER["from scratch"] else cells.SCRATCH_IN[:1]
        wanted += _in(scratch, cells.SCRATCH, seed, trunk="none")
        if pick(rows, task="teach") and seed < _TAUGHT_SEEDS:
            few = {way: those[way] for way in (cells.CHOSEN, *CHEAP, "everything at once") if way in those}
            wanted += _in(cells.TAUGHT, few, seed, network=transfer.PUPIL, trunk=cells.CIFAR)
    return wanted


def _in(where, compared, seed, **network):
    return [cells.setting_of(way, fields, cell, seed, **network) for way, fields in compared.items() for cell in where]


def _measure(setting, kept):
    # Five digits are more than any test part tells; what is no number any more is None.
    short = lambda value: round(float(value), 5) if math.isfinite(value) else None
    if setting["task"] == "teach":
        rows, told = cells.teach(setting, kept), {}
    else:
        pictures = cells.draw(cell_of(setting), setting["seed"])
        model = cells.network(setting, pictures.classes, kept)
        began = time.perf_counter()
        own = {"default": peers.by_default, "recipe": peers.tuned, "regression": peers.regressed}
        rows = own.get(setting["rule"], peers.ruled)(model, setting, pictures)
        majority = float(np.bincount(pictures.test_labels).max() / len(pictures.test_labels))
        told = {"majority": majority, "whole_seconds": time.perf_counter() - began}
    return [{n: short(v) if isinstance(v, float) else v for n, v in (row | told).items()} for row in rows]


def _is_judged(row):
    return row["task"] == "tune" and row["keep"] == cells.PEERS_KEEP.get(row["way"], "last")


def measured(rows):
    """Return dict way -> (cell, network) -> metric -> seed -> number, of the weights that a way is judged with."""
    found = {}
    for row in filter(_is_judged, rows):
        places = found.setdefault(row["way"], {})
        metrics = places.setdefault((cell_of(row), row["network"]), {metric: {} for metric in METRICS})
        for metric, seeds in metrics.items():
            seeds[row["seed"]] = row[metric]
    return found


def _findings(options, rows):
    theirs = measured(rows)
    if options.quick:
        ways_told = "; ".join(f"{way} in {len(places)}" for way, places in theirs.items())
        yield Finding("All ways that were asked for were measured.", exactly(bool(theirs)), f"Cells: {ways_told}.")
        return
    ours = theirs.pop(cells.CHOSEN)
    yield from (_in_the_mean(ours, theirs, metric) for metric in METRICS)
    for at in dict.fromkeys((cell_of(row), row["network"]) for row in pick(rows, task="tune")):
        yield _in_a_cell(at, ours[at], {way: places[at] for way, places in theirs.items() if at in places})
    judged = pick(rows, task="tune", way=cells.CHOSEN, keep="last")
    below = [row for row in judged if row["test_accuracy"] < row["majority"]]
    claim = "No run of the default is below the share of the largest class."
    yield Finding(claim, exactly(bool(judged) and not below), f"{len(below)} of {len(judged)} runs are.")
    for n, least in TO_REACH.items():
        found = [list(seeds.values()) for seeds in ours[cells.Cell("elpv/mono", n, 128), "ResNet50Thin"].values()]
        means = np.mean(found, 1)
        claim = f"elpv/mono, {n} images: accuracy {least[0]} and AUC {least[1]}, in the mean of the seeds."
        told = f"{means[0]:.3f} and {means[1]:.3f} ({len(found[0])} seeds)."
        yield Finding(claim, exactly(bool((means >= least).all())), told)


def _in_the_mean(ours, theirs, metric):
    """Test that the chosen way is a point above every peer, in the mean over the cells where both were measured."""
    pairs = lambda places: [(ours[at][metric], metrics[metric]) for at, metrics in places.items()]
    gaps = {peer: mean_of(pairs(places)) for peer, places in theirs.items()}
    claim = f"The default is above every peer by a point of {METRICS[metric]} or more, in the mean over the cells."
    told = f"Over {'; '.join(f'{peer} {gap.points()}' for peer, gap in gaps.items())}."
    return Finding(claim, worst(above(gap, 0.01) for gap in gaps.values()), told)


def _in_a_cell(at, ours, theirs):
    """Test that the chosen way is not below the best peer, by dicts metric -> seed -> number."""
    told, verdicts, (cell, network) = [], [], at
    for metric, name in METRICS.items():
        means = {peer: np.mean(list(metrics[metric].values())) for peer, metrics in theirs.items()}
        best = max(means, key=means.get)
        gap = paired(ours[metric], theirs[best][metric])
        error = stats.sem(gap.values) if len(gap.values) > 1 else None
        unsure = error is None and gap.mean < 0
        verdicts.append(UNDECIDED if unsure else exactly(gap.mean >= -2 * (error or 0)))
        apart = f"{100 * gap.mean:+.1f} points, " + ("one seed" if error is None else f"SE {100 * error:.1f}")
        told.append(f"{name} {np.mean(list(ours[metric].values())):.3f}, best peer {best} {means[best]:.3f} ({apart})")
    place = f"{cell.target} {cell.n}" + " (trained here)" * (network == transfer.PUPIL)
    claim = f"{place}: the default is not below the best peer by more than two standard errors."
    return Finding(claim, worst(verdicts), "; ".join(told) + ".")


PANELS = (Panel("test_accuracy", "way", ("target", "n", "network"), _is_judged),)
CLAIM = Claim(_settings, _measure, _findings, PANELS)
