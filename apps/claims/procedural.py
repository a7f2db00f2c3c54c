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
_COLOURED = 0.25  # share of the pictures
_BATCH = 64  # pictures of a class that are made at once


def pictures(classes, per_class, size, seed, families=FAMILIES, draw=0):
    """Draw labelled pictures of classes that are themselves drawn.

    Args:
        classes: number of classes; class c belongs to family `c % len(families)`.
        per_class: pictures of each.
        size: pixels a side.
        seed: decides the classes, and with `draw` the pictures.
        families: some of `FAMILIES`.
        draw: another number gives other pictures of the same classes.

    Returns:
        (images, labels): uint8 `(classes * per_class, size, size, 3)`, a quarter of them in colour, and int64
        `(classes * per_class,)`, in the order of the classes.
    """
    images = np.empty((classes, per_class, size, size, 3), np.uint8)
    for label in range(classes):
        paint = _FAMILIES[families[label % len(families)]](np.random.default_rng((seed, label)))
        rng = np.random.default_rng((seed, label, 1 + draw))
        for start in range(0, per_class, _BATCH):
            part = images[label, start : start + _BATCH]
            part[:] = _photographed(paint(rng, len(part), size), rng)
    return images.reshape(-1, size, size, 3), np.repeat(np.arange(classes), per_class)


# Each family draws the parameters of a class, and returns a function that paints so many of its pictures, as fields.


def _noise(rng):
    """White noise through a filter of the class's frequencies and direction."""
    middle = math.exp(rng.uniform(math.log(1.5), math.log(18)))  # periods a picture
    octaves = rng.uniform(0.25, 1.2)  # width of the band
    slope = rng.uniform(0.5, 2.0)  # of amplitude over frequency, where the spectrum falls instead
    falls, direction = rng.random() < 0.35, rng.uniform(0, math.pi)
    directed, bent = rng.choice([0.0, 0.0, 2.0, 8.0]), rng.choice(["not", "ridges", "patches", "spots"])

    def paint(rng, count, size):
        turn = direction + rng.normal(0, 0.08, (count, 1, 1))
        frequency = middle * np.exp(rng.normal(0, 0.06, (count, 1, 1)))
        down, across = scipy.fft.fftfreq(size, 1 / size)[:, None], scipy.fft.rfftfreq(size, 1 / size)[None, :]
        radius = np.hypot(down, across)
        radius[0, 0] = 1e-3
        if falls:
            response = (1 + radius / frequency) ** -(2 * slope)
        else:
            response = np.exp(-0.5 * (np.log2(radius / frequency) / octaves) ** 2)
        response = response * np.exp(directed * (np.cos(2 * (np.arctan2(down, across) - turn)) - 1))
        response[:, 0, 0] = 0
        white = rng.standard_normal((count, *radius.shape, 2), np.float32).view(np.complex64)[..., 0]
        field = _standardised(scipy.fft.irfft2(white * response.astype(np.float32), s=(size, size)))
        if bent == "ridges":
            return 1 - 1.5 * np.abs(field)
        if bent == "patches":
            return np.tanh(4 * field)
        return np.exp(field) - 1 if bent == "spots" else field

    return paint


def _gratings(rng):
    """Gratings, plaids, meshes: one to three waves, added or multiplied."""
    number = int(rng.choice([1, 1, 2, 2, 3]))
    frequencies = np.exp(rng.uniform(math.log(2), math.log(16), number))
    directions = rng.uniform(0, math.pi) + rng.uniform(0.4, 2.7, number) * (np.arange(number) > 0)
    forms = rng.choice(["sine", "square", "line", "line"], number)
    sharpness, weights = rng.uniform(2, 12, number), rng.uniform(0.5, 1, number)
    product, warped = rng.random() < 0.3, rng.choice([0.0, 0.0, 0.15, 0.5])

    def paint(rng, count, size):
        y, x = _grid(size)
        turn = rng.normal(0, 0.12, (count, 1, 1)).astype(np.float32)
        scale = np.exp(rng.normal(0, 0.08, (count, 1, 1))).astype(np.float32)
        warp = np.float32(warped) * _smooth(rng, count, size, 2) if warped else np.float32(0)
        waves = []
        for frequency, direction, form, sharp, weight in zip(frequencies, directions, forms, sharpness, weights):
            angle, sharp = np.float32(direction) + turn, np.float32(sharp)
            phase = rng.uniform(0, 2 * math.pi, (count, 1, 1)).astype(np.float32)
            along = np.cos(angle) * x + np.sin(angle) * y
            wave = np.sin(np.float32(math.pi * frequency) * scale * (along + 0.2 * warp) + phase)
            if form == "square":
                wave = np.tanh(sharp * wave)
            elif form == "line":
                wave = 1 - 2 * np.exp(sharp * (wave - 1))
            waves.append(np.float32(weight) * wave)
        return math.prod(waves) if product else sum(waves)

    return paint


def _textures(rng):
    """Grains around scattered points (Voronoi cells)."""
    pitch = 2 / math.sqrt(math.exp(rng.uniform(math.log(5), math.log(40))))
    regular = rng.choice([0.1, 0.5, 1.0])  # how far points stray from a lattice, in cells
    long, direction = math.exp(rng.uniform(0, 1.0)), rng.uniform(0, math.pi)
    own = rng.choice([0.0, 1.0, 1.0])  # each grain its own grey
    border, width = rng.uniform(-2, 2), rng.uniform(0.05, 0.3)  # in cells
    bump = rng.choice([0.0, 0.0, 1.0, -1.0])

    def one(rng, size):
        y, x = _grid(size)
        turn = direction + rng.normal(0, 0.15)
        stretch = math.sqrt(long) * math.exp(rng.normal(0, 0.05))
        u = (math.cos(turn) * x + math.sin(turn) * y) * stretch
        v = (math.cos(turn) * y - math.sin(turn) * x) / stretch
        rows = np.arange(v.min() - pitch * rng.random(), v.max() + pitch, pitch)
        columns = np.arange(u.min() - pitch * rng.random(), u.max() + pitch, pitch)
        points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        points[:, 1] += pitch / 2 * (np.arange(len(points)) // len(columns) % 2)
        points += pitch * regular * rng.uniform(-0.5, 0.5, points.shape)
        nearest = np.full_like(u, 1e3)  # squares of the distances to the nearest and the second point
        second, grey = nearest.copy(), np.zeros_like(u)
        for (row, column), level in zip(points.astype(np.float32), rng.normal(0, 0.7, len(points)).astype(np.float32)):
            distance = (u - column) ** 2 + (v - row) ** 2
            grey[distance < nearest] = level
            second = np.minimum(second, np.maximum(distance, nearest))
            nearest = np.minimum(nearest, distance)
        nearest, second = np.sqrt(nearest), np.sqrt(second)
        edge = np.exp(-(((second - nearest) / (width * pitch)) ** 2))
        return own * grey - border * edge + bump * (2 * nearest / pitch - 1)

    return _each(one)


def _shapes(rng):
    """Blobs and polygons: outlines through the class's own points."""
    kind, corners = rng.choice(["polygon", "star", "blob", "blob"]), int(rng.integers(3, 9))
    angles = np.arange(corners) * 2 * math.pi / corners
    if kind == "star":
        radii = np.where(np.arange(corners) % 2, rng.uniform(0.3, 0.6), 1.0)
    else:
        radii = rng.uniform(0.4, 1, corners)
    points = np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]
    points[:, 0] *= rng.uniform(0.4, 1)
    number = int(rng.choice([1, 1, 2, 4, 9]))
    extent = rng.uniform(0.5, 0.9) / math.sqrt(number)  # of half a picture
    filled, pen_width = rng.random() < 0.65, rng.uniform(0.03, 0.1)
    turns, nested = rng.choice([0.25, math.pi]), rng.random() < 0.25

    def one(rng, size):
        picture, pen, side = _canvas(size)
        width = max(int(pen_width * side * rng.uniform(0.7, 1.3)), 1)
        for _ in range(number):
            radius = extent * math.exp(rng.normal(0, 0.15))
            room = max(1 - radius, 0.1)
            outline = points + rng.normal(0, 0.05, points.shape)
            outline = _turned(outline, rng.uniform(-1, 1) * turns) * radius + rng.uniform(-room, room, 2)
            outline = _closed(outline) if kind == "blob" else outline
            pen.polygon(_pixels(outline, side), fill=255 if filled else None, outline=255, width=width)
            if nested:
                inner = outline.mean(0) + (outline - outline.mean(0)) * 0.45
                pen.polygon(_pixels(inner, side), fill=0 if filled else 255)
        return _shrunk(picture)

    return lambda rng, count, size: _each(one)(rng, count, size) + 0.15 * _smooth(rng, count, size, 3)


def _closed(points):
    """Return a smooth closed curve through the points: their trigonometric interpolation."""
    curve = scipy.fft.fft(points[:, 0] + 1j * points[:, 1])
    half = (len(points) + 1) // 2
    padded = np.concatenate([curve[:half], np.zeros(32 - len(points)), curve[half:]])
    points = scipy.fft.ifft(padded) * 32 / len(curve)
    return np.stack([points.real, points.imag], -1)


def _strokes(rng):
    """Thick cubic Bezier curves, as a pen draws them."""
    number = int(rng.choice([1, 2, 2, 3, 4]))
    middle = rng.uniform(-0.75, 0.75, (number, 4, 2))
    joined = rng.random(number) < 0.6  # a stroke goes on where the last one ended
    for index in range(1, number):
        if joined[index]:
            middle[index] += middle[index - 1, 3] - middle[index, 0]
    low, high = middle.min((0, 1)), middle.max((0, 1))
    middle = (middle - (low + high) / 2) * 1.4 / max(high - low)
    pen_width, t = rng.uniform(0.05, 0.12), np.linspace(0, 1, 14)[:, None]
    bernstein = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)

    def one(rng, size):
        picture, pen, side = _canvas(size)
        width = max(int(pen_width * math.exp(rng.normal(0, 0.25)) * side), 2)
        points = middle + rng.normal(0, 0.06, middle.shape)
        points = _turned(points, rng.normal(0, 0.15)) * rng.uniform(0.75, 1.15) * np.array([rng.uniform(0.75, 1.1), 1])
        points[..., 0] += rng.normal(0, 0.15) * points[..., 1]
        points += rng.normal(0, 0.08, 2)
        for controls in points:
            line = _pixels(bernstein @ controls, side)
            pen.line(line, fill=255, width=width, joint="curve")
            for x, y in (line[0], line[-1]):  # round ends
                pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
        return _shrunk(picture)

    return _each(one)


def _cracks(rng):
    """Thin broken lines and dark areas on a grainy, ruled ground."""
    area = rng.choice(["none", "none", "patch", "band", "corner", "comb"])
    number = int(rng.choice([0, 1, 1, 2, 4]))
    number = max(number, 1) if area == "none" else number
    steps, length = int(rng.choice([4, 8, 14])), rng.uniform(0.8, 2.0)
    bend, branches = rng.uniform(0.05, 0.7), rng.choice([0.0, 0.0, 0.15, 0.4])
    straight = rng.uniform(0, math.pi) if rng.random() < 0.5 else None
    thick, bright, depth = rng.uniform(0.008, 0.035), rng.random() < 0.15, rng.uniform(0.3, 0.9)
    ruled, uneven = int(rng.choice([0, 0, 2, 3, 5])), rng.choice([0.1, 0.4])

    def crack(rng, pen, side, at, angle, steps_left):
        points = [at]
        for left in range(steps_left, 0, -1):
            angle += rng.normal(0, bend)
            at = at + length / steps * np.array([math.cos(angle), math.sin(angle)])
            points.append(at)
            if left > 2 and rng.random() < branches:
                crack(rng, pen, side, at, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1), left // 2)
        width = max(round(thick * side * rng.uniform(0.8, 1.3)), 1)
        pen.line(_pixels(np.stack(points), side), fill=255, width=width)

    def one(rng, size):
        picture, pen, side = _canvas(size)
        _dark_area(area, depth, rng, pen, side)
        for index in range(ruled):
            at = int((index + 0.5 + rng.normal(0, 0.03)) / ruled * side)
            pen.line([(at, 0), (at, side)], fill=int(rng.uniform(90, 160)), width=max(side // 50, 1))
        for _ in range(number):
            start = rng.uniform(-0.8, 0.8, 2)
            angle = rng.uniform(0, 2 * math.pi) if straight is None else straight + rng.normal(0, 0.15)
            crack(rng, pen, side, start, angle, steps)
        return _shrunk(picture)

    def paint(rng, count, size):
        images = _each(one)(rng, count, size)
        ground = uneven * _smooth(rng, count, size, 2)
        return ground + 2 * images if bright else ground - 2 * images

    return paint


def _dark_area(area, depth, rng, pen, side):
    ink = int(255 * depth * rng.uniform(0.7, 1))
    at = rng.uniform(0, side, 2)
    extent = rng.uniform(0.2, 0.5) * side
    if area == "patch":
        angles = np.sort(rng.uniform(0, 2 * math.pi, 7))
        radii = extent * rng.uniform(0.4, 1, 7)
        pen.polygon([(at[0] + r * math.cos(a), at[1] + r * math.sin(a)) for a, r in zip(angles, radii)], fill=ink)
    elif area == "band":
        pen.rectangle([at[0], -1, at[0] + extent / 2, side], fill=ink)
    elif area == "corner":
        x, y = rng.choice([0, side], 2)
        reach = [(x, y), (abs(x - 2 * extent), y), (x, abs(y - extent * rng.uniform(1, 2)))]
        pen.polygon(reach, fill=ink)
    elif area == "comb":
        for index in range(int(rng.integers(3, 8))):
            x = at[0] + index * side * 0.05
            pen.rectangle([x, at[1] - extent * rng.random(), x + side * 0.03, at[1] + extent * rng.random()], fill=ink)


def _each(one):
    """Return a function that paints so many pictures, one by one."""
    return lambda rng, count, size: np.stack([one(rng, size) for _ in range(count)]).astype(np.float32)


def _smooth(rng, count, size, frequency):
    """Return soft fields of about so many bumps a picture, deviation 1: a few waves of random direction."""
    y, x = _grid(size)
    field = np.zeros((count, size, size), np.float32)
    for _ in range(3):
        angle, phase = rng.uniform(0, 2 * math.pi, (2, count, 1, 1)).astype(np.float32)
        wave = np.float32(math.pi * frequency) * rng.uniform(0.5, 1.2, (count, 1, 1)).astype(np.float32)
        field += np.sin(wave * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return field / np.float32(math.sqrt(1.5))


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


def _photographed(fields, rng):
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
    tinted = np.flatnonzero(rng.random(count) < _COLOURED)
    dark, bright = rng.uniform(0, 0.5, (len(tinted), 1, 1, 3)), rng.uniform(0.5, 1, (len(tinted), 1, 1, 3))
    images[tinted] = dark + images[tinted] * (bright - dark)
    return (images * np.float32(255) + np.float32(0.5)).astype(np.uint8)


_FAMILIES = dict(zip(FAMILIES, (_noise, _gratings, _textures, _shapes, _strokes, _cracks)))
