"""Find the damaged images before training, so that none is learned from half a file.

`load_data` refuses what fails here, or leaves it out (`bad_images`)."""

import dataclasses
import hashlib
import io
import multiprocessing.pool
import os
import stat
import struct
import warnings
from typing import Any

import tensorflow as tf

from kresnets.data.images import decode_image

MAX_PIXELS = 50_000_000  # per image: about 150 MB decoded; a few kB of PNG can claim 10,000 times that
_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_WORKERS = min(16, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What `check_image` found out about one image.

    Args:
        reason: why it cannot be used, or None where it can.
        rotated: whether its EXIF data ask viewers to turn it.
        digest: SHA-256 of the file's bytes, the same for exact duplicates.
        plain: whether all its pixels have one colour.
    """

    reason: str | None
    rotated: bool = False
    digest: bytes = b""
    plain: bool = False


def check_image(image_bytes: bytes) -> "Verdict":
    """Decode one image in full, as training and serving will, and say what is wrong with it.

    Args:
        image_bytes: bytes, the content of the file. Its name plays no part: a JPEG called `.png` is a good JPEG.

    Returns:
        A `Verdict`.

    Example:
        >>> from kresnets.data import check_image
        >>> check_image(b"").reason
        'the file is empty'
    """
    digest = hashlib.sha256(image_bytes).digest()
    if not image_bytes:
        return Verdict("the file is empty", digest=digest)
    # Pillow only reads the header here, which holds what TensorFlow does not tell before it allocates the pixels.
    # Pillow's own decoder is not needed: cut anywhere, a file either fails in TensorFlow or still has all its pixels.
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image_bytes)) as header:
            reason = _refused_by_header(header)
            kind, exif = header.format, header.info.get("exif")
    except Image.DecompressionBombError:
        return Verdict(f"more than {MAX_PIXELS:,} pixels", digest=digest)
    except (OSError, ValueError, SyntaxError):  # the three that Pillow's parsers raise on damaged headers
        return Verdict(_unread(image_bytes) or "not an image (or its first bytes are damaged)", digest=digest)
    plain = False
    if reason is None:
        try:
            image = decode_image(image_bytes).numpy()
            plain = bool((image == image[:1, :1]).all())
        except tf.errors.InvalidArgumentError:
            reason = f"damaged or cut off ({kind})" if kind in _DECODED else f"{kind}, not JPEG, PNG, GIF or BMP"
            reason = _unread(image_bytes) or reason
    return Verdict(reason, _is_rotated(exif), digest, plain)


# Brands of ISO media files (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 6): bytes 8 to 12.
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_BRANDS |= {b"avif": "AVIF", b"avis": "AVIF"}


def _unread(content):
    """Return what an image of a kind that no decoder here reads is, and what to do; None for any other file."""
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[start : start + 4] for start in range(16, 40, 4))]
        kind = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
        return kind and f"{kind}, which is not read: save it as JPEG or PNG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and b"ANIM" in content[12:64]:
        return "an animated WebP, which is not read: save one of its pictures as PNG"
    return None


_DECODED = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP")  # MPO: a JPEG with more pictures behind it, from phones


def _refused_by_header(header):
    width, height = header.size
    if width * height > MAX_PIXELS:
        return f"{width} x {height} pixels, more than {MAX_PIXELS:,}"
    if header.format == "BMP" and header.mode in ("1", "P"):
        return "a BMP with a colour palette, which would be read as grey: save it as PNG"
    return None


def _is_rotated(exif):
    from PIL import Image

    if not exif:
        return False
    tags = Image.Exif()
    try:
        tags.load(exif)
        return tags.get(_ORIENTATION, 1) in range(2, 9)
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, struct.error):
        return False  # damaged metadata rotate nothing


def check_images(items: Any, progress: bool = True) -> Any:
    """Check many images in parallel, with a progress bar on stderr.

    Args:
        items: sequence of paths (str) or file contents (bytes).
        progress: bool, show the bar (only where stderr is a terminal). Defaults to True.

    Returns:
        List of `Verdict`, in the order of `items`.

    Example:
        >>> from kresnets.data import check_images
        >>> [verdict.reason for verdict in check_images([b"", "/no/such.png"])]
        ['the file is empty', 'cannot be read (No such file or directory)']
    """
    from tqdm import tqdm

    with warnings.catch_warnings(), multiprocessing.pool.ThreadPool(_WORKERS) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # what matters of it becomes a verdict
        verdicts = pool.imap(_check, items, chunksize=8)
        return list(tqdm(verdicts, "checking images", len(items), disable=None if progress else True, unit=" images"))


def _check(item):
    if isinstance(item, bytes):
        return check_image(item)
    try:
        mode = os.stat(item).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return Verdict("not a regular file")  # a pipe would make us wait for ever
        with open(item, "rb") as file:
            return check_image(file.read())
    except ValueError as error:  # a NUL in the name
        return Verdict(f"cannot be read ({error})")
    except OSError as error:
        return Verdict(f"cannot be read ({error.strerror})")
