"""ResNet-A, B, C and D: what is read of the input, what it costs, what it gains."""

import dataclasses
import statistics

import kresnets
from claims import plots, probes, rates
from claims.claim import Claim, Finding
from claims.probes import milliseconds, more_time, ratios, undisturbed
from claims.results import gap, pick
from claims.verdicts import above, exactly, interval

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
# Top-1 on ImageNet in percent and 10^9 multiply-adds of ResNet-50 (arXiv 1812.01187 table 5).
PUBLISHED = {"A": (76.21, 3.8), "B": (76.66, 4.1), "C": (76.87, 4.3), "D": (77.16, 4.3)}
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
    depth, kinds = (1, ("A", "D")) if quick else (2, tuple(KNOBS))
    read = [
        {"part": "reading", "depth": depth if quick else None, "size": 64 if quick else 224, "variant": kind}
        for kind in "ABCD"
    ]
    slim = {"part": "time", "depth": depth, "size": 32, "batch": 64, "rounds": 7, "variants": [*kinds]}
    whole = {"part": "time", "depth": None, "size": 96, "batch": 4, "rounds": 5, "variants": [*"ABCD"]}
    timed, all_timed = undisturbed([slim | {"batch": 8, "rounds": 1}] if quick else [slim, whole], rows)
    if not all_timed:
        return timed
    network = {"part": "learning", "data": "digits", "size": 32, "depth": depth}
    networks = [network | {"variant": kind, "epochs": 1 if quick else 12} for kind in kinds]
    return timed + read + rates.tuned(networks, (0.1,) if quick else (0.03, 0.1, 0.3), options.count(5), rows)


def _measure(setting):
    if setting["part"] == "time":
        rows = {variant: spec(variant, setting["depth"]) for variant in setting["variants"]}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"])
    if setting["part"] == "reading":
        return _read(setting)
    return rates.learned(spec(setting["variant"], setting["depth"]), setting)


def _read(setting):
    """Return rows of the share of the input that is read: by the paths of each block that halves the grid, and by each
    strided 1x1 convolution."""
    shape = (setting["size"], setting["size"], 3)
    model = probes.averaging(kresnets.build(spec(setting["variant"], setting["depth"]), input_shape=shape))
    counts = kresnets.summarize(model)
    costs = {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds}
    ends = {"branch": "bn3", "shortcut": "shortcut_bn", "block": "add"}
    blocks = [f"stage{stage}_block1" for stage in (2, 3, 4)]
    parts = [(block, path, f"{block}_conv1", f"{block}_{end}") for block in blocks for path, end in ends.items()]
    for layer in model.layers:
        strided = (getattr(layer, "kernel_size", None), getattr(layer, "strides", None)) == ((1, 1), (2, 2))
        if strided and "conv" in layer.name:
            parts.append((POINTWISE, layer.name, layer.name, layer.name))
    return [
        {"block": block, "path": path, "share": float(probes.read(model.get_layer(a).input, model.get_layer(z).output)
                                                      .mean())} | costs
        for block, path, a, z in parts
    ]  # fmt: skip


def shares(rows, variant, path):
    """Return the shares read where the grid is halved, one a block, by `"branch"`, `"shortcut"` or `"block"`."""
    return [row["share"] for row in pick(rows, path=path, variant=variant)]


def _findings(options, rows):
    def told(*paths):
        each = {v: [f"{path} {statistics.mean(shares(rows, v, path)):.2f}" for path in paths] for v in "ABCD"}
        return "; ".join(f"{variant}: {', '.join(found)}" for variant, found in each.items())

    single = pick(rows, block=POINTWISE)
    values = sorted({row["share"] for row in single})
    yield Finding(
        "A 1x1 convolution of stride 2 reads a quarter of its input; in A the rest is lost.",
        exactly(values == [0.25] and set(shares(rows, "A", "block")) == {0.25}),
        f"{len(single)} such convolutions read {', '.join(f'{value:.2f}' for value in values)}; "
        f"blocks: {told('block')}.",
    )
    whole = set(shares(rows, "B", "branch") + shares(rows, "D", "shortcut")) == {1.0}
    quarter = set(shares(rows, "B", "shortcut") + shares(rows, "C", "shortcut")) == {0.25}
    yield Finding(
        "B's branch reads all; its shortcut and C's still read a quarter; D's shortcut reads all.",
        exactly(whole and quarter and not pick(single, variant="D")),
        f"Shares of positions with a gradient: {told('branch', 'shortcut')}.",
    )
    yield from _costs(options, rows)
    kinds = {row["variant"] for row in pick(rows, part="learning")}
    for one, other in (("B", "A"), ("C", "B"), ("D", "C"), ("D", "A"), ("A + stem", "A"), ("A + pool", "A")):
        if {one, other} <= kinds:
            saved, less = (gap(rows, c, {"variant": other}, {"variant": one}) for c in ("test_error", "test_loss"))
            numbers = f"Test error, {other} less {one}: {saved.points(2)}; test loss: {less.text(digits=4)}."
            if one in PUBLISHED:
                numbers += f" On ImageNet with 50 layers: {PUBLISHED[one][0] - PUBLISHED[other][0]:+.2f} points."
            yield Finding(f"{one} makes fewer errors than {other} on images it has not seen.", above(saved), numbers)


def _costs(options, rows):
    costs = {row["variant"]: row["multiply_adds"] for row in pick(rows, part="reading")}
    ratio = costs["D"] / costs["A"]
    counted = ", ".join(f"{variant} {cost / 1e9:.3g}" for variant, cost in costs.items())
    who, depth = ("the slim D", 1) if options.quick else ("ResNet-50-D", None)
    yield Finding(
        f"{who} costs at most {MOST_COST:.2f} times the multiply-adds of A.",
        exactly(ratio <= MOST_COST),
        f"{ratio:.3f} times. 10^9 of each: {counted}.",
    )
    for work in ("training", "prediction"):
        found = ratios(milliseconds, "DA", rows, work, depth=depth)
        yield Finding(
            f"{who} takes at most {MOST_COST:.2f} times as long as A in {work}.",
            above(interval([MOST_COST - ratio for ratio in found.values()])),
            f"More time, in rounds A B A B: {more_time(found)}.",
        )


CLAIM = Claim(
    title="ResNet-A throws three quarters of its input away where the grid is halved; B, C and D each help, for little",
    source="arXiv 1812.01187 section 4, figures 1 and 2, table 5",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=plots.panels(
        plots.Panel("test_error", "variant"),
        plots.Panel("ms", "network", ("work", "depth")),
        plots.Panel("share", "variant", "path", {"block": "stage2_block1"}),
    ),
    data=(),
    cost=lambda setting: {"time": 5.0, "reading": 0.4, "learning": 1.0}[setting["part"]],
    notes=(
        "What learns is a slim ResNet-50: half of its blocks, an eighth of its widths, a stem of half its width, 32x32 "
        "pixels; each variant at its own best rate of the same few (by the training loss of one more seed). Times are "
        "measured with no other run beside.",
        "B moves the stride from the first 1x1 to the 3x3, C has three 3x3 for the stem's 7x7, D pools before the "
        "shortcut's 1x1.",
        "The paper's top-1 on ImageNet, 50 layers: "
        + ", ".join(f"{variant} {top} % at {cost}e9 multiply-adds" for variant, (top, cost) in PUBLISHED.items())
        + ".",
    ),
)
