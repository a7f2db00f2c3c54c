"""Two 3x3 on C channels against a bottleneck on 4C: what they cost, what they take, what they learn."""

import dataclasses

import kresnets
from claims import probes, scratch
from claims.claim import Claim, Finding, Panel, by_part, grid
from claims.degradation import spec as cifar
from claims.judge import exactly, mean, pick, tested

KINDS = ("basic", "bottleneck")
WEIGHTS = {"basic": 9 + 9, "bottleneck": 4 + 9 + 4}  # of a block, in C^2: what figure 5 says
LAYERS = {"basic": [2], "bottleneck": [3]}
CHANNELS = (16, 32, 64)


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
    how = {"batch": 8, "rounds": 1, "blocks": ([1, 3],)} if quick else {"batch": 32, "rounds": 7, "blocks": ([2, 8],)}
    timed = grid(part="time", size=16, **how, channels=CHANNELS[: 1 if quick else 3])
    learner = {"size": 8, "blocks": 1} if quick else {"size": 16, "blocks": 3}
    networks = grid(part="learning", data="digits", **learner, kind=KINDS, epochs=1 if quick else 15)

    def others():
        counted = grid(part="counting", channels=CHANNELS, size=16)
        return counted + scratch.tuned(networks, (0.1,) if quick else (0.03, 0.1, 0.3), options.count(5), rows)

    return probes.undisturbed(timed, rows, others)


def _times(setting):
    ends = [(kind, blocks) for kind in KINDS for blocks in setting["blocks"]]
    return probes.times(setting, {f"{kind} {many}": stack(kind, setting["channels"], many) for kind, many in ends})


def _counts(setting):
    """Return what one block more costs, of either kind: a stack of three less a stack of two."""
    channels, size, rows = setting["channels"], setting["size"], []
    for kind in KINDS:
        models = (kresnets.build(stack(kind, channels, blocks), input_shape=(size, size, 3)) for blocks in (3, 2))
        three, two = map(kresnets.summarize, models)
        parameters = three.parameters - two.parameters
        norms = 2 * channels * (2 if kind == "basic" else 6)  # gamma and beta of each norm: C, C or C, C, 4C channels
        adds = (three.multiply_adds - two.multiply_adds) / (size**2 * channels**2)  # in C^2, a position
        row = {"kind": kind, "adds": adds, "weights": (parameters - norms) / channels**2}
        rows.append(row | {"parameters": parameters, "layers": three.depth - two.depth})
    return rows


def block_times(rows, kind, work, channels):
    """Return dict round -> milliseconds of one block: what the longer stack takes more, over the blocks it has more."""
    few, many = pick(rows, part="time")[0]["blocks"]
    less, more = (probes.milliseconds(rows, f"{kind} {blocks}", work, channels=channels) for blocks in (few, many))
    return {number: (more[number] - less[number]) / (many - few) for number in more}


def _findings(options, rows):
    counted = {kind: pick(rows, part="counting", kind=kind) for kind in KINDS}
    each = lambda show: "; ".join(f"{kind} {', '.join(map(show, found))}" for kind, found in counted.items())
    widths = ", ".join(str(row["channels"]) for row in counted["basic"])
    claim = "Two 3x3 on C channels cost 18 C^2 a position, a bottleneck on 4C channels 17 C^2."
    holds = all(r["adds"] == r["weights"] == WEIGHTS[kind] for kind, found in counted.items() for r in found)
    told = each(lambda row: f"{row['adds']:g} and {row['weights']:g} C^2")
    yield Finding(claim, exactly(holds), f"Multiply-adds and weights of one block more, for C = {widths}: {told}.")
    layers = {kind: sorted({row["layers"] for row in found}) for kind, found in counted.items()}
    claim = "At that cost a bottleneck has three layers in place of two, and works on four times the channels."
    told = ", ".join(f"{kind} {', '.join(map(str, found))}" for kind, found in layers.items())
    told = f"Layers that one block more adds to the longest path: {told}."
    yield Finding(claim, exactly(layers == LAYERS), told)
    claim = "A bottleneck takes no more time than two 3x3 in"
    yield from probes.faster(claim, "More time a block, in rounds A B A B", block_times, KINDS[::-1], rows, 17 / 18)
    saved, told = scratch.saved(rows, "kind", "bottleneck", "basic")
    costs = {row["kind"]: row for row in pick(rows, part="learning")}
    means = ", ".join(
        f"{kind} {100 * mean(rows, 'test_error', kind=kind):.2f} % with {row['parameters']:,} parameters and "
        f"{row['multiply_adds'] / 1e6:.2f}e6 multiply-adds"
        for kind, row in costs.items()
    )
    claim = "A CIFAR network of bottlenecks makes fewer test errors than one of as many basic blocks."
    yield tested(claim, saved, f"{told} Means: {means}.")


PANELS = (
    Panel("adds", "channels", "kind"),
    Panel("ms", ("network", "channels"), "work", log=True),
    Panel("test_error", "kind"),
)
_learning = scratch.learner(network, "kind", "blocks", counted=True)
CLAIM = Claim(_settings, by_part(time=_times, counting=_counts, learning=_learning), _findings, PANELS)
