"""Compare networks by what they cost and what is published of them.

    python apps/compare.py ResNet50 ResNet50D InceptionV4 --picture compare.png
    python apps/compare.py 'ResNet50*' --measure

A multiply-add counts one. Without names: every network that has a published accuracy.
"""

import argparse
import csv
import dataclasses
import difflib
import fnmatch
import io
import pathlib
import statistics

import _common

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


def main(argv=None):
    options = _arguments(argv)
    _common.import_tensorflow()
    if options.blocks:
        print(blocks())
        if not options.networks:
            return 0
    names = chosen(options.networks)
    lines = [line(name, options.size) for name in names]
    if options.measure:
        lines = measured(lines, options)
    print(table(lines))
    if options.csv:
        _common.write_text(options.csv, to_csv(lines))
    if options.picture:
        from _bubbles import bubbles

        without = [each.network for each in lines if each.top1 is None]
        if len(without) == len(lines):
            raise ValueError(f"--picture needs a published accuracy, and there is none for {', '.join(without)}.")
        bubbles(lines, options.picture)
        if without:
            print(f"Not in the picture, since no accuracy of theirs is published here: {', '.join(without)}.")
    return 0


def _arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "networks", metavar="NETWORK", nargs="*", help=f"name or pattern such as 'ResNet50*'; {ALEXNET} too"
    )
    parser.add_argument("--size", type=_common.positive_int, help="pixels a side (default: each network's own)")
    parser.add_argument("--csv", metavar="FILE", type=pathlib.Path, help="write the table as CSV")
    parser.add_argument(
        "--picture", metavar="FILE", type=pathlib.Path, help="draw accuracy against multiply-adds, as PNG"
    )
    parser.add_argument("--blocks", action="store_true", help="show the arithmetic of the residual blocks")
    parser.add_argument("--measure", action="store_true", help="measure prediction and training steps on this machine")
    parser.add_argument("--batch-size", type=_common.positive_int, default=16, help="of --measure (default: 16)")
    parser.add_argument("--dtype", choices=("float32", "mixed_bfloat16"), default="float32", help="of --measure")
    parser.add_argument("--rounds", type=_common.positive_int, default=3, help="of --measure, alternating (default: 3)")
    parser.add_argument("--steps", type=_common.positive_int, default=3, help="of --measure, in a round (default: 3)")
    return parser.parse_args(argv)


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


def measured(lines, options):
    """Return the lines with times: the median over rounds, in each of which every network has its turn."""
    import keras
    from _bench.peers import Prediction, Training

    from kresnets.devices.hardware import describe

    keras.mixed_precision.set_dtype_policy(options.dtype)
    print(f"{options.dtype}, batches of {options.batch_size}; {describe()}")
    runs = {}
    for each in lines:
        model, sizes = _build(each.network, each.pixels), (each.pixels, options.batch_size, options.steps)
        runs[each.network] = Prediction(model, *sizes), Training(model, *sizes)
        for run in runs[each.network]:
            run()  # traces
    times = {name: ([], []) for name in runs}
    for _ in range(options.rounds):
        for name, pair in runs.items():
            for run, found in zip(pair, times[name], strict=True):
                found.append(1000 * run())
    keras.mixed_precision.set_dtype_policy("float32")
    found = {name: [round(statistics.median(each), 1) for each in pair] for name, pair in times.items()}
    names, how = ("predict_ms", "step_ms"), dict(batch_size=options.batch_size, dtype=options.dtype)
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
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, lines))
    return text.getvalue()


def blocks(channels=64, side=56):
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


if __name__ == "__main__":
    _common.run(main)
