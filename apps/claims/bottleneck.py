"""Two 3x3 on C channels against a bottleneck on 4C: what they cost, what they take, what they learn."""

import dataclasses

import kresnets
from claims import plots, probes, rates
from claims.claim import Claim, Finding
from claims.degradation import spec as cifar
from claims.probes import faster, milliseconds, undisturbed
from claims.results import gap, mean, pick
from claims.verdicts import above, exactly

KINDS = ("basic", "bottleneck")
WEIGHTS = {"basic": 9 + 9, "bottleneck": 4 + 9 + 4}  # of a block, in C^2: what figure 5 says
LAYERS = {"basic": [2], "bottleneck": [3]}
CHANNELS = (16, 32, 64)
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
    quick = options.quick
    counted = [{"part": "counting", "channels": each, "size": 16} for each in CHANNELS]
    one = {"part": "time", "size": 16, "batch": 8 if quick else 32, "rounds": 1 if quick else 7}
    one["blocks"] = [1, 3] if quick else [2, 8]
    timed, all_timed = undisturbed([one | {"channels": each} for each in CHANNELS[: 1 if quick else 3]], rows)
    if not all_timed:
        return timed
    learner = {"part": "learning", "data": "digits", "size": 8 if quick else 16, "blocks": 1 if quick else 3}
    networks = [learner | {"kind": kind, "epochs": 1 if quick else 15} for kind in KINDS]
    return timed + counted + rates.tuned(networks, (0.1,) if quick else (0.03, 0.1, 0.3), options.count(5), rows)


def _measure(setting):
    if setting["part"] == "counting":
        return [_block(kind, setting["channels"], setting["size"]) for kind in KINDS]
    if setting["part"] == "time":
        ends = [(kind, blocks) for kind in KINDS for blocks in setting["blocks"]]
        rows = {f"{kind} {blocks}": stack(kind, setting["channels"], blocks) for kind, blocks in ends}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"])
    return rates.learned(network(setting["kind"], setting["blocks"]), setting, counted=True)


def _block(kind, channels, size):
    """Return what one block more costs: a stack of three less a stack of two."""
    models = (kresnets.build(stack(kind, channels, blocks), input_shape=(size, size, 3)) for blocks in (3, 2))
    three, two = map(kresnets.summarize, models)
    parameters = three.parameters - two.parameters
    norms = 2 * channels * (2 if kind == "basic" else 6)  # gamma and beta of each norm's channels: C, C or C, C, 4C
    return {
        "kind": kind,
        "adds": (three.multiply_adds - two.multiply_adds) / (size**2 * channels**2),  # in C^2, a position
        "weights": (parameters - norms) / channels**2,
        "parameters": parameters,
        "layers": three.depth - two.depth,
    }


def block_times(rows, kind, work, channels):
    """Return dict round -> milliseconds of one block: what the longer stack takes more, over the blocks it has more."""
    few, many = pick(rows, part="time")[0]["blocks"]
    less, more = (milliseconds(rows, f"{kind} {blocks}", work, channels=channels) for blocks in (few, many))
    return {number: (more[number] - less[number]) / (many - few) for number in more}


def _findings(options, rows):
    counted = {kind: pick(rows, part="counting", kind=kind) for kind in KINDS}
    each = {kind: [f"{r['adds']:g} and {r['weights']:g} C^2" for r in found] for kind, found in counted.items()}
    widths = ", ".join(str(row["channels"]) for row in counted["basic"])
    yield Finding(
        "Two 3x3 on C channels cost 18 C^2 a position, a bottleneck on 4C channels 17 C^2.",
        exactly(all(r["adds"] == r["weights"] == WEIGHTS[kind] for kind, found in counted.items() for r in found)),
        f"Multiply-adds and weights of one block more, for C = {widths}: "
        + "; ".join(f"{kind} {', '.join(found)}" for kind, found in each.items())
        + ".",
    )
    layers = {kind: sorted({row["layers"] for row in found}) for kind, found in counted.items()}
    yield Finding(
        "At that cost a bottleneck has three layers in place of two, and works on four times the channels.",
        exactly(layers == LAYERS),
        "Layers that one block more adds to the longest path: "
        + ", ".join(f"{kind} {', '.join(map(str, found))}" for kind, found in layers.items())
        + ".",
    )
    claim = "A bottleneck takes no more time than two 3x3 in"
    yield from faster(claim, "More time a block, in rounds A B A B", block_times, KINDS[::-1], rows, 17 / 18)
    saved, less = (gap(rows, c, {"kind": "basic"}, {"kind": "bottleneck"}) for c in ("test_error", "test_loss"))
    costs = {row["kind"]: row for row in pick(rows, part="learning")}
    told = ", ".join(
        f"{kind} {100 * mean(rows, 'test_error', kind=kind):.2f} % with {row['parameters']:,} parameters and "
        f"{row['multiply_adds'] / 1e6:.2f}e6 multiply-adds"
        for kind, row in costs.items()
    )
    yield Finding(
        "A CIFAR network of bottlenecks makes fewer test errors than one of as many basic blocks.",
        above(saved),
        f"Test error, basic less bottleneck: {saved.points(2)}; test loss: {less.text(digits=4)}. Means: {told}.",
    )


CLAIM = Claim(
    title="a bottleneck gives three layers and four times the channels at the cost of two 3x3",
    source="arXiv 1512.03385 section 4.1 (deeper bottleneck architectures), figure 5",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=plots.panels(
        plots.Panel("adds", "channels", "kind"),
        plots.Panel("ms", ("network", "channels"), "work", log=True),
        plots.Panel("test_error", "kind"),
    ),
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
