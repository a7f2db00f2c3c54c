"""Two ideas of the Inception networks: two 3x3 for a 5x5, and a residual branch that is scaled down."""

import dataclasses

import kresnets
from claims import probes, scratch
from claims.claim import Claim, Finding, Panel, by_part, grid
from claims.judge import exactly, interval, mean, of, paired, pick, tested
from kresnets.specs import Conv, Pool, Residual, swap

KINDS = ("5x5", "two 3x3")
WEIGHTS = {"5x5": 25, "two 3x3": 9 + 9}  # in C^2
CHANNELS = (16, 64)
SCALES = (1.0, 0.3, 0.1)
FAILED = 0.5  # error on the training images from which on a network counts as one that failed; guessing has 0.9


def _row(name, stem, stages):
    """Return a small row with Inception-v3's constants, but for a norm that has few steps to learn its statistics."""
    changed = dict(min_size=8, momentum=0.9, imagenet=False, params=None)
    return dataclasses.replace(kresnets.SPECS["InceptionV3"], name=name, stem=stem, stages=stages, **changed)


def _in(kind, channels, steps):
    """Return steps with every 5x5 of so many channels as this kind has it."""
    return steps if kind == "5x5" else swap(steps, Conv(channels, 5), (Conv(channels, 3),) * 2)


def stack(kind, channels, convolutions):
    """Return a row of equal 5x5 convolutions on equal channels, or of two 3x3 for each."""
    stages = ((_in(kind, channels, (Conv(channels, 5),) * convolutions),),)
    return _row("Stack", (Conv(channels, 1),), stages)


def network(kind):
    """Return the row of a network of six 5x5 convolutions on three grids, or of two 3x3 for each."""
    blocks = []
    for width in (16, 32, 64):
        steps = (Conv(width, 5), Conv(width, 5))
        blocks.append(_in(kind, width, steps if width == 16 else (Pool("max", 2), *steps)))
    return _row("Small", (Conv(16, 3),), tuple((block,) for block in blocks))


def scaled(scale, blocks):
    """Return a row of residual blocks like Inception-ResNet-v1's first, slim, whose branches are scaled."""
    one = Residual((Conv(16, 1),), (Conv(16, 1), Conv(16, 3)), (Conv(16, 1), Conv(16, 3), Conv(16, 3)), scale=scale)
    return _row("Scaled", (Conv(64, 3, 2),), (((one,),) * blocks,))


def _settings(options, rows):
    quick, seeds = options.quick, options.count(5)
    how = {"batch": 8, "rounds": 1, "convolutions": 2} if quick else {"batch": 32, "rounds": 7, "convolutions": 6}
    timed = grid(part="time", size=16, **how, channels=CHANNELS[: 1 if quick else 2])
    # 16 pixels a side: on the third grid of 8 a pool would find nothing.
    networks = grid(part="learning", data="digits", size=16, epochs=2 if quick else 15, kind=KINDS)
    rates, scales, high = ((0.1,), (1.0, 0.1), (0.1,)) if quick else ((0.03, 0.1, 0.3), SCALES, (0.1, 0.3, 1.0, 3.0))
    deep = {"blocks": 2, "epochs": 1} if quick else {"blocks": 8, "epochs": 6}

    def others():
        counted = grid(part="counting", channels=CHANNELS, size=16)
        cells = grid(part="scale", data="digits", size=8, **deep, scale=scales, rate=high)
        stability = [one | {"seed": seed} for seed in range(seeds) for one in cells]
        return counted + scratch.tuned(networks, rates, seeds, rows) + stability

    return probes.undisturbed(timed, rows, others)


def _times(setting):
    return probes.times(setting, {kind: stack(kind, setting["channels"], setting["convolutions"]) for kind in KINDS})


def _counts(setting):
    """Return what stands for one 5x5: its cost in C^2 and how far a unit behind it sees."""
    channels, size, rows = setting["channels"], setting["size"], []
    for kind in KINDS:
        model = kresnets.build(stack(kind, channels, 1), include_top=False, input_shape=(size, size, 3))
        behind = [layer for layer in kresnets.summarize(model).layers if layer.name.startswith("stage1")]
        adds = sum(layer.multiply_adds for layer in behind) / (size**2 * channels**2)
        convolutions = [layer for layer in model.layers if layer.name.startswith("stage1_block1_conv")]
        weights = sum(layer.kernel.shape.num_elements() for layer in convolutions) / channels**2
        high, wide = probes.field(probes.averaging(model).get_layer("stem_relu1").output, model.output)
        rows.append({"kind": kind, "adds": adds, "weights": weights, "field": f"{high}x{wide}"})
    return rows


def _scales(setting):
    return scratch.learner(scaled, "scale", "blocks")(setting)[-1:]


def failed(rows, scale, rate):
    """Return dict seed -> whether that training failed: no number for a loss, or little better than guessing."""
    errors = of(rows, "train_error", part="scale", scale=scale, rate=rate)
    return {seed: error >= FAILED for seed, error in errors.items()}


def _findings(options, rows):
    counted = {kind: pick(rows, part="counting", kind=kind) for kind in KINDS}
    costs = {kind: ", ".join(f"{row['adds']:g} C^2" for row in found) for kind, found in counted.items()}
    told = "; ".join(f"{kind} {cost}" for kind, cost in costs.items())
    claim = "Two 3x3 cost 18 / 25 of a 5x5, multiply-adds and weights alike."
    holds = all(r["adds"] == r["weights"] == WEIGHTS[kind] for kind, found in counted.items() for r in found)
    yield Finding(claim, exactly(holds), f"For C = {', '.join(map(str, CHANNELS))}: {told}.")
    fields = {kind: sorted({row["field"] for row in found}) for kind, found in counted.items()}
    claim = "A unit behind two 3x3 sees as much of the input as one behind a 5x5."
    told = "; ".join(f"{kind} {', '.join(found)}" for kind, found in fields.items())
    holds = all(found == ["5x5"] for found in fields.values())
    yield Finding(claim, exactly(holds), f"Positions with a gradient: {told}.")
    claim = "Two 3x3 with norm and ReLU after each take less time than a 5x5 in"
    told = "More time, in rounds A B A B"
    yield from probes.faster(claim, told, probes.milliseconds, KINDS[::-1], rows, 18 / 25)
    saved, told = scratch.saved(rows, "kind", *KINDS[::-1])
    means = ", ".join(f"{kind} {100 * mean(rows, 'test_error', kind=kind):.2f} %" for kind in KINDS)
    claim = "A network with two 3x3 for each 5x5 makes at most 1 point more errors on images it has not seen."
    yield tested(claim, saved, f"{told} Means: {means}.", least=-0.01)
    claim = "A network with two 3x3 for each 5x5 makes fewer errors on images it has not seen."
    yield tested(claim, saved, f"Test error, 5x5 less two 3x3: {saved.points(2)}.")
    yield from _stable(rows)


def _stable(rows):
    scaled = pick(rows, part="scale")
    scales, tried = [s for s in SCALES if pick(scaled, scale=s)], sorted({row["rate"] for row in scaled})
    fails = {scale: {rate: failed(rows, scale, rate) for rate in tried} for scale in scales}
    lost = {scale: [sum(seed) for seed in zip(*(each.values() for each in fails[scale].values()))] for scale in scales}
    best = {s: min(tried, key=lambda rate: mean(scaled, "train_loss", scale=s, rate=rate)) for s in scales}
    errors = {scale: of(scaled, "test_error", scale=scale, rate=best[scale]) for scale in scales}
    counts = lambda found: ", ".join(f"{sum(each.values())} of {len(each)} at {rate:g}" for rate, each in found.items())
    table = "; ".join(f"scale {scale:g}: {counts(found)}" for scale, found in fails.items())
    for scale in scales[1:]:
        fewer, saved = interval([a - b for a, b in zip(lost[1.0], lost[scale])]), paired(errors[1.0], errors[scale])
        claim = f"Scaled by {scale:g} a residual branch bears rates at which training fails without."
        told = f"Failed trainings a seed, scale 1 less {scale:g}: {fewer.text(digits=2)}. By rate: {table}."
        yield tested(claim, fewer, told)
        claim = f"Scaling by {scale:g} does no harm: at most 1 point more errors on images it has not seen."
        told = f"Test error, scale 1 less {scale:g}, each at the rate with its least training loss "
        told += f"({best[1.0]:g} and {best[scale]:g}): {saved.points(2)}."
        yield tested(claim, saved, told, least=-0.01)


PANELS = (
    Panel("loss", "epoch", "kind", {"part": "learning"}, curve=True, log=True),
    Panel("test_error", "kind", where={"part": "learning"}),
    Panel("train_error", "rate", "scale", {"part": "scale"}),
)
_measure = by_part(counting=_counts, time=_times, learning=scratch.learner(network, "kind"), scale=_scales)
CLAIM = Claim(_settings, _measure, _findings, PANELS)
