"""Two ideas of the Inception networks: two 3x3 for a 5x5, and a residual branch that is scaled down."""

import dataclasses

import keras

import kresnets
from claims import plots, probes, rates
from claims.claim import Claim, Finding
from claims.probes import faster, milliseconds, undisturbed
from claims.results import gap, mean, of, pick
from claims.verdicts import above, exactly, interval, paired
from kresnets.specs import Conv, Pool, Residual, swap

KINDS = ("5x5", "two 3x3")
WEIGHTS = {"5x5": 25, "two 3x3": 9 + 9}  # in C^2
CHANNELS = (16, 64)
SCALES = (1.0, 0.3, 0.1)
HIGH_RATES = (0.1, 0.3, 1.0, 3.0)
FAILED = 0.5  # error on the training images from which on a network counts as one that failed; guessing has 0.9


def _row(name, stem, stages):
    """Return a small row with Inception-v3's constants, but for a norm that has few steps to learn its statistics."""
    inception = kresnets.SPECS["InceptionV3"]
    return dataclasses.replace(
        inception, name=name, stem=stem, stages=stages, min_size=8, momentum=0.9, imagenet=False, params=None
    )


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
    counted = [{"part": "counting", "channels": each, "size": 16} for each in CHANNELS]
    one = {"part": "time", "size": 16, "batch": 8 if quick else 32, "rounds": 1 if quick else 7}
    one["convolutions"] = 2 if quick else 6
    timed, all_timed = undisturbed([one | {"channels": each} for each in CHANNELS[: 1 if quick else 2]], rows)
    if not all_timed:
        return timed
    # 16 pixels a side: on the third grid of 8 a pool would find nothing.
    learner = {"part": "learning", "data": "digits", "size": 16, "epochs": 2 if quick else 15}
    networks = [learner | {"kind": kind} for kind in KINDS]
    compared = rates.tuned(networks, (0.1,) if quick else (0.03, 0.1, 0.3), seeds, rows)
    deep = {"part": "scale", "data": "digits", "size": 8, "blocks": 2 if quick else 8, "epochs": 1 if quick else 6}
    grid = [
        deep | {"scale": scale, "rate": rate, "seed": seed}
        for seed in range(seeds)
        for scale in ((1.0, 0.1) if quick else SCALES)
        for rate in ((0.1,) if quick else HIGH_RATES)
    ]
    return timed + counted + compared + grid


def _measure(setting):
    if setting["part"] == "counting":
        return [_counts(kind, setting["channels"], setting["size"]) for kind in KINDS]
    if setting["part"] == "time":
        rows = {kind: stack(kind, setting["channels"], setting["convolutions"]) for kind in KINDS}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"])
    if setting["part"] == "learning":
        return rates.learned(network(setting["kind"]), setting)
    return rates.learned(scaled(setting["scale"], setting["blocks"]), setting)[-1:]


def _counts(kind, channels, size):
    """Return what stands for one 5x5: its cost in C^2 and how far a unit behind it sees."""
    model = kresnets.build(stack(kind, channels, 1), include_top=False, input_shape=(size, size, 3))
    behind = [layer for layer in kresnets.summarize(model).layers if layer.name.startswith("stage1")]
    kernels = [
        layer.kernel.shape.num_elements()
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("stage1")
    ]
    high, wide = probes.field(probes.averaging(model).get_layer("stem_relu1").output, model.output)
    return {
        "kind": kind,
        "adds": sum(layer.multiply_adds for layer in behind) / (size**2 * channels**2),
        "weights": sum(kernels) / channels**2,
        "field": f"{high}x{wide}",
    }


def failed(rows, scale, rate):
    """Return dict seed -> whether that training failed: no number for a loss, or little better than guessing."""
    errors = of(rows, "train_error", part="scale", scale=scale, rate=rate)
    return {seed: error >= FAILED for seed, error in errors.items()}


def _findings(options, rows):
    counted = {kind: pick(rows, part="counting", kind=kind) for kind in KINDS}
    costs = {kind: ", ".join(f"{row['adds']:g} C^2" for row in found) for kind, found in counted.items()}
    yield Finding(
        "Two 3x3 cost 18 / 25 of a 5x5, multiply-adds and weights alike.",
        exactly(all(r["adds"] == r["weights"] == WEIGHTS[kind] for kind, found in counted.items() for r in found)),
        f"For C = {', '.join(map(str, CHANNELS))}: {'; '.join(f'{kind} {told}' for kind, told in costs.items())}.",
    )
    fields = {kind: sorted({row["field"] for row in found}) for kind, found in counted.items()}
    yield Finding(
        "A unit behind two 3x3 sees as much of the input as one behind a 5x5.",
        exactly(all(found == ["5x5"] for found in fields.values())),
        f"Positions with a gradient: {'; '.join(f'{kind} ' + ', '.join(found) for kind, found in fields.items())}.",
    )
    claim = "Two 3x3 with norm and ReLU after each take less time than a 5x5 in"
    yield from faster(claim, "More time, in rounds A B A B", milliseconds, KINDS[::-1], rows, 18 / 25)
    saved, less = (gap(rows, column, *({"kind": kind} for kind in KINDS)) for column in ("test_error", "test_loss"))
    means = ", ".join(f"{kind} {100 * mean(rows, 'test_error', kind=kind):.2f} %" for kind in KINDS)
    numbers = f"Test error, 5x5 less two 3x3: {saved.points(2)}"
    yield Finding(
        "A network with two 3x3 for each 5x5 makes at most 1 point more errors on images it has not seen.",
        above(saved, -0.01),
        f"{numbers}; test loss: {less.text(digits=4)}. Means: {means}.",
    )
    claim = "A network with two 3x3 for each 5x5 makes fewer errors on images it has not seen."
    yield Finding(claim, above(saved), f"{numbers}.")
    yield from _stable(rows)


def _stable(rows):
    grid = pick(rows, part="scale")
    scales, tried = [s for s in SCALES if pick(grid, scale=s)], sorted({row["rate"] for row in grid})
    fails = {scale: {rate: failed(rows, scale, rate) for rate in tried} for scale in scales}
    lost = {scale: [sum(seed) for seed in zip(*(each.values() for each in fails[scale].values()))] for scale in scales}
    best = {s: min(tried, key=lambda rate: mean(grid, "train_loss", scale=s, rate=rate)) for s in scales}
    errors = {scale: of(grid, "test_error", scale=scale, rate=best[scale]) for scale in scales}
    table = "; ".join(
        f"scale {scale:g}: "
        + ", ".join(f"{sum(each.values())} of {len(each)} at {rate:g}" for rate, each in fails[scale].items())
        for scale in scales
    )
    for scale in scales[1:]:
        fewer = interval([a - b for a, b in zip(lost[1.0], lost[scale])])
        yield Finding(
            f"Scaled by {scale:g} a residual branch bears rates at which training fails without.",
            above(fewer),
            f"Failed trainings a seed, scale 1 less {scale:g}: {fewer.text(digits=2)}. By rate: {table}.",
        )
        saved = paired(errors[1.0], errors[scale])
        yield Finding(
            f"Scaling by {scale:g} does no harm: at most 1 point more errors on images it has not seen.",
            above(saved, -0.01),
            f"Test error, scale 1 less {scale:g}, each at the rate with its least training loss "
            f"({best[1.0]:g} and {best[scale]:g}): {saved.points(2)}.",
        )


CLAIM = Claim(
    title="two 3x3 see what a 5x5 sees for 18 / 25 of its cost; a scaled residual branch learns more stably",
    source="arXiv 1512.00567 section 3.1 and figure 1; 1602.07261 section 3.3",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=plots.panels(
        plots.Panel("loss", "epoch", "kind", {"part": "learning"}, curve=True, log=True),
        plots.Panel("test_error", "kind", where={"part": "learning"}),
        plots.Panel("train_error", "rate", "scale", {"part": "scale"}),
    ),
    data=(),
    cost=lambda setting: {"time": 4.0, "counting": 0.2, "learning": 2.0, "scale": 1.0}[setting["part"]],
    notes=(
        "What learns is a chain of six 5x5 convolutions with norm and ReLU on three grids, or of two 3x3, norm and "
        "ReLU after each, in their place; each at its own best rate of the same few (by the training loss of one more "
        "seed).",
        "Stability: a stack of residual blocks as Inception-ResNet-v1's first, 64 channels, no norm after their last "
        f"1x1; a training fails where its loss is no number or it ends with {FAILED:.0%} of its training images wrong. "
        "The paper saw networks of more than 1000 filters die at scale 1 and chose 0.1 to 0.3; it gives no table.",
    ),
)
