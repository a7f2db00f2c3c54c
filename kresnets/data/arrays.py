"""Images as arrays of numbers: TIFF of any bands, and NumPy's `.npy`."""

import io
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kresnets._util.types import Array, Tensor
from kresnets.decoding import CHANNELS, LARGE, Decoding

TIFF = (b"II*\0", b"MM\0*")
NPY = b"\x93NUMPY"
DEPTHS = ("uint8", "uint16")


def is_array(image_bytes: Tensor) -> Tensor:
    """Whether a file, a scalar string tensor, is a TIFF or an array (`.npy`)."""
    return tf.strings.regex_full_match(tf.strings.substr(image_bytes, 0, 6), r"II\*\x00\C*|MM\x00\*\C*|\CNUMPY")


def array_of(content: bytes, decoding: Decoding) -> Array:
    """Return the values of a TIFF or an array (`.npy`) as the file has them, turned upright.

    Args:
        content: bytes of the file.
        decoding: of which `channels` says how many there must be: of a TIFF or array of several, which of its axes they
            are is told by that number, the last one first.

    Returns:
        uint8, uint16 or, of numbers 0..255, float array `(height, width, channels)`.

    Raises:
        ValueError: with the reason, for one that is damaged, too large, of other channels or other numbers.
    """
    array, orientation = (loaded(content), 1) if content.startswith(NPY) else first_series(content)
    if array.dtype.name not in DEPTHS:
        inside = array.dtype.kind == "f" and bool(((array >= 0) & (array <= 255)).all())  # NaN is not
        if not inside:
            raise ValueError(
                f"values of {array.dtype}: save uint8, uint16, or floats that are scaled to 0..255, without NaN"
            )
    array = of_channels(array, decoding.channels)
    return _TURNS[orientation](array) if orientation in _TURNS else array


def of_channels(array: Array, channels: int) -> Array:
    """Return an array `(height, width)`, `(height, width, n)` or `(n, height, width)` with the channels last: grey is
    repeated where three are wanted, and colours become their luma where one is.

    Raises:
        ValueError: where it has others, or more pixels than are read.

    Example:
        >>> import numpy as np
        >>> from kresnets.data.arrays import of_channels
        >>> of_channels(np.zeros((6, 32, 40), "uint16"), 6).shape
        (32, 40, 6)
    """
    given = array.shape
    if array.ndim == 2:
        array = array[..., np.newaxis]
    elif array.ndim == 3 and array.shape[2] != channels == array.shape[0]:
        array = np.moveaxis(array, 0, -1)
    found = array.shape[-1] if array.ndim == 3 else None
    if found is None or not array.size or found != channels and (found, channels) not in ((1, 3), (4, 3), (3, 1)):
        ends = (given[-1], given[0]) if array.ndim == 3 else ()
        hint = next((f"; channels={n} may be meant" for n in ends if n in CHANNELS and n != channels), "")
        raise ValueError(f"of shape {given}, not (height, width, {channels}){hint}")
    if math.prod(array.shape[:2]) > LARGE:
        raise ValueError(f"{array.shape[1]} x {array.shape[0]} pixels, more than {LARGE:,}")
    if (found, channels) == (1, 3):
        return np.repeat(array, 3, axis=-1)
    if (found, channels) == (3, 1):
        return (array @ np.array([[299.0], [587.0], [114.0]]) / 1000).astype(np.float32)
    return np.ascontiguousarray(array)


def loaded(content: bytes) -> Array:
    """Return the array of a `.npy` file.

    Raises:
        ValueError: with the reason, for one that is damaged or of objects, which are never unpickled.
    """
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError) as error:  # the last: of what its header claims
        raise ValueError("damaged or cut off (NPY), or an array of objects") from error
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def first_series(content: bytes) -> tuple[Array, int]:
    """Return the first image of a TIFF as its values, and what it says of its orientation."""
    try:
        import tifffile
    except ImportError:
        raise ValueError(
            'a TIFF of other than three channels, which needs `pip install "kresnets[images]"`; or save it as .npy'
        ) from None
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            if math.prod(series.shape) > LARGE * 8:
                raise _Large(f"of shape {series.shape}, more than {LARGE:,} pixels of 8 channels")
            array, tag = series.asarray(), file.pages.first.tags.get(274)
    except _Large as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # each way to compress has errors of its own
        more = " (imagecodecs, which `kresnets[images]` brings, may read it)" if "imagecodecs" in str(error) else ""
        raise ValueError(f"damaged or cut off (TIFF){more}") from error
    return array, tag.value if tag is not None else 1


class _Large(Exception):
    pass


# By orientation what turns `(height, width, channels)` upright, as `PIL.ImageOps.exif_transpose` does.
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: np.rot90,
}
