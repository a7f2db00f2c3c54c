"""What the pictures share: a canvas without global state, text that fits its place, and small files."""

import io
import os

import numpy as np

from kresnets._util import files

DOTS = 100  # pixels an inch
TEXT = 11.5  # points, 16 pixels: half of it can still be read
_MOST_BYTES = 290_000  # a README loads such pictures without thought
_MOST_COLOURS = 100_000  # of which 256 are chosen: of more, such as noise has, that takes tens of seconds


def figure(width, height, layout=None):
    """Return a matplotlib figure of so many pixels, drawn by Agg without touching pyplot or the user's backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS, layout=layout, facecolor="white")
    FigureCanvasAgg(made)
    return made


def colours(image):
    """Return an image 0..255 of any channels as red, green and blue 0..1: of two the first as grey, of more the first
    three."""
    image = image.reshape(*image.shape[:2], -1)
    shown = image[..., : 3 if image.shape[-1] > 2 else 1]
    return np.clip(np.broadcast_to(shown, (*image.shape[:2], 3)) / 255, 0, 1)


def photograph(made, box, image):
    """Draw an image 0..255 into a box of a figure: left, bottom, width and height in pixels."""
    across, up = made.bbox.width, made.bbox.height
    axes = made.add_axes((box[0] / across, box[1] / up, box[2] / across, box[3] / up))
    axes.set_axis_off()
    axes.imshow(colours(image))


def legend(made, **options):
    """Draw the legend of a figure; names are taken as they are, not for formulas."""
    for text in made.legend(fontsize=TEXT, frameon=False, **options).get_texts():
        text.set_parse_math(False)


def name_of(made, text, pixels):
    """Return a name for a legend, which leaves out what begins with `_`."""
    short = fitted(made.canvas, text, pixels)
    return f" {short}" if short.startswith("_") else short


def text_width(canvas, text, size=TEXT):
    """Return the width in pixels that `text` takes on a figure's canvas."""
    from matplotlib.font_manager import FontProperties

    return canvas.get_renderer().get_text_width_height_descent(text, FontProperties(size=size), False)[0]


def fitted(canvas, text, pixels, size=TEXT):
    """Return `text` on one line, its middle left out where it is too wide: names often differ at their end."""
    # A folder's name may hold bytes that are no text, which no font can draw.
    text = " ".join(str(text).split()).encode("utf-8", "backslashreplace").decode("utf-8")
    short, kept = text, len(text)
    while kept > 1 and text_width(canvas, short, size) > pixels:
        kept -= max(1, kept // 16)
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def fitted_names(canvas, names, pixels):
    """Return names that fit and still differ: where shortening makes two the same, what all share is left out."""
    short = [fitted(canvas, name, pixels) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    start = len(os.path.commonprefix(names))
    end = len(os.path.commonprefix([name[start:][::-1] for name in names]))
    short = [
        fitted(canvas, f"{'…' * bool(start)}{name[start : len(name) - end]}{'…' * bool(end)}", pixels) for name in names
    ]
    if len(set(short)) == len(set(names)):
        return short
    return [fitted(canvas, f"{number}: {name}", pixels) for number, name in enumerate(names)]


def save(made, path):
    """Write a figure as PNG beside `path` and rename it; where it is big, in fewer colours."""
    from PIL import Image

    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=DOTS)
    if buffer.tell() > _MOST_BYTES:
        image = Image.open(buffer).convert("RGB")
        if image.getcolors(_MOST_COLOURS) is None:
            image = image.point([level & 0xF8 | level >> 5 for level in range(256)] * 3)
        for colours in (256, 128, 64):
            # Of Pillow's methods the one that keeps rare colours, the words and the heat among grey images.
            few = image.width * image.height // 100  # pixels that may still change places
            fewer = image.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=few, dither=Image.Dither.NONE)
            buffer = io.BytesIO()
            fewer.save(buffer, format="png", optimize=True)
            if buffer.tell() <= _MOST_BYTES:
                break
    files.write_bytes(path, buffer.getvalue())
