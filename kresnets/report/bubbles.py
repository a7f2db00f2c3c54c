"""The picture of `kresnets compare`: published accuracy against multiply-adds, a bubble for each network."""

import math

from kresnets.report import figures

_AREA = 12  # square points for a million parameters
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


def bubbles(lines, path):
    """Draw the lines that have a published accuracy: area by the parameters, colour by the weights.

    Args:
        lines: `compare.Line`s.
        path: PNG file to write.
    """
    shown = sorted((each for each in lines if each.top1 is not None), key=lambda each: -each.parameters)
    canvas = figures.figure(1200, 800, layout="constrained")
    axes = canvas.subplots()
    for number, kind in enumerate(sorted({_source(each) for each in shown})):
        of_kind = [each for each in shown if _source(each) == kind]
        xs, ys = zip(*map(_place, of_kind))
        areas = [_AREA * each.parameters / 1e6 for each in of_kind]
        axes.scatter(xs, ys, s=areas, color=f"C{number % 10}", alpha=0.45, linewidths=0, label=kind)
        axes.scatter(xs, ys, s=8, color=f"C{number % 10}")
    _frame(axes, shown)
    legend = axes.legend(
        title="weights that the accuracy is of", loc="lower right", fontsize=figures.TEXT, framealpha=1
    )
    legend.get_title().set_fontsize(figures.TEXT)
    for handle in legend.legend_handles:
        handle.set_sizes([80])
    canvas.canvas.draw()  # places the axes, which the labels need
    _label(canvas.canvas, axes, shown, legend.get_window_extent().extents)
    figures.save(canvas, path)


def _source(line):
    """Name whose weights and which training: `keras.applications`, `timm a1_in1k`."""
    return f"timm {line.weights.partition('.')[2]}" if line.weights.startswith("timm/") else "keras.applications"


def _place(line):
    return line.multiply_adds_at_top1 / 1e9, line.top1


def _frame(axes, shown):
    from matplotlib.ticker import FixedLocator, NullLocator

    xs, ys = zip(*map(_place, shown))
    left, right = min(xs) / 1.35, max(xs) * 1.5
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(min(ys) - 2, max(ys) + 2)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if left < tick < right]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(labelsize=figures.TEXT)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        "billions of multiply-adds an image, at the pixels of the accuracy (224 unless written)", fontsize=figures.TEXT
    )
    axes.set_ylabel("published top-1 accuracy, %", fontsize=figures.TEXT)
    said = "; ".join(sorted({line.top1_from for line in shown}))
    axes.set_title(
        f"Area: parameters (largest {shown[0].parameters / 1e6:.1f} M). Accuracy from {said}", fontsize=figures.TEXT
    )


def _label(canvas, axes, shown, legend):
    """Write each name where it covers least of other names and bubbles, near to its bubble."""
    height = 1.35 * figures.TEXT / 72 * figures.DOTS
    frame = axes.get_window_extent().extents
    centres = [axes.transData.transform(_place(line)) for line in shown]
    radii = [math.sqrt(_AREA * line.parameters / 1e6 / math.pi) / 72 * figures.DOTS for line in shown]
    taken = [legend, *((x - r / 2, y - r / 2, x + r / 2, y + r / 2) for (x, y), r in zip(centres, radii))]
    for line, (x, y), radius in zip(shown, centres, radii, strict=True):
        text = line.network if line.top1_size == 224 else f"{line.network} @{line.top1_size}"
        width = figures.text_width(canvas, text) + 6
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in _offsets(width, height, radius)]
        inside = [
            box for box in boxes if frame[0] < box[0] and box[2] < frame[2] and frame[1] < box[1] and box[3] < frame[3]
        ]
        # The first of those that cover least: the offsets come nearest first.
        box = min(inside or boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(box)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        far = abs(middle[1] - y) > radius + height or abs(middle[0] - x) > radius + 0.6 * width
        to_data = axes.transData.inverted().transform
        axes.annotate(
            text, to_data((x, y)), to_data(middle), fontsize=figures.TEXT, ha="center", va="center",
            arrowprops=dict(arrowstyle="-", color="0.5", shrinkA=8, shrinkB=2) if far else None,
        )  # fmt: skip


def _offsets(width, height, radius):
    """Return where a label's lower left corner may lie, from the centre of its bubble, nearest first."""
    near = [
        (radius + 1, -height / 2),
        (-width - radius - 1, -height / 2),
        (-width / 2, radius),
        (-width / 2, -height - radius),
    ]
    steps = [(dx * width / 2, dy * height) for dx in range(-4, 4) for dy in range(-5, 6)]
    return near + sorted(steps, key=lambda step: (step[0] + width / 2) ** 2 / 4 + (step[1] + height / 2) ** 2)


def _overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)
