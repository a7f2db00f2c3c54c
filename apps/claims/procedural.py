"""Pictures made by procedure, from which small trunks are taught: nothing photographed or written is in them.

A class is one draw of a family's parameters (a spectrum, a set of strokes, a habit of cracking); a picture of the class
is one draw of everything else: place, turn, phase, contrast, light, grain, colour. That networks can learn to see from
such pictures is the finding of arXiv 2106.05963.
"""

import math

import numpy as np
import scipy.fft
from PIL import Image, ImageDraw

FAMILIES = ("noise", "gratings", "textures", "shapes", "strokes", "cracks")
_OVERSAMPLED = 2  # lines are drawn so many times larger, then averaged down
_BATCH = 64  # pictures of a class that are made at once


def pictures(classes, per_class, size, seed, families=FAMILIES, draw=0, colour=0.25):
    """Draw labelled pictures of classes that are themselves drawn.

    Args:
        classes: number of classes, from 1; class c belongs to family `c % len(families)`.
        per_class: pictures of each, from 1.
        size: pixels a side, from 16.
        seed: decides the classes, and with `draw` the pictures.
        families: some of `FAMILIES`.
        draw: another number gives other pictures of the same classes.
        colour: share of the pictures that have a colour, 0..1; in the others the three channels are equal.

    Returns:
        (images, labels): uint8 `(classes * per_class, size, size, 3)`, and int64 `(classes * per_class,)`, in the order
        of the classes.

    Raises:
        ValueError: for numbers out of range and for a family that there is not.
    """
    for name, value, least in (("classes", classes, 1), ("per_class", per_class, 1), ("size", size, 16)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{name}` must be a whole number from {least}. Received: {value!r}")
    if not families or not set(families) <= set(FAMILIES):
        raise ValueError(f"`families` must be some of {', '.join(FAMILIES)}. Received: {families!r}")
    if not 0 <= colour <= 1:
        raise ValueError(f"`colour` is a share, 0..1. Received: {colour!r}")
    images = np.empty((classes, per_class, size, size, 3), np.uint8)
    for label in range(classes):
        draw_habit, paint = _FAMILIES[families[label % len(families)]]
        habit = draw_habit(np.random.default_rng((seed, label)))
        rng = np.random.default_rng((seed, label, 1 + draw))
        for start in range(0, per_class, _BATCH):
            part = images[label, start : start + _BATCH]
            part[:] = _photographed(paint(habit, rng, len(part), size), rng, colour)
    return images.reshape(-1, size, size, 3), np.repeat(np.arange(classes), per_class)


# --- noise: white noise through a filter of the class's frequencies and direction ------------------------------------


def _noise_habit(rng):
    return {
        "frequency": math.exp(rng.uniform(math.log(1.5), math.log(18))),  # periods a picture
        "octaves": rng.uniform(0.25, 1.2),  # width of the band
        "slope": rng.uniform(0.5, 2.0),  # of amplitude over frequency, where the spectrum falls instead
        "falls": rng.random() < 0.35,
        "direction": rng.uniform(0, math.pi),
        "directed": rng.choice([0.0, 0.0, 2.0, 8.0]),
        "bent": rng.choice(["not", "ridges", "patches", "spots"]),
    }


def _noise(habit, rng, count, size):
    turn = habit["direction"] + rng.normal(0, 0.08, (count, 1, 1))
    frequency = habit["frequency"] * np.exp(rng.normal(0, 0.06, (count, 1, 1)))
    field = _filtered(rng, size, turn, frequency, habit)
    if habit["bent"] == "ridges":
        return 1 - 1.5 * np.abs(field)
    if habit["bent"] == "patches":
        return np.tanh(4 * field)
    return np.exp(field) - 1 if habit["bent"] == "spots" else field


def _filtered(rng, size, turn, frequency, habit):
    """Return fields of mean 0 and deviation 1, `(count, size, size)`."""
    down, across = scipy.fft.fftfreq(size, 1 / size)[:, None], scipy.fft.rfftfreq(size, 1 / size)[None, :]
    radius = np.hypot(down, across)
    radius[0, 0] = 1e-3
    if habit["falls"]:
        response = (1 + radius / frequency) ** -(2 * habit["slope"])
    else:
        response = np.exp(-0.5 * (np.log2(radius / frequency) / habit["octaves"]) ** 2)
    response = response * np.exp(habit["directed"] * (np.cos(2 * (np.arctan2(down, across) - turn)) - 1))
    response[:, 0, 0] = 0
    white = rng.standard_normal((len(turn), *radius.shape, 2), np.float32).view(np.complex64)[..., 0]
    return _standardised(scipy.fft.irfft2(white * response.astype(np.float32), s=(size, size)))


def _smooth(rng, count, size, frequency):
    """Return soft fields of about so many bumps a picture, deviation 1: a few waves of random direction."""
    y, x = _grid(size)
    field = np.zeros((count, size, size), np.float32)
    for _ in range(3):
        angle, phase = rng.uniform(0, 2 * math.pi, (2, count, 1, 1)).astype(np.float32)
        wave = np.float32(math.pi * frequency) * rng.uniform(0.5, 1.2, (count, 1, 1)).astype(np.float32)
        field += np.sin(wave * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return field / np.float32(math.sqrt(1.5))


# --- gratings: one to three waves, added or multiplied ---------------------------------------------------------------


def _gratings_habit(rng):
    count = int(rng.choice([1, 1, 2, 2, 3]))
    return {
        "frequencies": np.exp(rng.uniform(math.log(2), math.log(16), count)),
        "directions": rng.uniform(0, math.pi) + rng.uniform(0.4, 2.7, count) * (np.arange(count) > 0),
        "forms": rng.choice(["sine", "square", "line", "line"], count),
        "sharpness": rng.uniform(2, 12, count),
        "weights": rng.uniform(0.5, 1, count),
        "product": rng.random() < 0.3,
        "warp": rng.choice([0.0, 0.0, 0.15, 0.5]),
    }


def _gratings(habit, rng, count, size):
    y, x = _grid(size)
    turn = rng.normal(0, 0.12, (count, 1, 1)).astype(np.float32)
    scale = np.exp(rng.normal(0, 0.08, (count, 1, 1))).astype(np.float32)
    warp = np.float32(habit["warp"]) * _smooth(rng, count, size, 2) if habit["warp"] else np.float32(0)
    waves = []
    for index, frequency in enumerate(habit["frequencies"]):
        angle = np.float32(habit["directions"][index]) + turn
        phase = rng.uniform(0, 2 * math.pi, (count, 1, 1)).astype(np.float32)
        along = np.cos(angle) * x + np.sin(angle) * y
        wave = np.sin(np.float32(math.pi * frequency) * scale * (along + 0.2 * warp) + phase)
        form, sharpness = habit["forms"][index], np.float32(habit["sharpness"][index])
        if form == "square":
            wave = np.tanh(sharpness * wave)
        elif form == "line":
            wave = 1 - 2 * np.exp(sharpness * (wave - 1))
        waves.append(np.float32(habit["weights"][index]) * wave)
    return math.prod(waves) if habit["product"] else sum(waves)


# --- textures: grains around scattered points (Voronoi cells) --------------------------------------------------------


def _textures_habit(rng):
    return {
        "cells": math.exp(rng.uniform(math.log(5), math.log(40))),
        "regular": rng.choice([0.1, 0.5, 1.0]),  # how far points stray from a lattice, in cells
        "stretch": math.exp(rng.uniform(0, 1.0)),
        "direction": rng.uniform(0, math.pi),
        "grey": rng.choice([0.0, 1.0, 1.0]),  # each grain its own
        "border": rng.uniform(-2, 2),
        "border_width": rng.uniform(0.05, 0.3),  # in cells
        "bump": rng.choice([0.0, 0.0, 1.0, -1.0]),
    }


def _textures(habit, rng, count, size):
    y, x = _grid(size)
    pitch = 2 / math.sqrt(habit["cells"])
    images = np.empty((count, size, size), np.float32)
    for image in images:
        turn = habit["direction"] + rng.normal(0, 0.15)
        stretch = math.sqrt(habit["stretch"]) * math.exp(rng.normal(0, 0.05))
        u = (math.cos(turn) * x + math.sin(turn) * y) * stretch
        v = (math.cos(turn) * y - math.sin(turn) * x) / stretch
        nearest, second, grey = _cells(habit, rng, u, v, pitch)
        edge = np.exp(-(((second - nearest) / (habit["border_width"] * pitch)) ** 2))
        image[:] = habit["grey"] * grey - habit["border"] * edge + habit["bump"] * (2 * nearest / pitch - 1)
    return images


def _cells(habit, rng, u, v, pitch):
    """Return the distances to the nearest and the second point, and the nearest one's random grey."""
    rows = np.arange(v.min() - pitch * rng.random(), v.max() + pitch, pitch)
    columns = np.arange(u.min() - pitch * rng.random(), u.max() + pitch, pitch)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    points[:, 1] += pitch / 2 * (np.arange(len(points)) // len(columns) % 2)
    points += pitch * habit["regular"] * rng.uniform(-0.5, 0.5, points.shape)
    nearest = np.full_like(u, 1e3)
    second, grey = nearest.copy(), np.zeros_like(u)
    for (row, column), level in zip(points.astype(np.float32), rng.normal(0, 0.7, len(points)).astype(np.float32)):
        distance = (u - column) ** 2 + (v - row) ** 2
        grey[distance < nearest] = level
        second = np.minimum(second, np.maximum(distance, nearest))
        nearest = np.minimum(nearest, distance)
    return np.sqrt(nearest), np.sqrt(second), grey


# --- shapes and strokes: outlines and curves through the class's own points ------------------------------------------


def _shapes_habit(rng):
    kind = rng.choice(["polygon", "star", "blob", "blob"])
    corners = int(rng.integers(3, 9))
    angles = np.arange(corners) * 2 * math.pi / corners
    if kind == "star":
        radii = np.where(np.arange(corners) % 2, rng.uniform(0.3, 0.6), 1.0)
    else:
        radii = rng.uniform(0.4, 1, corners)
    points = np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]
    points[:, 0] *= rng.uniform(0.4, 1)
    number = int(rng.choice([1, 1, 2, 4, 9]))
    return {
        "points": points,
        "round": kind == "blob",
        "number": number,
        "radius": rng.uniform(0.5, 0.9) / math.sqrt(number),  # of half a picture
        "filled": rng.random() < 0.65,
        "width": rng.uniform(0.03, 0.1),
        "turns": rng.choice([0.25, math.pi]),
        "nested": rng.random() < 0.25,
    }


def _shapes(habit, rng, count, size):
    return np.stack([_shape(habit, rng, size) for _ in range(count)]) + 0.15 * _smooth(rng, count, size, 3)


def _shape(habit, rng, size):
    picture, pen, side = _canvas(size)
    width = max(int(habit["width"] * side * rng.uniform(0.7, 1.3)), 1)
    for _ in range(habit["number"]):
        radius = habit["radius"] * math.exp(rng.normal(0, 0.15))
        room = max(1 - radius, 0.1)
        outline = habit["points"] + rng.normal(0, 0.05, habit["points"].shape)
        outline = _turned(outline, rng.uniform(-1, 1) * habit["turns"]) * radius + rng.uniform(-room, room, 2)
        outline = _closed(outline) if habit["round"] else outline
        pen.polygon(_pixels(outline, side), fill=255 if habit["filled"] else None, outline=255, width=width)
        if habit["nested"]:
            inner = outline.mean(0) + (outline - outline.mean(0)) * 0.45
            pen.polygon(_pixels(inner, side), fill=0 if habit["filled"] else 255)
    return _shrunk(picture)


def _closed(points):
    """Return a smooth closed curve through the points: their trigonometric interpolation."""
    curve = scipy.fft.fft(points[:, 0] + 1j * points[:, 1])
    half = (len(points) + 1) // 2
    padded = np.concatenate([curve[:half], np.zeros(32 - len(points)), curve[half:]])
    points = scipy.fft.ifft(padded) * 32 / len(curve)
    return np.stack([points.real, points.imag], -1)


_TIME = np.linspace(0, 1, 14)[:, None]
_BERNSTEIN = np.concatenate(
    [(1 - _TIME) ** 3, 3 * _TIME * (1 - _TIME) ** 2, 3 * _TIME**2 * (1 - _TIME), _TIME**3], axis=1
)  # of a cubic Bezier curve


def _strokes_habit(rng):
    count = int(rng.choice([1, 2, 2, 3, 4]))
    points = rng.uniform(-0.75, 0.75, (count, 4, 2))
    joined = rng.random(count) < 0.6  # a stroke goes on where the last one ended, as a pen does
    for index in range(1, count):
        if joined[index]:
            points[index] += points[index - 1, 3] - points[index, 0]
    low, high = points.min((0, 1)), points.max((0, 1))
    points = (points - (low + high) / 2) * 1.4 / max(high - low)
    return {"points": points, "width": rng.uniform(0.05, 0.12)}


def _strokes(habit, rng, count, size):
    images = np.empty((count, size, size), np.float32)
    for image in images:
        picture, pen, side = _canvas(size)
        width = max(int(habit["width"] * math.exp(rng.normal(0, 0.25)) * side), 2)
        points = habit["points"] + rng.normal(0, 0.06, habit["points"].shape)
        points = _turned(points, rng.normal(0, 0.15)) * rng.uniform(0.75, 1.15) * np.array([rng.uniform(0.75, 1.1), 1])
        points[..., 0] += rng.normal(0, 0.15) * points[..., 1]
        points += rng.normal(0, 0.08, 2)
        for controls in points:
            line = _pixels(_BERNSTEIN @ controls, side)
            pen.line(line, fill=255, width=width, joint="curve")
            for x, y in (line[0], line[-1]):  # round ends
                pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
        image[:] = _shrunk(picture)
    return images


# --- cracks: thin broken lines and dark areas on a grainy, ruled ground ----------------------------------------------


def _cracks_habit(rng):
    area = rng.choice(["none", "none", "patch", "band", "corner", "comb"])
    number = int(rng.choice([0, 1, 1, 2, 4]))
    return {
        "number": max(number, 1) if area == "none" else number,
        "steps": int(rng.choice([4, 8, 14])),
        "length": rng.uniform(0.8, 2.0),
        "bend": rng.uniform(0.05, 0.7),
        "branches": rng.choice([0.0, 0.0, 0.15, 0.4]),
        "direction": rng.uniform(0, math.pi) if rng.random() < 0.5 else None,
        "width": rng.uniform(0.008, 0.035),
        "bright": rng.random() < 0.15,
        "area": area,
        "depth": rng.uniform(0.3, 0.9),
        "ruled": int(rng.choice([0, 0, 2, 3, 5])),
        "ground": rng.choice([0.1, 0.4]),
    }


def _cracks(habit, rng, count, size):
    images = np.empty((count, size, size), np.float32)
    for image in images:
        picture, pen, side = _canvas(size)
        _dark_area(habit, rng, pen, side)
        for index in range(habit["ruled"]):
            at = int((index + 0.5 + rng.normal(0, 0.03)) / habit["ruled"] * side)
            pen.line([(at, 0), (at, side)], fill=int(rng.uniform(90, 160)), width=max(side // 50, 1))
        for _ in range(habit["number"]):
            start = rng.uniform(-0.8, 0.8, 2)
            straight = habit["direction"]
            angle = rng.uniform(0, 2 * math.pi) if straight is None else straight + rng.normal(0, 0.15)
            _crack(habit, rng, pen, side, start, angle, habit["steps"])
        image[:] = _shrunk(picture)
    ground = habit["ground"] * _smooth(rng, count, size, 2)
    return ground + 2 * images if habit["bright"] else ground - 2 * images


def _crack(habit, rng, pen, side, at, angle, steps):
    step = habit["length"] / habit["steps"]
    points = [at]
    for left in range(steps, 0, -1):
        angle += rng.normal(0, habit["bend"])
        at = at + step * np.array([math.cos(angle), math.sin(angle)])
        points.append(at)
        if left > 2 and rng.random() < habit["branches"]:
            _crack(habit, rng, pen, side, at, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1), left // 2)
    width = max(round(habit["width"] * side * rng.uniform(0.8, 1.3)), 1)
    pen.line(_pixels(np.stack(points), side), fill=255, width=width)


def _dark_area(habit, rng, pen, side):
    ink = int(255 * habit["depth"] * rng.uniform(0.7, 1))
    at = rng.uniform(0, side, 2)
    extent = rng.uniform(0.2, 0.5) * side
    if habit["area"] == "patch":
        angles = np.sort(rng.uniform(0, 2 * math.pi, 7))
        radii = extent * rng.uniform(0.4, 1, 7)
        pen.polygon([(at[0] + r * math.cos(a), at[1] + r * math.sin(a)) for a, r in zip(angles, radii)], fill=ink)
    elif habit["area"] == "band":
        pen.rectangle([at[0], -1, at[0] + extent / 2, side], fill=ink)
    elif habit["area"] == "corner":
        x, y = rng.choice([0, side], 2)
        reach = [(x, y), (abs(x - 2 * extent), y), (x, abs(y - extent * rng.uniform(1, 2)))]
        pen.polygon(reach, fill=ink)
    elif habit["area"] == "comb":
        for index in range(int(rng.integers(3, 8))):
            x = at[0] + index * side * 0.05
            pen.rectangle([x, at[1] - extent * rng.random(), x + side * 0.03, at[1] + extent * rng.random()], fill=ink)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _grid(size):
    """Return y `(size, 1)` and x `(1, size)`, -1..1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[:, None], line[None, :]


def _canvas(size):
    picture = Image.new("L", (size * _OVERSAMPLED,) * 2)
    return picture, ImageDraw.Draw(picture), size * _OVERSAMPLED


def _shrunk(picture):
    return np.asarray(picture.reduce(_OVERSAMPLED), np.float32) / np.float32(255)


def _pixels(points, side):
    return list(map(tuple, (side / 2 * (1 + points)).tolist()))


def _turned(points, angle):
    cosine, sine = math.cos(angle), math.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _standardised(fields):
    fields = fields - fields.mean((1, 2), keepdims=True)
    return fields / np.maximum(fields.std((1, 2), keepdims=True), 1e-3)


def _photographed(fields, rng, colour):
    """Turn fields `(count, size, size)` into photographs: contrast, light from a side, grain, perhaps a colour."""
    count, size = fields.shape[:2]
    y, x = _grid(size)

    def drawn(low, high):
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    sign = np.where(rng.random((count, 1, 1)) < 0.25, -1, 1).astype(np.float32)
    brightness = drawn(0.25, 0.75)
    grey = sign * np.exp(drawn(math.log(0.08), math.log(0.35))) * _standardised(fields)
    grey += brightness + drawn(-0.12, 0.12) * x + drawn(-0.12, 0.12) * y
    grey += np.exp(drawn(math.log(0.005), math.log(0.08))) * rng.standard_normal(grey.shape, np.float32)
    images = np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=-1)
    tinted = np.flatnonzero(rng.random(count) < colour)
    dark, bright = rng.uniform(0, 0.5, (len(tinted), 1, 1, 3)), rng.uniform(0.5, 1, (len(tinted), 1, 1, 3))
    images[tinted] = dark + images[tinted] * (bright - dark)
    return (images * np.float32(255) + np.float32(0.5)).astype(np.uint8)


_FAMILIES = {
    "noise": (_noise_habit, _noise),  # filtered noise
    "gratings": (_gratings_habit, _gratings),  # gratings, plaids, meshes
    "textures": (_textures_habit, _textures),  # grains and cells
    "shapes": (_shapes_habit, _shapes),  # blobs and polygons
    "strokes": (_strokes_habit, _strokes),  # thick curves
    "cracks": (_cracks_habit, _cracks),  # cracks, lines, dark areas
}
