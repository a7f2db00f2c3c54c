"""Valid files with bits turned, ends cut, parts exchanged: each a function of a number, so that any can be had again.

As a program, `mutations.py FOLDER FIRST LAST`: ask an exported model about those of the numbers FIRST to LAST - 1, in
batches with good neighbours, as TF Serving would. Prints a line of JSON before each batch and one at the end.
"""

import functools
import io
import json
import pathlib
import re
import sys

import numpy as np
from PIL import Image

BATCH, GOOD = 12, 4
EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\x1b\x58",
    b"\xff\xd8\xff\xda",
)


def _file(seed, format, mode, **options):
    side = 20 + 9 * seed
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype("uint8")
    image = Image.fromarray(pixels).resize((side, side + 7), Image.BICUBIC).convert(mode)
    file = io.BytesIO()
    if format == "GIF" and options.pop("frames", 1) > 1:
        options |= {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    image.save(file, format, **options)
    return file.getvalue()


@functools.cache
def originals():
    """Return the files that are mutated: JPEG, PNG, GIF and BMP of several kinds, of some kB each."""
    return (
        _file(1, "JPEG", "RGB"),
        _file(2, "JPEG", "RGB", progressive=True),
        _file(3, "JPEG", "L"),
        _file(1, "JPEG", "CMYK", restart_marker_rows=1),
        _file(1, "PNG", "RGB"),
        _file(2, "PNG", "P"),
        _file(3, "PNG", "RGBA"),
        _file(1, "PNG", "1"),
        _file(1, "GIF", "P"),
        _file(2, "GIF", "P", frames=3),
        _file(3, "GIF", "L", interlace=1),
        _file(1, "BMP", "RGB"),
        _file(2, "BMP", "L"),
        _file(1, "BMP", "RGBA"),
    )


def _flip(data, random):
    """Turn 1 to 16 bits, half of the time within the first 64 bytes, where headers are."""
    turned = bytearray(data)
    reach = min(64, len(data)) if random.random() < 0.5 else len(data)
    for _ in range(2 ** random.integers(0, 5)):
        turned[random.integers(reach)] ^= 1 << random.integers(8)
    return bytes(turned)


def _cut(data, random):
    """Leave out an end, or a piece within."""
    start, end = sorted(random.integers(0, len(data) + 1, 2))
    return data[:start] if random.random() < 0.5 else data[:start] + data[end:]


def _splice(data, random):
    """Go on with a piece of another file, or of the same."""
    other = originals()[random.integers(len(originals()))]
    start, end = sorted(random.integers(0, len(other) + 1, 2))
    place = random.integers(0, len(data) + 1)
    rest = data[place:] if random.random() < 0.5 else data[place + end - start :]
    return data[:place] + other[start:end] + rest


def _extreme(data, random):
    """Write a number that is large, negative or none over four bytes of a header."""
    place = random.integers(0, min(200, len(data)))
    return data[:place] + EXTREMES[random.integers(len(EXTREMES))] + data[place + 4 :]


def mutated(number):
    """Return the bytes of a mutated file, the same for the same number."""
    random = np.random.default_rng(number)
    data = originals()[number % len(originals())]
    for _ in range(random.integers(1, 4)):
        data = (_flip, _flip, _cut, _splice, _extreme)[random.integers(5)](data, random) or data
    return data


def main(folder, first, last):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "apps"))
    from bench.saved_model import opened

    wrong, valid, files, early = [], 0, 0, None
    with opened(folder) as signature:
        ask = signature("serving_default")
        good = [originals()[place] for place in (0, 4, 8, 11)]
        alone = [ask(np.array([file], object)) for file in good]
        for start in range(first, last, BATCH):
            numbers = range(start, min(start + BATCH, last))
            print(json.dumps({"first": start, "last": numbers[-1]}), flush=True)
            batch = [mutated(number) for number in numbers]
            places = np.sort(np.random.default_rng(start).integers(0, len(batch) + 1, GOOD)) + np.arange(GOOD)
            for place, file in zip(places, good, strict=True):
                batch.insert(place, file)
            answer = ask(np.array(batch, object))
            if not _right(answer, places, alone):
                wrong.append(start)
            valid += int(answer[2].sum()) - GOOD
            files += len(numbers)
            if early is None and files >= 1000:
                early = _resident()
    end = {"wrong": wrong, "valid": valid, "files": files, "bytes at 1000": early, "bytes": _resident()}
    print(json.dumps(end), flush=True)


def _right(answer, places, alone):
    """Whether the good ones have the answers they have alone, and the others numbers or nothing."""
    labels, scores, valid = answer
    same = all(
        valid[place] and (labels[place] == one[0][0]).all() and np.abs(scores[place] - one[1][0]).max() <= 1e-5
        for place, one in zip(places, alone, strict=True)
    )
    sums = np.where(valid, scores.sum(axis=1), scores.sum(axis=1) + 1)
    return same and bool(np.isfinite(scores).all()) and bool(np.allclose(sums, 1, atol=1e-4))


def _resident():
    """Bytes of memory that this process holds."""
    return int(re.search(r"VmRSS:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
