"""Two ideas of the Inception networks: two 3x3 for a 5x5, and a residual branch that is scaled down."""

import dataclasses
import statistics

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.verdicts import above, exactly, interval, paired

KINDS = {"5x5": "#c2410c", "two 3x3": "#1d4ed8"}
WEIGHTS = {"5x5": 25, "two 3x3": 9 + 9}  # in C^2
CHANNELS = (16, 64)
SCALES = {1.0: "#c2410c", 0.3: "#0f766e", 0.1: "#1d4ed8"}
RATES = (0.03, 0.1, 0.3)
HIGH_RATES = (0.1, 0.3, 1.0, 3.0)
FAILED = 0.5  # error on the training images from which on a network counts as one that failed; guessing has 0.9


def _row(name, stem, stages):
    """Return a small row with Inception-v3's constants, but for a norm that has few steps to learn its statistics."""
    import kresnets

    inception = kresnets.SPECS["InceptionV3"]
    return dataclasses.replace(
        inception, name=name, stem=stem, stages=stages, min_size=8, momentum=0.9, imagenet=False, params=None
    )


def _in(kind, channels, steps):
    """Return steps with every 5x5 of so many channels as this kind has it."""
    from kresnets.specs import Conv, swap

    return steps if kind == "5x5" else swap(steps, Conv(channels, 5), (Conv(channels, 3),) * 2)


def stack(kind, channels, convolutions):
    """Return a row of equal 5x5 convolutions on equal channels, or of two 3x3 for each."""
    from kresnets.specs import Conv

    stages = ((_in(kind, channels, (Conv(channels, 5),) * convolutions),),)
    return _row("Stack", (Conv(channels, 1),), stages)


def network(kind):
    """Return the row of a network of six 5x5 convolutions on three grids, or of two 3x3 for each."""
    from kresnets.specs import Conv, Pool

    blocks = []
    for width in (16, 32, 64):
        steps = (Conv(width, 5), Conv(width, 5))
        blocks.append(_in(kind, width, steps if width == 16 else (Pool("max", 2), *steps)))
    return _row("Small", (Conv(16, 3),), tuple((block,) for block in blocks))


def scaled(scale, blocks):
    """Return a row of residual blocks like Inception-ResNet-v1's first, slim, whose branches are scaled."""
    from kresnets.specs import Conv, Residual

    one = Residual((Conv(16, 1),), (Conv(16, 1), Conv(16, 3)), (Conv(16, 1), Conv(16, 3), Conv(16, 3)), scale=scale)
    return _row("Scaled", (Conv(64, 3, 2),), (((one,),) * blocks,))


def _settings(options, rows):
    from _claims.probes import undisturbed

    quick, data = options.quick, "digits"
    seeds = options.seeds or (1 if quick else 5)
    counted = [{"part": "counting", "channels": each, "size": 16} for each in CHANNELS]
    one = {"part": "time", "size": 16, "batch": 8 if quick else 32, "rounds": 1 if quick else 7}
    one["convolutions"] = 2 if quick else 6
    timed, all_timed = undisturbed([one | {"channels": each} for each in (CHANNELS[:1] if quick else CHANNELS)], rows)
    if not all_timed:
        return timed
    # 16 pixels a side: on the third grid of 8 a pool would find nothing.
    learner = {"part": "learning", "data": data, "size": 16 if data == "digits" else 32}
    networks = [learner | {"kind": kind, "epochs": 2 if quick else 15} for kind in KINDS]
    learned = [row for row in rows if row["part"] == "learning"]
    compared = rates.tuned(networks, (0.1,) if quick else RATES, seeds, learned)
    deep = {"part": "scale", "data": data, "size": 8 if data == "digits" else 32, "blocks": 2 if quick else 8}
    grid = [
        deep | {"scale": scale, "epochs": 1 if quick else 6, "rate": rate, "seed": seed}
        for seed in range(seeds)
        for scale in ((1.0, 0.1) if quick else SCALES)
        for rate in ((0.1,) if quick else HIGH_RATES)
    ]
    return timed + counted + compared + grid


def _measure(setting):
    from _claims import probes

    if setting["part"] == "counting":
        return [_counts(kind, setting["channels"], setting["size"]) for kind in KINDS]
    if setting["part"] == "time":
        rows = {kind: stack(kind, setting["channels"], setting["convolutions"]) for kind in KINDS}
        return probes.times(rows, setting["size"], setting["batch"], setting["rounds"], steps=3)
    if setting["part"] == "learning":
        return rates.learned(network(setting["kind"]), setting)
    return rates.learned(scaled(setting["scale"], setting["blocks"]), setting)[-1:]


def _counts(kind, channels, size):
    """Return what stands for one 5x5: its cost in C^2 and how far a unit behind it sees."""
    import keras

    import kresnets
    from _claims import probes

    model = kresnets.build(stack(kind, channels, 1), include_top=False, input_shape=(size, size, 3))
    behind = [layer for layer in kresnets.summarize(model).layers if layer.name.startswith("stage1")]
    weights = sum(
        layer.kernel.shape.num_elements()
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("stage1")
    )
    high, wide = probes.field(probes.averaging(model).get_layer("stem_relu1").output, model.output)
    return {
        "kind": kind,
        "adds": sum(layer.multiply_adds for layer in behind) / (size**2 * channels**2),
        "weights": weights / channels**2,
        "field": f"{high}x{wide}",
    }


def _ratios(rows, work, channels):
    """Return the times of two 3x3 over those of a 5x5, a round each."""
    from _claims.probes import milliseconds

    ones, others = (milliseconds(rows, kind, work, channels=channels) for kind in ("two 3x3", "5x5"))
    return [ones[number] / others[number] for number in ones]


def failed(rows, scale, rate):
    """Return dict seed -> whether that training failed: no number for a loss, or little better than guessing."""
    errors = rates.compared([row for row in rows if row["part"] == "scale"], "train_error", scale=scale, rate=rate)
    return {seed: error >= FAILED for seed, error in errors.items()}


def _tried(rows):
    """Return the scales and the rates of the part that is about stability."""
    grid = [row for row in rows if row["part"] == "scale"]
    return [scale for scale in SCALES if any(row["scale"] == scale for row in grid)], sorted({r["rate"] for r in grid})


def _findings(options, rows):
    return [*_counted(rows), *_timed(rows), *_learned(rows), *_stable(rows)]


def _counted(rows):
    counted = [row for row in rows if row["part"] == "counting"]
    told = {kind: [f"{row['adds']:g} C^2" for row in counted if row["kind"] == kind] for kind in KINDS}
    cost = all(row["adds"] == row["weights"] == WEIGHTS[row["kind"]] for row in counted)
    fields = {kind: sorted({row["field"] for row in counted if row["kind"] == kind}) for kind in KINDS}
    return [
        Finding(
            claim="Two 3x3 cost 18 / 25 of a 5x5, multiply-adds and weights alike.",
            verdict=exactly(cost),
            numbers=f"For C = {', '.join(map(str, CHANNELS))}: "
            + "; ".join(f"{kind} {', '.join(found)}" for kind, found in told.items())
            + ".",
        ),
        Finding(
            claim="A unit behind two 3x3 sees as much of the input as one behind a 5x5.",
            verdict=exactly(set(map(tuple, fields.values())) == {("5x5",)}),
            numbers="Positions with a gradient: "
            + "; ".join(f"{kind} {', '.join(f)}" for kind, f in fields.items())
            + ".",
        ),
    ]


def _timed(rows):
    from _claims.probes import more_time

    channels = sorted({row["channels"] for row in rows if row["part"] == "time"})
    found = []
    for work in ("training", "prediction"):
        each = {width: _ratios(rows, work, width) for width in channels}
        told = "; ".join(f"C = {width}: {more_time(each[width])}" for width in channels)
        means = [statistics.mean(ratios) for ratios in zip(*each.values())]
        found.append(
            Finding(
                claim=f"Two 3x3 with norm and ReLU after each take less time than a 5x5 in {work}.",
                verdict=above(interval([1 - ratio for ratio in means])),
                numbers=f"More time, in rounds A B A B: {told}; by multiply-adds {18 / 25 - 1:.0%}.",
            )
        )
    return found


def _learned(rows):
    learned = [row for row in rows if row["part"] == "learning"]
    saved = paired(*(rates.compared(learned, "test_error", kind=kind) for kind in KINDS))
    less = paired(*(rates.compared(learned, "test_loss", kind=kind) for kind in KINDS))
    told = ", ".join(f"{kind} {100 * rates.mean(learned, 'test_error', kind=kind):.2f} %" for kind in KINDS)
    numbers = f"Test error, 5x5 less two 3x3: {saved.text(' points', 2, 100)}; test loss: {less.text(digits=4)}. "
    return [
        Finding(
            claim="A network with two 3x3 for each 5x5 makes at most 1 point more errors on images it has not seen.",
            verdict=above(saved, -0.01),
            numbers=f"{numbers}Means: {told}.",
        ),
        Finding(
            claim="A network with two 3x3 for each 5x5 makes fewer errors on images it has not seen.",
            verdict=above(saved),
            numbers=f"Test error, 5x5 less two 3x3: {saved.text(' points', 2, 100)}.",
        ),
    ]


def _stable(rows):
    scales, tried = _tried(rows)
    lost = {
        scale: [
            sum(failed(rows, scale, rate)[seed] for rate in tried) for seed in sorted(failed(rows, scale, tried[0]))
        ]
        for scale in scales
    }
    grid = [row for row in rows if row["part"] == "scale"]
    best = {
        scale: min(tried, key=lambda rate: rates.mean(grid, "train_loss", scale=scale, rate=rate)) for scale in scales
    }
    errors = {scale: rates.compared(grid, "test_error", scale=scale, rate=best[scale]) for scale in scales}
    table = "; ".join(
        f"scale {scale:g}: "
        + ", ".join(f"{sum(failed(rows, scale, r).values())} of {len(lost[scale])} at {r:g}" for r in tried)
        for scale in scales
    )
    found = []
    for scale in scales[1:]:
        fewer = interval([a - b for a, b in zip(lost[1.0], lost[scale])])
        saved = paired(errors[1.0], errors[scale])
        found += [
            Finding(
                claim=f"Scaled by {scale:g} a residual branch bears rates at which training fails without.",
                verdict=above(fewer),
                numbers=f"Failed trainings a seed, scale 1 less {scale:g}: {fewer.text(digits=2)}. By rate: {table}.",
            ),
            Finding(
                claim=f"Scaling by {scale:g} does no harm: at most 1 point more errors on images it has not seen.",
                verdict=above(saved, -0.01),
                numbers=f"Test error, scale 1 less {scale:g}, each at the rate with its least training loss "
                f"({best[1.0]:g} and {best[scale]:g}): {saved.text(' points', 2, 100)}.",
            ),
        ]
    return found


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    learned = [row for row in rows if row["part"] == "learning"]
    for kind, colour in KINDS.items():
        rates.curves(left, learned, "-", colour, kind, kind=kind)
    left.set(title="a line a seed", xlabel="epoch", ylabel="training loss", yscale="log")
    left.legend(frameon=False)
    for place, (kind, colour) in enumerate(KINDS.items()):
        errors = [100 * error for error in rates.compared(learned, "test_error", kind=kind).values()]
        middle.plot([place] * len(errors), errors, "o", color=colour, alpha=0.5)
        middle.plot(place, statistics.mean(errors), "_", color=colour, markersize=28)
    middle.set(title="a dot a seed", ylabel="test error, percent", xlim=(-0.6, 1.6))
    middle.set_xticks(range(2), [f"{kind}\n{WEIGHTS[kind]} C^2" for kind in KINDS])
    scales, tried = _tried(rows)
    for number, scale in enumerate(scales):
        each = [failed(rows, scale, rate) for rate in tried]
        at = [place + 0.25 * (number - (len(scales) - 1) / 2) for place in range(len(tried))]
        bars = right.bar(
            at, [sum(found.values()) for found in each], 0.23, color=SCALES[scale], label=f"scale {scale:g}"
        )
        right.bar_label(bars)
        seeds = len(each[0])
    right.set(title="residual branch, scaled", xlabel="learning rate", ylabel=f"trainings of {seeds} that failed")
    right.set_xticks(range(len(tried)), [f"{rate:g}" for rate in tried])
    right.set_ylim(0, 1.3 * seeds)
    right.set_yticks(range(seeds + 1))
    right.legend(frameon=False, loc="upper left", fontsize=9)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="two 3x3 see what a 5x5 sees for 18 / 25 of its cost; a scaled residual branch learns more stably",
    source="arXiv 1512.00567 section 3.1 and figure 1; 1602.07261 section 3.3",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
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
