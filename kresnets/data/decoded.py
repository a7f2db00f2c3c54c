"""Decoded images that are kept, so that an epoch does not decode what an earlier one, or an earlier run, has decoded.

What is kept are the very float32 pixels that `load_image` gives, and with them the served model: rounded to bytes they
would take a quarter of the room, but training would see other images than serving.
"""

import contextlib
import logging
import os
import pathlib
import warnings

import numpy as np
import tensorflow as tf

from kresnets._util.store import Store, as_text, digest, memory_limit
from kresnets.data.check import read_header
from kresnets.version import __version__

# How many times the pixels of the result an image must have for its result to be read from a file: where it was
# measured, a pixel of a JPEG takes 5 ns of a core (decode and resize), one of the result 1 to 7 ns; of a slow disk 20,
# once.
LARGE = 4
_LOOKED_AT = 32  # images from which the number of pixels is told
_LOG = logging.getLogger("kresnets")


def check_cache(cache):
    """Raise a ValueError for a `cache` of `Part.batches` that is none."""
    if not (cache == "auto" or cache is False or isinstance(cache, (str, os.PathLike)) and cache != ""):
        raise ValueError(f"`cache` must be 'auto', False, or a folder. Received: cache={cache!r}")


def kept(part, size, crop, cache):
    """Return the decoded images of a part, or None where every epoch is to decode them.

    Args:
        part: a `Part`.
        size: int, pixels a side.
        crop: float, share of the resized short side that is kept.
        cache: that of `Part.batches`, checked.

    Returns:
        float32 array `(images, size, size, channels)`, read-only: in memory, or mapped from a file.

    Raises:
        OSError: where the folder cannot be written or has too little room.
    """
    if cache is False:
        return None
    shape = (len(part), size, size, part.decoding.channels)
    if cache != "auto" and is_large(part, size):
        return _in_file(part, shape, crop, pathlib.Path(cache))
    needed, limit = int(np.prod(shape, dtype="int64")) * 4, memory_limit()
    if needed <= limit:
        array = np.empty(shape, np.float32)
        part.decode_into(array, crop)
        array.flags.writeable = False
        return array
    _LOG.info(
        "The images take %s decoded, above the %s that may stay in memory: every epoch decodes them%s.",
        *(as_text(needed), as_text(limit), "; cache=FOLDER keeps large ones there" if cache == "auto" else ""),
    )
    return None


def is_large(part, size):
    """Whether images have so many pixels that their `size` x `size` results are sooner read than made.

    Args:
        part: a `Part`, of which some images are looked at.
        size: int, pixels a side.

    Returns:
        bool: whether they have `LARGE` times the pixels of the result, on average.
    """
    from PIL import Image

    pixels = []
    unreadable = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # told where they are decoded
    for index in np.linspace(0, len(part) - 1, min(len(part), _LOOKED_AT), dtype=int):
        with contextlib.suppress(*unreadable), warnings.catch_warnings(action="ignore"), _opened(part, index) as stream:
            header = read_header(stream)
            pixels.append(header.width * header.height)
    return bool(pixels) and bool(np.mean(pixels) >= LARGE * size**2)


def _opened(part, index):
    encoded = part.encoded(index)
    return open(encoded, "rb") if isinstance(encoded, bytes) else encoded


def _in_file(part, shape, crop, folder):
    # The versions too: another decoder may give other pixels.
    key = digest("decoded", part.images_identity(), part.decoding, shape, crop, tf.__version__, __version__)
    store = Store(folder, limit=0, what="images")
    with _explained(folder):
        array = store.find(key, shape, "float32")
        if array is not None:
            return array
        array, keep = store.create(key, shape, "float32")
    try:
        part.decode_into(array, crop, label=f", {as_text(array.nbytes)} into {folder}")
        with _explained(folder):
            return keep()
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(array.filename)  # half written: by its size the worst of litter
        raise


@contextlib.contextmanager
def _explained(folder):
    """Say of a folder that cannot be used, or that is full, what to do."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # a sentence already
            problem = str(error).removesuffix(".")
        else:
            problem = f"The cache folder {folder} cannot be used ({error.strerror}): give another one"
        raise OSError(f"{problem}, or leave `cache` at 'auto' (--cache off).") from error
