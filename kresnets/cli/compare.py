"""Compare networks by what they cost and what is published of them."""

import csv as csv_files
import dataclasses
import difflib
import fnmatch
import io
import pathlib
import statistics
from typing import Literal

from kresnets._util import files
from kresnets.cli.options import Count, Flag

ALEXNET = "AlexNet"  # counted for scale; it has no builder and no weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A network's line in the table and in the CSV.

    Args:
        network: its name.
        pixels: a side, that the costs are counted at.
        depth, parameters, statistics, multiply_adds, activation_bytes: see `kresnets.summarize`.
        top1: published accuracy in percent, measured at `top1_size` pixels with the weights `weights`; None where there
            is none.
        top1_from: who published it.
        multiply_adds_at_top1: multiply-adds at `top1_size`.
        predict_ms, step_ms: measured milliseconds to predict, and to train on, a batch of `batch_size` in `dtype`.
    """

    network: str
    pixels: int
    depth: int
    parameters: int
    statistics: int
    multiply_adds: int
    activation_bytes: int
    top1: float | None = None
    top1_size: int | None = None
    weights: str | None = None
    top1_from: str | None = None
    multiply_adds_at_top1: int | None = None
    predict_ms: float | None = None
    step_ms: float | None = None
    batch_size: int | None = None
    dtype: str | None = None


def compare(
    *networks: str,
    size: Count | None = None,
    csv: pathlib.Path | None = None,
    picture: pathlib.Path | None = None,
    blocks: Flag = False,
    measure: Flag = False,
    batch_size: Count = 16,
    dtype: Literal["float32", "mixed_bfloat16"] = "float32",
    rounds: Count = 3,
    steps: Count = 3,
) -> None:
    """Compare networks by what they cost and what is published of them.

    kresnets compare ResNet50 ResNet50D InceptionV4 --picture compare.png

    A multiply-add counts one. Without names: every network that has a published accuracy.

    Args:
        networks: Names or patterns such as 'ResNet50*'; AlexNet too.
        size: Pixels a side. Left out: each network's own.
        csv: Write the table as CSV into this file.
        picture: Draw accuracy against multiply-adds into this PNG file.
        blocks: Show the arithmetic of the residual blocks.
        measure: Measure prediction and training steps on this machine.
        batch_size: Images in a batch of --measure.
        dtype: What --measure computes in.
        rounds: Rounds of --measure, in each of which every network has its turn.
        steps: Steps of --measure in a round.
    """
    if blocks:
        print(block_arithmetic())
        if not networks:
            return
    lines = [line(name, size) for name in chosen(networks)]
    if measure:
        lines = measured(lines, batch_size, dtype, rounds, steps)
    print(table(lines))
    if csv:
        files.write_text(csv, to_csv(lines))
    if picture:
        from kresnets.report.bubbles import bubbles

        without = [each.network for each in lines if each.top1 is None]
        if len(without) == len(lines):
            raise ValueError(f"--picture needs a published accuracy, and there is none for {', '.join(without)}.")
        bubbles(lines, picture)
        if without:
            print(f"Not in the picture, since no accuracy of theirs is published here: {', '.join(without)}.")


def chosen(patterns):
    """Return the names that are meant, in the order given, each once; none given: those with a published accuracy."""
    import kresnets
    from kresnets.weights import sources

    known = [*kresnets.SPECS, ALEXNET]
    if not patterns:
        rows = {name: sources.best(name) for name in known}
        return [name for name, row in rows.items() if row is not None and row.top1 is not None]
    names = {}
    for pattern in patterns:
        found = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            lower = {name.lower(): name for name in known}
            close = [lower[name] for name in difflib.get_close_matches(pattern.lower(), lower, n=4, cutoff=0.5)]
            hint = f"close names are {', '.join(close)}" if close else f"there are {', '.join(known)}"
            raise ValueError(f"There is no network {pattern!r}: {hint}.")
        names.update(dict.fromkeys(found))
    return list(names)


def count(name, size=None):
    """Summarize a network without giving its weights values, which is what takes the time in building it.

    Args:
        name: of a builder, or `"AlexNet"` (always at its own size, which its head is made for).
        size: pixels a side; None for the network's own.

    Returns:
        A `kresnets.Summary`.
    """
    import keras

    import kresnets

    try:
        with keras.StatelessScope(initialize_variables=False):
            model = _build(name, size)
        return kresnets.summarize(model)
    finally:
        # Keras holds the variables to give them values later, unless it is told to forget all.
        keras.backend.clear_session()


def _build(name, size):
    import kresnets
    from kresnets.analysis import alexnet

    if name == ALEXNET:
        return alexnet()
    shape = None if size is None else ((3, size, size), (size, size, 3))[_channels_last()]
    return getattr(kresnets, name)(weights=None, input_shape=shape)


def _channels_last():
    import keras

    return keras.config.image_data_format() == "channels_last"


def line(name, size=None):
    """Return the `Line` of a network, counted at `size` pixels a side, without measured times."""
    from kresnets.weights import sources

    summary = count(name, size)
    published = sources.best(name)
    known = {}
    if published is not None and published.top1 is not None:
        pixels = published.top1_size
        same = pixels == _pixels(summary)
        known = dict(
            top1=published.top1,
            top1_size=pixels,
            weights=published.tag,
            top1_from=published.top1_from,
            multiply_adds_at_top1=summary.multiply_adds if same else count(name, pixels).multiply_adds,
        )
    costs = ("depth", "parameters", "statistics", "multiply_adds", "activation_bytes")
    return Line(network=name, pixels=_pixels(summary), **{cost: getattr(summary, cost) for cost in costs}, **known)


def _pixels(summary):
    return summary.input_shapes[0][1]  # height or width, in either data format


def measured(lines, batch_size, dtype, rounds, steps):
    """Return the lines with times: the median over rounds, in each of which every network has its turn."""
    import keras

    from kresnets.analysis.timing import Prediction, Training
    from kresnets.devices.hardware import describe

    keras.mixed_precision.set_dtype_policy(dtype)
    print(f"{dtype}, batches of {batch_size}; {describe()}")
    runs = {}
    for each in lines:
        model, sizes = _build(each.network, each.pixels), (each.pixels, batch_size, steps)
        runs[each.network] = Prediction(model, *sizes), Training(model, *sizes)
        for run in runs[each.network]:
            run()  # traces
    times = {name: ([], []) for name in runs}
    for _ in range(rounds):
        for name, pair in runs.items():
            for run, found in zip(pair, times[name], strict=True):
                found.append(1000 * run())
    keras.mixed_precision.set_dtype_policy("float32")
    found = {name: [round(statistics.median(each), 1) for each in pair] for name, pair in times.items()}
    names, how = ("predict_ms", "step_ms"), dict(batch_size=batch_size, dtype=dtype)
    return [dataclasses.replace(each, **dict(zip(names, found[each.network])), **how) for each in lines]


def table(lines):
    """Return the lines as text."""
    header = ["network", "pixels", "depth", "parameters", "multiply-adds", "kept in training", "top-1 %", "weights"]
    timed = any(each.step_ms is not None for each in lines)
    cells = [header + ["predict", "train"] * timed]
    for each in lines:
        published = ["-", "-"]
        if each.top1 is not None:
            at = f" at {each.top1_size}" if each.top1_size != each.pixels else ""
            published = [f"{each.top1:.2f}{at}", each.weights]
        costs = [
            f"{each.parameters / 1e6:.2f} M",
            f"{each.multiply_adds / 1e9:.2f} G",
            f"{each.activation_bytes / 1e6:.1f} MB",
        ]
        cells.append([each.network, str(each.pixels), str(each.depth), *costs, *published])
        if timed:
            cells[-1] += [f"{ms:.0f} ms" for ms in (each.predict_ms, each.step_ms)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    words = (header.index("network"), header.index("top-1 %"), header.index("weights"))
    rows = [
        "  ".join(f"{c:{'<' if i in words else '>'}{w}}" for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]
    notes = ["", "Multiply-adds and memory are for one image; top-1 is published, not measured here."]
    if timed:
        notes.append(
            f"Times are for a batch of {lines[0].batch_size} images: medians, on a machine that others may share."
        )
    return "\n".join([*rows, *notes])


def to_csv(lines):
    """Return the lines as CSV."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Line)]
    writer = csv_files.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, lines))
    return text.getvalue()


def block_arithmetic(channels=64, side=56):
    """Return the arithmetic of the residual blocks as text, counted from blocks that are built."""
    import keras

    import kresnets
    from kresnets.networks.resnet import residual_block

    kinds = (
        ("two 3x3 on C channels", "ResNet18", channels, channels),
        ("bottleneck on 4C channels", "ResNet50B", channels, 4 * channels),
        ("two 3x3 on 4C channels", "ResNet18", 4 * channels, 4 * channels),
    )
    area = side * side
    out = [f"Convolutions of a block, C = {channels}, H = W = {side}; a multiply-add is two operations"]
    out.append(f"{'':26}{'parameters':>12}{'/ C^2':>8}{'operations':>16}{'/ C^2HW':>9}")
    for name, row, width, outside in kinds:
        image = keras.Input((side, side, outside) if _channels_last() else (outside, side, side), name="stem_input")
        block = residual_block(image, kresnets.SPECS[row], width, 1, name="stage1_block1")
        layers = kresnets.summarize(keras.Model(image, block)).layers
        parameters = sum(layer.parameters for layer in layers if layer.weight_layers)
        operations = 2 * sum(layer.multiply_adds for layer in layers)
        shares = parameters / channels**2, operations / channels**2 / area
        out.append(f"{name:26}{parameters:12,}{shares[0]:8g}{operations:16,}{shares[1]:9g}")
    return "\n".join(out)
