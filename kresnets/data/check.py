"""Find the damaged images before training, so that none is learned from half a file.

`load_data` refuses what fails here, or leaves it out (`bad_images`)."""

import dataclasses
import functools
import hashlib
import io
import multiprocessing.pool
import os
import stat
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kresnets.data import headers
from kresnets.data.arrays import array_of
from kresnets.data.content import read
from kresnets.data.images import decode_image
from kresnets.data.transcode import as_png, kind_of
from kresnets.decoding import LARGE, Decoding

MAX_PIXELS = LARGE  # of a decoded image; a few kB of PNG can claim 10,000 times that
DEPTHS = (10, 12, 14, 16)  # bits that cameras fill of the 16 in a file
_KEPT = 5000  # verdicts that are kept at a time
WORKERS = min(16, os.cpu_count() or 1)  # threads that decode


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What `check_image` found out about one image.

    Args:
        reason: why it cannot be used, or None where it can.
        rotated: whether its EXIF data ask viewers to turn it.
        digest: SHA-256 of the file's bytes, the same for exact duplicates.
        largest: the largest colour value of an image of 16 bits, None for any other.
        significant: how many of its bits such a PNG says to be significant (sBIT), or 0.
        clear: whether it has an alpha channel or a transparent colour that is read.
        scaled: whether it is decoded at a fraction of its sides.
        plain: whether all its pixels have one colour.
        floating: the largest value of an array of floats, None for any other image.
        pages: how many pictures are in a TIFF, HEIC or AVIF file, of which the first is read.
    """

    reason: str | None
    rotated: bool = False
    digest: bytes = b""
    largest: int | None = None
    significant: int = 0
    clear: bool = False
    scaled: bool = False
    plain: bool = False
    floating: float | None = None
    pages: int = 1


def check_image(image_bytes: bytes, decoding: Decoding = Decoding()) -> "Verdict":
    """Decode one image in full, as training and serving will, and say what is wrong with it.

    Args:
        image_bytes: bytes, the content of the file. Its name plays no part: a JPEG called `.png` is a good JPEG.
        decoding: a `kresnets.Decoding`; whether large JPEGs are scaled down. Defaults to `Decoding()`.

    Returns:
        A `Verdict`.

    Example:
        >>> from kresnets.data import check_image
        >>> check_image(b"").reason
        'the file is empty'
    """
    return _look(image_bytes, hashlib.sha256(image_bytes).digest(), decoding)


def _look(image_bytes, digest, decoding):
    if not image_bytes:
        return Verdict("the file is empty", digest=digest)
    # Pillow only reads the header here, which holds what TensorFlow does not tell before it allocates the pixels.
    # Pillow's own decoder is not needed: cut anywhere, a file either fails in TensorFlow or still has all its pixels.
    from PIL import Image

    found: dict[str, Any] = {}
    if decoding.channels != 3 and kind_of(image_bytes) in ("TIFF", "NPY"):
        return _check_array(image_bytes, digest, decoding)
    if not decoding.from_bytes:
        return Verdict(f"neither TIFF nor .npy, in which images of {decoding.channels} channels come", digest=digest)
    try:
        image_bytes, found["pages"] = as_png(image_bytes)
    except ValueError as error:
        return Verdict(str(error), digest=digest)
    try:
        with io.BytesIO(image_bytes) as stream, read_header(stream) as header:
            kind = header.format
            pixels = header.width * header.height
            found["scaled"] = kind in _JPEGS and decoding.whole is not None and pixels > decoding.whole
            found["clear"] = kind != "BMP" and (header.mode in ("RGBA", "LA", "PA") or "transparency" in header.info)
            reason = _refused_by_header(header, image_bytes, found["scaled"] and decoding.whole)
    except Image.DecompressionBombError:
        return Verdict(f"more than {MAX_PIXELS:,} pixels", digest=digest)
    except (OSError, ValueError, SyntaxError):  # the three that Pillow's parsers raise on damaged headers
        return Verdict(_unread(image_bytes) or "not an image (or its first bytes are damaged)", digest=digest)
    if reason is None:
        try:
            if kind == "PNG" and image_bytes[24] == 16:
                found |= _of_16_bits(image_bytes)
            else:
                found["plain"], found["rotated"] = (bool(value) for value in _seen(decoding)(tf.constant(image_bytes)))
        except tf.errors.InvalidArgumentError:
            reason = f"damaged or cut off ({kind})" if kind in _DECODED else f"{kind}, not JPEG, PNG, GIF or BMP"
            reason = _unread(image_bytes) or reason
    return Verdict(reason, digest=digest, **found)


@functools.cache
def _seen(decoding):
    """Return the function of bytes that decodes them, and says whether all pixels have one colour, and whether EXIF
    data ask for another orientation; a concrete one, as small images take less time than to find it among traces."""

    def seen(image_bytes):
        with tf.device("CPU:0"):  # where the pixels are
            image = decode_image(image_bytes, decoding=decoding)
            return tf.reduce_all(image == image[:1, :1]), headers.orientation(image_bytes) > 1

    return tf.function(seen, autograph=False).get_concrete_function(tf.TensorSpec((), tf.string))


def _check_array(content, digest, decoding):
    try:
        values = array_of(content, decoding)
    except ValueError as error:
        return Verdict(str(error), digest=digest)
    largest = int(values.max()) if values.dtype == np.uint16 else None
    floating = float(values.max()) if values.dtype.kind == "f" else None
    plain = bool((values == values[:1, :1]).all())
    return Verdict(None, digest=digest, largest=largest, plain=plain, floating=floating)


def read_header(stream):
    """Return a Pillow image of which the header is read: for JPEG of any size, where `Image.open` refuses large ones.

    Args:
        stream: of an image file's bytes, at its begin.
    """
    from PIL import Image, JpegImagePlugin

    jpeg = stream.read(3) == b"\xff\xd8\xff"
    stream.seek(0)
    return JpegImagePlugin.JpegImageFile(stream) if jpeg else Image.open(stream)


def _of_16_bits(image_bytes):
    """Decode a PNG of 16 bits, and say how many of them it fills; its alpha has a range of its own."""
    values = tf.io.decode_png(image_bytes, dtype=tf.uint16).numpy()
    colours = values.shape[-1] - 1 + values.shape[-1] % 2
    place, significant = 8, 0
    while (kind := image_bytes[place + 4 : place + 8]) not in (b"IDAT", b""):
        if kind == b"sBIT":
            significant = max(image_bytes[place + 8 : place + 8 + colours])
        place += 12 + int.from_bytes(image_bytes[place : place + 4], "big")
    known = significant if 1 <= significant <= 16 else 0
    plain, rotated = bool((values == values[:1, :1]).all()), int(headers.orientation(image_bytes)) > 1
    return {
        "largest": int(np.max(values[..., :colours])), "significant": known, "plain": plain, "rotated": rotated,
    }  # fmt: skip


def depth(verdicts: Any) -> tuple[int | None, str]:
    """Tell how many bits the 16-bit PNG of a whole data set fill, never one of them by itself: a dark one stays dark.

    Args:
        verdicts: those of all its images.

    Returns:
        Bits, and by what they are known; None and "" where there is no such image. What the files say themselves
        (sBIT) holds, unless values are larger: the standard (PNG, 3rd edition, 11.3.2.7) has writers scale them up
        to 16 bits then. Where they say nothing, it is the least of 10, 12, 14 and 16 bits that holds every value.

    Example:
        >>> from kresnets.data.check import Verdict, depth
        >>> depth([Verdict(None, largest=900), Verdict(None, largest=4000), Verdict(None)])
        (12, 'the largest value is 4000')
    """
    deep = [verdict for verdict in verdicts if verdict.largest is not None]
    if not deep:
        return None, ""
    largest, said = max(one.largest for one in deep), max(one.significant for one in deep)
    if not said:
        return next(bits for bits in DEPTHS if largest < 2**bits), f"the largest value is {largest}"
    if largest < 2**said:
        return max(8, said), f"the files say {said} significant bits"
    return 16, f"the files say {said} significant bits, scaled up to 16"


def _unread(content):
    """Return what an image of a kind that no decoder here reads is, and what to do; None for any other file."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and b"ANIM" in content[12:64]:
        return "an animated WebP, which is not read: save one of its pictures as PNG"
    return None


_JPEGS = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind it, from phones
_DECODED = (*_JPEGS, "PNG", "GIF", "BMP", "WEBP")


def _refused_by_header(header, image_bytes, whole):
    width, height = header.size
    if whole and not headers.in_one_scan(image_bytes):
        return (
            f"a progressive JPEG of {width} x {height} pixels, more than {whole:,}, all of which must be held at any "
            "scale: save it as a baseline one"
        )
    if whole and not headers.fills(image_bytes, width * height):
        return f"{width} x {height} pixels in {len(image_bytes):,} bytes, which cannot hold them: damaged or cut off"
    if whole and headers.reduction(image_bytes, whole)[1] > MAX_PIXELS:
        return f"{width} x {height} pixels, more than {MAX_PIXELS:,} even at an eighth of its sides"
    if not whole and width * height > MAX_PIXELS:
        return f"{width} x {height} pixels, more than {MAX_PIXELS:,}"
    if header.format == "BMP" and header.mode in ("1", "P"):
        return "a BMP with a colour palette, which would be read as grey: save it as PNG"
    return None


def check_images(
    items: Any,
    progress: bool = True,
    decoding: Decoding = Decoding(),
    known: Callable[[bytes], Verdict | None] = lambda digest: None,
    keep: Callable[[int, list[Verdict]], None] = lambda begin, verdicts: None,
) -> Any:
    """Check many images in parallel, with a progress bar on stderr.

    Args:
        items: sequence of paths (str), of file contents (bytes) or of `kresnets.data.content.Piece`.
        progress: bool, show the bar (only where stderr is a terminal). Defaults to True.
        decoding: as of `check_image`. Defaults to `Decoding()`.
        known: function from the SHA-256 of a file's bytes to its `Verdict`, where it has one. Defaults to one that
            knows none.
        keep: function that is given verdicts as they come, some thousands at a time, with the place of the first of
            them: a process that is killed has not looked in vain. Defaults to one that keeps none.

    Returns:
        List of `Verdict`, in the order of `items`.

    Example:
        >>> from kresnets.data import check_images
        >>> [verdict.reason for verdict in check_images([b"", "/no/such.png"])]
        ['the file is empty', 'cannot be read (No such file or directory)']
    """
    from tqdm import tqdm

    with warnings.catch_warnings(), multiprocessing.pool.ThreadPool(WORKERS) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # what matters of it becomes a verdict
        if items and decoding.from_bytes:
            _seen(decoding)  # once, not by each thread at the same time
        verdicts = pool.imap(functools.partial(_check, decoding=decoding, known=known), items, chunksize=8)
        bar = tqdm(verdicts, "checking images", len(items), disable=None if progress else True, unit=" images")
        found: list[Verdict] = []
        for verdict in bar:
            found.append(verdict)
            if len(found) % _KEPT == 0 or len(found) == len(items):
                begin = (len(found) - 1) // _KEPT * _KEPT
                keep(begin, found[begin:])
        return found


def _check(item, decoding, known):
    try:
        if isinstance(item, str):
            mode = os.stat(item).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return Verdict("not a regular file")  # a pipe would make us wait for ever
        content = read(item)
    except ValueError as error:  # a NUL in the name
        return Verdict(f"cannot be read ({error})")
    except OSError as error:
        return Verdict(f"cannot be read ({error.strerror or error})")
    digest = hashlib.sha256(content).digest()
    return known(digest) or _look(content, digest, decoding)
