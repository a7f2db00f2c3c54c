"""Two 3x3 on C channels against a bottleneck on 4C: what they cost, what they take, what they learn."""

import dataclasses
import statistics

import numpy as np

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.degradation import spec as cifar
from _claims.verdicts import above, exactly, interval, paired

KINDS = {"basic": "#c2410c", "bottleneck": "#1d4ed8"}
WEIGHTS = {"basic": 9 + 9, "bottleneck": 4 + 9 + 4}  # of a block, in C^2: what figure 5 says
LAYERS = {"basic": 2, "bottleneck": 3}
CHANNELS = (16, 32, 64)
RATES = (0.03, 0.1, 0.3)
# Top-1 error on ImageNet in percent, 10 crops (arXiv 1512.03385 table 3).
PUBLISHED = {"ResNet-34 (B), basic": 24.52, "ResNet-50, bottleneck": 22.85}


def stack(kind, channels, blocks):
    """Return a row of equal blocks: basic ones on `channels`, or bottlenecks on four times as many."""
    outside = channels * (4 if kind == "bottleneck" else 1)
    one = dict(widths=(channels,), depths=(blocks,), strides=(1,), stem_width=outside)
    return dataclasses.replace(network(kind), **one)


def network(kind, blocks=3):
    """Return the row of a CIFAR network with this kind of block, `blocks` in each of three stages."""
    return dataclasses.replace(cifar("residual", 6 * blocks + 2), block=kind)


def _settings(options, rows):
    from _claims.probes import undisturbed

    quick = options.quick
    channels = CHANNELS[:1] if quick else CHANNELS
    counted = [{"part": "counting", "channels": each, "size": 16} for each in CHANNELS]
    one = {"part": "time", "size": 16, "batch": 8 if quick else 32, "rounds": 1 if quick else 7}
    one["blocks"] = [1, 3] if quick else [2, 8]
    timed, all_timed = undisturbed([one | {"channels": each} for each in channels], rows)
    if not all_timed:
        return timed
    data = "digits"
    size = 8 if quick else 16 if data == "digits" else 32
    learner = {"part": "learning", "data": data, "size": size, "blocks": 1 if quick else 3}
    networks = [learner | {"kind": kind, "epochs": 1 if quick else 15} for kind in KINDS]
    learned = [row for row in rows if row["part"] == "learning"]
    tried = (0.1,) if quick else RATES
    return timed + counted + rates.tuned(networks, tried, options.seeds or (1 if quick else 5), learned)


def _measure(setting):
    import kresnets
    from _claims import probes

    if setting["part"] == "counting":
        return [_block(kind, setting["channels"], setting["size"]) for kind in KINDS]
    if setting["part"] == "time":
        ends = [(kind, blocks) for kind in KINDS for blocks in setting["blocks"]]
        rows = {f"{kind} {blocks}": stack(kind, setting["channels"], blocks) for kind, blocks in ends}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"], steps=3)
    row = network(setting["kind"], setting["blocks"])
    shape = (setting["size"], setting["size"], 3)
    counts = kresnets.summarize(kresnets.build(row, input_shape=shape))
    made = rates.learned(row, setting)
    return [each | {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds} for each in made]


def _block(kind, channels, size):
    """Return what one block more costs: a stack of three less a stack of two."""
    import kresnets

    models = (kresnets.build(stack(kind, channels, blocks), input_shape=(size, size, 3)) for blocks in (3, 2))
    three, two = map(kresnets.summarize, models)
    adds = (three.multiply_adds - two.multiply_adds) / (size**2 * channels**2)
    parameters = three.parameters - two.parameters
    norms = 2 * channels * (2 if kind == "basic" else 6)  # gamma and beta of each norm's channels: C, C or C, C, 4C
    return {
        "kind": kind,
        "adds": adds,  # in C^2, a position
        "weights": (parameters - norms) / channels**2,
        "parameters": parameters,
        "layers": three.depth - two.depth,
    }


def block_times(rows, kind, work, channels):
    """Return dict round -> milliseconds of one block: what the longer stack takes more, over the blocks it has more."""
    from _claims.probes import milliseconds

    few, many = next(row["blocks"] for row in rows if row["part"] == "time")
    less, more = (milliseconds(rows, f"{kind} {blocks}", work, channels=channels) for blocks in (few, many))
    return {number: (more[number] - less[number]) / (many - few) for number in more}


def _ratios(rows, work, channels):
    """Return dict round -> a block's time, bottleneck over basic."""
    ones, others = (block_times(rows, kind, work, channels) for kind in ("bottleneck", "basic"))
    # A machine that did something else can make the longer stack the faster one: such a round says nothing.
    return {number: ones[number] / others[number] for number in ones if ones[number] > 0 and others[number] > 0}


def _findings(options, rows):
    return [*_counted(rows), *_timed(rows), *_learned(rows)]


def _counted(rows):
    counted = [row for row in rows if row["part"] == "counting"]
    each = {
        kind: [f"{row['adds']:g} and {row['weights']:g} C^2" for row in counted if row["kind"] == kind]
        for kind in KINDS
    }
    told = "; ".join(f"{kind} {', '.join(found)}" for kind, found in each.items())
    widths = ", ".join(str(row["channels"]) for row in counted if row["kind"] == "basic")
    adds = all(row["adds"] == row["weights"] == WEIGHTS[row["kind"]] for row in counted)
    layers = {kind: sorted({row["layers"] for row in counted if row["kind"] == kind}) for kind in KINDS}
    told_layers = ", ".join(f"{kind} {', '.join(map(str, found))}" for kind, found in layers.items())
    return [
        Finding(
            claim="Two 3x3 on C channels cost 18 C^2 a position, a bottleneck on 4C channels 17 C^2.",
            verdict=exactly(adds),
            numbers=f"Multiply-adds and weights of one block more, for C = {widths}: {told}.",
        ),
        Finding(
            claim="At that cost a bottleneck has three layers in place of two, and works on four times the channels.",
            verdict=exactly(layers == {kind: [number] for kind, number in LAYERS.items()}),
            numbers=f"Layers that one block more adds to the longest path: {told_layers}.",
        ),
    ]


def _timed(rows):
    from _claims.probes import more_time

    channels = sorted({row["channels"] for row in rows if row["part"] == "time"})
    found = []
    for work in ("training", "prediction"):
        each = {width: _ratios(rows, work, width) for width in channels}
        told = "; ".join(f"C = {width}: {more_time(found.values())}" for width, found in each.items())
        rounds = set.intersection(*(set(found) for found in each.values()))
        means = [statistics.mean(each[width][number] for width in channels) for number in sorted(rounds)]
        found.append(
            Finding(
                claim=f"A bottleneck takes no more time than two 3x3 in {work}.",
                verdict=above(interval([1 - ratio for ratio in means])),
                numbers=f"More time a block, in rounds A B A B: {told}; by multiply-adds {17 / 18 - 1:.0%}.",
            )
        )
    return found


def _learned(rows):
    learned = [row for row in rows if row["part"] == "learning"]
    saved = paired(*(rates.compared(learned, "test_error", kind=kind) for kind in KINDS))
    less = paired(*(rates.compared(learned, "test_loss", kind=kind) for kind in KINDS))
    costs = {row["kind"]: (row["parameters"], row["multiply_adds"] / 1e6) for row in learned}
    means = {kind: 100 * rates.mean(learned, "test_error", kind=kind) for kind in KINDS}
    told = ", ".join(
        f"{kind} {means[kind]:.2f} % with {weights:,} parameters and {adds:.2f}e6 multiply-adds"
        for kind, (weights, adds) in costs.items()
    )
    return [
        Finding(
            claim="A CIFAR network of bottlenecks makes fewer test errors than one of as many basic blocks.",
            verdict=above(saved),
            numbers=f"Test error, basic less bottleneck: {saved.text(' points', 2, 100)}; test loss: "
            f"{less.text(digits=4)}. Means: {told}.",
        )
    ]


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    counted, learned = ([row for row in rows if row["part"] == part] for part in ("counting", "learning"))
    channels = sorted({row["channels"] for row in rows if row["part"] == "time"})
    for place, (kind, colour) in enumerate(KINDS.items()):
        adds = [row["adds"] for row in counted if row["kind"] == kind]
        at = [n + 0.4 * (place - 0.5) for n in range(len(adds))]
        bars = left.bar(at, adds, 0.38, color=colour, label=f"{kind}, {LAYERS[kind]} layers")
        left.bar_label(bars, fmt="%g")
        errors = [100 * value for value in rates.compared(learned, "test_error", kind=kind).values()]
        right.plot([place] * len(errors), errors, "o", color=colour, alpha=0.5)
        right.plot(place, statistics.mean(errors), "_", color=colour, markersize=28)
    for work, colour in (("training", "#334155"), ("prediction", "#0f766e")):
        each = [list(_ratios(rows, work, width).values()) for width in channels]
        for width, found in zip(channels, each):
            middle.plot([width] * len(found), found, ".", color=colour, alpha=0.5)
        middle.plot(channels, [np.median(found or np.nan) for found in each], "o-", color=colour, label=work)
    left.set(title="counted on built blocks", xlabel="C", ylabel="multiply-adds a position, in C^2", ylim=(0, 26))
    left.set_xticks(range(len(CHANNELS)), CHANNELS)
    middle.set_xscale("log", base=2)
    middle.axhline(17 / 18, color="#94a3b8", linestyle="--", label="17 / 18")
    middle.set(title="bottleneck / basic, a dot a round", xlabel="C", ylabel="time of a block, ratio")
    middle.set_xticks(channels, channels)
    middle.set_ylim(bottom=0)
    right.set(title="a dot a seed", xticks=range(2), xticklabels=KINDS, ylabel="test error, percent", xlim=(-0.6, 1.6))
    left.legend(frameon=False, loc="upper center", fontsize=9)
    middle.legend(frameon=False)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="a bottleneck gives three layers and four times the channels at the cost of two 3x3",
    source="arXiv 1512.03385 section 4.1 (deeper bottleneck architectures), figure 5",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    data=(),
    cost=lambda setting: {"time": 3.0, "counting": 0.3, "learning": 1.0}[setting["part"]],
    notes=(
        "A block's cost and time are those of a stack less those of a shorter one, so stem and head do not count; "
        "times are measured with no other run beside.",
        "What learns are CIFAR networks with the same number of blocks, shortcuts A, each at its own best rate of the "
        "same few (by the training loss of one more seed).",
        "The paper compares at about equal multiply-adds on ImageNet, top-1 error of 10 crops: "
        + ", ".join(f"{name} {error} %" for name, error in PUBLISHED.items())
        + ".",
    ),
)
