"""ResNet-A, B, C and D: what is read of the input, what it costs, what it gains."""

import dataclasses
import statistics

import kresnets
from claims import probes, scratch
from claims.claim import Claim, Finding, Panel, by_part, grid
from claims.judge import above, exactly, interval, pick, tested

# What each differs in from B; C alone and D alone stand on A.
KNOBS = {
    "A": {"stride_on": "1x1"},
    "B": {},
    "C": {"deep_stem": True},
    "D": {"deep_stem": True, "avg_shortcut": True},
    "A + stem": {"stride_on": "1x1", "deep_stem": True},
    "A + pool": {"stride_on": "1x1", "avg_shortcut": True},
}
MOST_COST = 1.15  # of D over A, for what section 4 calls "barely"
PUBLISHED = {"A": 76.21, "B": 76.66, "C": 76.87, "D": 77.16}  # top-1 of ResNet-50 in percent (1812.01187 table 5)
POINTWISE = "1x1 with stride 2"


def spec(variant, depth=None):
    """Return the row of ResNet-50 in this variant, or a slim one of `depth` blocks a stage."""
    # All with the same constants of the norm, so that A differs from B in the stride alone.
    row = dataclasses.replace(kresnets.SPECS["ResNet50B"], params=None, **KNOBS[variant])
    # The stem stays wider than its stage, as a share of all the cost: C is about the stem.
    slim = dict(widths=(8, 16, 32, 64), depths=(depth,) * 4, stem_width=32)
    return row if depth is None else dataclasses.replace(row, **slim)


def _settings(options, rows):
    quick = options.quick
    depth, kinds, rates = (1, ("A", "D"), (0.1,)) if quick else (2, tuple(KNOBS), (0.03, 0.1, 0.3))
    read = {"depth": 1, "size": 64} if quick else {"depth": None, "size": 224}
    slim = {"part": "time", "depth": depth, "size": 32, "batch": 64, "rounds": 7, "variants": [*kinds]}
    whole = {"part": "time", "depth": None, "size": 96, "batch": 4, "rounds": 5, "variants": [*"ABCD"]}
    learner = {"part": "learning", "data": "digits", "size": 32, "depth": depth}
    networks = grid(**learner, variant=kinds, epochs=1 if quick else 12)

    def others():
        return grid(part="reading", **read, variant=[*"ABCD"]) + scratch.tuned(networks, rates, options.count(5), rows)

    return probes.undisturbed([slim | {"batch": 8, "rounds": 1}] if quick else [slim, whole], rows, others)


def _times(setting):
    return probes.times(setting, {variant: spec(variant, setting["depth"]) for variant in setting["variants"]})


def _read(setting):
    """Return rows of the share of the input that is read: by the paths of each block that halves the grid, and by each
    strided 1x1 convolution."""
    shape = (setting["size"], setting["size"], 3)
    model = probes.averaging(kresnets.build(spec(setting["variant"], setting["depth"]), input_shape=shape))
    counts = kresnets.summarize(model)
    ends = {"branch": "bn3", "shortcut": "shortcut_bn", "block": "add"}
    blocks = [f"stage{stage}_block1" for stage in (2, 3, 4)]
    parts = [(block, path, f"{block}_conv1", f"{block}_{end}") for block in blocks for path, end in ends.items()]
    for layer in model.layers:
        strided = (getattr(layer, "kernel_size", None), getattr(layer, "strides", None)) == ((1, 1), (2, 2))
        if strided and "conv" in layer.name:
            parts.append((POINTWISE, layer.name, layer.name, layer.name))
    costs = {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds}
    share = lambda first, last: probes.read(model.get_layer(first).input, model.get_layer(last).output).mean()
    return [{"block": block, "path": path, "share": float(share(*ends))} | costs for block, path, *ends in parts]


def shares(rows, variant, path):
    """Return the shares read where the grid is halved, one a block, by `"branch"`, `"shortcut"` or `"block"`."""
    return [row["share"] for row in pick(rows, path=path, variant=variant)]


def _findings(options, rows):
    def told(*paths):
        each = {v: [f"{path} {statistics.mean(shares(rows, v, path)):.2f}" for path in paths] for v in "ABCD"}
        return "; ".join(f"{variant}: {', '.join(found)}" for variant, found in each.items())

    single = pick(rows, block=POINTWISE)
    values = sorted({row["share"] for row in single})
    claim = "A 1x1 convolution of stride 2 reads a quarter of its input; in A the rest is lost."
    numbers = f"{len(single)} such convolutions read {', '.join(f'{value:.2f}' for value in values)}; "
    holds = values == [0.25] and set(shares(rows, "A", "block")) == {0.25}
    yield Finding(claim, exactly(holds), numbers + f"blocks: {told('block')}.")
    claim = "B's branch reads all; its shortcut and C's still read a quarter; D's shortcut reads all."
    whole = set(shares(rows, "B", "branch") + shares(rows, "D", "shortcut")) == {1.0}
    quarter = set(shares(rows, "B", "shortcut") + shares(rows, "C", "shortcut")) == {0.25}
    numbers = f"Shares of positions with a gradient: {told('branch', 'shortcut')}."
    yield Finding(claim, exactly(whole and quarter and not pick(single, variant="D")), numbers)
    costs = {row["variant"]: row["multiply_adds"] for row in pick(rows, part="reading")}
    ratio = costs["D"] / costs["A"]
    counted = ", ".join(f"{variant} {cost / 1e9:.3g}" for variant, cost in costs.items())
    who, depth = ("the slim D", 1) if options.quick else ("ResNet-50-D", None)
    claim = f"{who} costs at most {MOST_COST:.2f} times the multiply-adds of A."
    yield Finding(claim, exactly(ratio <= MOST_COST), f"{ratio:.3f} times. 10^9 of each: {counted}.")
    for work in ("training", "prediction"):
        found = probes.ratios(probes.milliseconds, "DA", rows, work, depth=depth)
        claim = f"{who} takes at most {MOST_COST:.2f} times as long as A in {work}."
        verdict = above(interval([MOST_COST - ratio for ratio in found.values()]))
        yield Finding(claim, verdict, f"More time, in rounds A B A B: {probes.more_time(found)}.")
    kinds = {row["variant"] for row in pick(rows, part="learning")}
    for one, other in (("B", "A"), ("C", "B"), ("D", "C"), ("D", "A"), ("A + stem", "A"), ("A + pool", "A")):
        if {one, other} <= kinds:
            saved, numbers = scratch.saved(rows, "variant", one, other)
            if one in PUBLISHED:
                numbers += f" On ImageNet with 50 layers: {PUBLISHED[one] - PUBLISHED[other]:+.2f} points."
            yield tested(f"{one} makes fewer errors than {other} on images it has not seen.", saved, numbers)


PANELS = (
    Panel("test_error", "variant"),
    Panel("ms", "network", ("work", "depth")),
    Panel("share", "variant", "path", {"block": "stage2_block1"}),
)
_measure = by_part(time=_times, reading=_read, learning=scratch.learner(spec, "variant", "depth"))
CLAIM = Claim(_settings, _measure, _findings, PANELS)
