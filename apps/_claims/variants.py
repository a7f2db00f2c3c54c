"""ResNet-A, B, C and D: what is read of the input, what it costs, what it gains."""

import dataclasses
import statistics

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.verdicts import above, exactly, interval, paired

# What each differs in from B; C alone and D alone stand on A.
KNOBS = {
    "A": {"stride_on": "1x1"},
    "B": {},
    "C": {"deep_stem": True},
    "D": {"deep_stem": True, "avg_shortcut": True},
    "A + stem": {"stride_on": "1x1", "deep_stem": True},
    "A + pool": {"stride_on": "1x1", "avg_shortcut": True},
}
COLOURS = dict(zip(KNOBS, ("#c2410c", "#a16207", "#0f766e", "#1d4ed8", "#7e22ce", "#be185d")))
RATES = (0.03, 0.1, 0.3)
MOST_COST = 1.15  # of D over A, for what section 4 calls "barely"
# Top-1 on ImageNet in percent and 10^9 multiply-adds of ResNet-50 (arXiv 1812.01187 table 5).
PUBLISHED = {"A": (76.21, 3.8), "B": (76.66, 4.1), "C": (76.87, 4.3), "D": (77.16, 4.3)}


def spec(variant, depth=None):
    """Return the row of ResNet-50 in this variant, or a slim one of `depth` blocks a stage."""
    import kresnets

    # All with the same constants of the norm, so that A differs from B in the stride alone.
    row = dataclasses.replace(kresnets.SPECS["ResNet50B"], params=None, **KNOBS[variant])
    # The stem stays wider than its stage, as a share of all the cost: C is about the stem.
    slim = dict(widths=(8, 16, 32, 64), depths=(depth,) * 4, stem_width=32)
    return row if depth is None else dataclasses.replace(row, **slim)


def _settings(options, rows):
    from _claims.probes import undisturbed

    quick = options.quick
    depth = 1 if quick else 2
    kinds = ("A", "D") if quick else tuple(KNOBS)
    read = [{"part": "reading", "depth": None, "size": 224, "variant": kind} for kind in "ABCD"]
    slim = {"part": "time", "depth": depth, "size": 32, "batch": 64, "rounds": 7, "variants": [*kinds]}
    whole = {"part": "time", "depth": None, "size": 96, "batch": 4, "rounds": 5, "variants": [*"ABCD"]}
    timed = [slim, whole]
    if quick:
        read = [each | {"depth": depth, "size": 64} for each in read]
        timed = [slim | {"batch": 8, "rounds": 1}]
    timed, all_timed = undisturbed(timed, rows)
    if not all_timed:
        return timed
    network = {"part": "learning", "data": "digits", "size": 32, "depth": depth}
    networks = [network | {"variant": kind, "epochs": 1 if quick else 12} for kind in kinds]
    learned = [row for row in rows if row["part"] == "learning"]
    tried = (0.1,) if quick else RATES
    return timed + read + rates.tuned(networks, tried, options.seeds or (1 if quick else 5), learned)


def _measure(setting):
    from _claims import probes

    if setting["part"] == "time":
        rows = {variant: spec(variant, setting["depth"]) for variant in setting["variants"]}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"], steps=3)
    if setting["part"] == "reading":
        return _read(setting)
    return rates.learned(spec(setting["variant"], setting["depth"]), setting)


def _read(setting):
    """Return rows of the share of the input that is read: by each strided 1x1 convolution, and by the paths of each
    block that halves the grid."""
    import kresnets
    from _claims import probes

    row, size = spec(setting["variant"], setting["depth"]), setting["size"]
    model = probes.averaging(kresnets.build(row, input_shape=(size, size, 3)))
    counts = kresnets.summarize(model)
    costs = {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds}
    ends = {"branch": "bn3", "shortcut": "shortcut_bn", "block": "add"}
    parts = {
        f"stage{stage}_block1": {
            path: (f"stage{stage}_block1_conv1", f"stage{stage}_block1_{end}") for path, end in ends.items()
        }
        for stage in (2, 3, 4)
    }
    strided = [
        layer.name
        for layer in model.layers
        if getattr(layer, "kernel_size", None) == (1, 1) and getattr(layer, "strides", None) == (2, 2)
    ]
    parts["1x1 with stride 2"] = {name: (name, name) for name in strided if "conv" in name}
    made = []
    for block, paths in parts.items():
        for path, (first, last) in paths.items():
            seen = probes.read(model.get_layer(first).input, model.get_layer(last).output)
            made.append({"block": block, "path": path, "share": float(seen.mean())} | costs)
    return made


def shares(rows, variant, path):
    """Return the shares read where the grid is halved, one a block, by `"branch"`, `"shortcut"` or `"block"`."""
    return [row["share"] for row in rows if (row.get("path"), row.get("variant")) == (path, variant)]


def _findings(options, rows):
    return [*_read_findings(rows), *_cost_findings(options, rows), *_learning_findings(rows)]


def _read_findings(rows):
    def told(paths):
        return "; ".join(
            f"{variant}: " + ", ".join(f"{path} {statistics.mean(shares(rows, variant, path)):.2f}" for path in paths)
            for variant in "ABCD"
        )

    single = [row["share"] for row in rows if row.get("block") == "1x1 with stride 2"]
    quarter = set(single) == {0.25} and set(shares(rows, "A", "block")) == {0.25}
    lost = not any(row["variant"] == "D" for row in rows if row.get("block") == "1x1 with stride 2")
    whole = set(shares(rows, "B", "branch")) == {1.0} and set(shares(rows, "D", "shortcut")) == {1.0}
    half = {share for variant in "BC" for share in shares(rows, variant, "shortcut")} == {0.25}
    return [
        Finding(
            claim="A 1x1 convolution of stride 2 reads a quarter of its input; in A the rest is lost.",
            verdict=exactly(quarter),
            numbers=f"{len(single)} such convolutions read {', '.join(f'{s:.2f}' for s in sorted(set(single)))}; "
            f"blocks: {told(['block'])}.",
        ),
        Finding(
            claim="B's branch reads all; its shortcut and C's still read a quarter; D's shortcut reads all.",
            verdict=exactly(whole and half and lost),
            numbers=f"Shares of positions with a gradient: {told(['branch', 'shortcut'])}.",
        ),
    ]


def _cost_findings(options, rows):
    from _claims.probes import milliseconds, more_time

    costs = {row["variant"]: row["multiply_adds"] for row in rows if row["part"] == "reading"}
    ratio = costs["D"] / costs["A"]
    counted = ", ".join(f"{variant} {cost / 1e9:.3g}" for variant, cost in costs.items())
    who = "the slim D" if options.quick else "ResNet-50-D"
    found = [
        Finding(
            claim=f"{who} costs at most {MOST_COST:.2f} times the multiply-adds of A.",
            verdict=exactly(ratio <= MOST_COST),
            numbers=f"{ratio:.3f} times. 10^9 of each: {counted}.",
        )
    ]
    depth = 1 if options.quick else None
    for work in ("training", "prediction"):
        one, other = (milliseconds(rows, variant, work, depth=depth) for variant in ("D", "A"))
        ratios = [one[number] / other[number] for number in one]
        found.append(
            Finding(
                claim=f"{who} takes at most {MOST_COST:.2f} times as long as A in {work}.",
                verdict=above(interval([MOST_COST - ratio for ratio in ratios])),
                numbers=f"More time, in rounds A B A B: {more_time(ratios)}.",
            )
        )
    return found


def _learning_findings(rows):
    learned = [row for row in rows if row["part"] == "learning"]
    kinds = {row["variant"] for row in learned}
    found = []
    for one, other in (("B", "A"), ("C", "B"), ("D", "C"), ("D", "A"), ("A + stem", "A"), ("A + pool", "A")):
        if not {one, other} <= kinds:
            continue
        saved = paired(*(rates.compared(learned, "test_error", variant=kind) for kind in (other, one)))
        less = paired(*(rates.compared(learned, "test_loss", variant=kind) for kind in (other, one)))
        published = PUBLISHED[one][0] - PUBLISHED[other][0] if one in PUBLISHED else None
        there = "" if published is None else f" On ImageNet with 50 layers: {published:+.2f} points."
        found.append(
            Finding(
                claim=f"{one} makes fewer errors than {other} on images it has not seen.",
                verdict=above(saved),
                numbers=f"Test error, {other} less {one}: {saved.text(' points', 2, 100)}; test loss: "
                f"{less.text(digits=4)}.{there}",
            )
        )
    return found


def _draw(options, rows, path):
    import kresnets
    from _claims.probes import milliseconds
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    learned = [row for row in rows if row["part"] == "learning"]
    depth = learned[0]["depth"]
    for variant in dict.fromkeys(row["variant"] for row in learned):
        errors = [100 * error for error in rates.compared(learned, "test_error", variant=variant).values()]
        cost = kresnets.summarize(kresnets.build(spec(variant, depth), input_shape=(32, 32, 3))).multiply_adds / 1e6
        times = milliseconds(rows, variant, "training", depth=depth)
        colour = COLOURS[variant]
        for axis, x in ((left, cost), (middle, statistics.median(times.values()))):
            axis.plot([x] * len(errors), errors, ".", color=colour, alpha=0.5)
            axis.plot(x, statistics.mean(errors), "o", color=colour, markersize=9, label=variant)
    left.set(title="a large dot: mean of the seeds", xlabel="10^6 multiply-adds", ylabel="test error, percent")
    middle.set(title="the same against time", xlabel="milliseconds a training step")
    left.legend(frameon=False)
    for place, part in enumerate(("branch", "shortcut", "block")):
        heights = [100 * statistics.mean(shares(rows, variant, part)) for variant in "ABCD"]
        shade = ("#1d4ed8", "#93c5fd", "#334155")[place]
        right.bar([n + 0.27 * (place - 1) for n in range(4)], heights, 0.25, color=shade, label=part)
    right.set(
        title="where the grid is halved", ylabel="input that is read, percent", xticks=range(4), xticklabels="ABCD"
    )
    right.set_ylim(0, 128)
    right.set_yticks([0, 25, 50, 75, 100])
    right.legend(frameon=False, ncols=3, loc="upper center", fontsize=9)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="ResNet-A throws three quarters of its input away where the grid is halved; B, C and D each help, for little",
    source="arXiv 1812.01187 section 4, figures 1 and 2, table 5",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
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
