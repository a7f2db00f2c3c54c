"""Formats that TensorFlow does not decode (TIFF, HEIC, AVIF, arrays of `.npy`): made PNG on the way in, from where on
all is as ever, or read as arrays where images have other than three channels.

Training and `kresnets predict` do this; a served graph has TensorFlow's decoders alone.
"""

import importlib.util
import io
import warnings

import numpy as np
import tensorflow as tf

from kresnets._util.types import Tensor
from kresnets.data.arrays import DEPTHS, NPY, TIFF, array_of, first_series, is_array, loaded, of_channels
from kresnets.data.images import decode_image
from kresnets.decoding import LARGE, Decoding

# Brands of ISO media files (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 6): bytes 8 to 12.
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_BRANDS |= {b"avif": "AVIF", b"avis": "AVIF"}
_TOO_DEEP = ("I", "F")  # Pillow's modes of 32 bits


def kind_of(content: bytes) -> str | None:
    """Return `"TIFF"`, `"HEIC"`, `"AVIF"` or `"NPY"` by the first bytes of a file, None for any other.

    Example:
        >>> from kresnets.data.transcode import kind_of
        >>> kind_of(b"II*\\0"), kind_of(b"\\xff\\xd8\\xff")
        ('TIFF', None)
    """
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[start : start + 4] for start in range(16, 40, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    if content.startswith(NPY):
        return "NPY"
    return "TIFF" if content[:4] in TIFF else None


def as_png(content: bytes) -> tuple[bytes, int]:
    """Return a file as one that TensorFlow decodes, and how many pages it has, of which that is the first.

    TIFF of 8 bits, or 16 of grey, keep their values and alpha, arrays (`.npy`) of uint8 or uint16 and 1, 3 or 4
    channels theirs; HEIC and AVIF become 8 bits. What the file says of its orientation is done here, whatever
    `Decoding.exif_orientation`: no model of before has seen such a file.

    Args:
        content: bytes of a file; one of another kind is returned as it is.

    Raises:
        ValueError: with the reason, for one that is damaged, too large, of 32 bits, or that needs `kresnets[images]`.
    """
    kind = kind_of(content)
    if kind is None:
        return content, 1
    if kind == "NPY":
        array = loaded(content)
        if array.dtype.name not in DEPTHS:
            raise ValueError(f"an array of {array.dtype}, not {' or '.join(DEPTHS)}")
        return tf.io.encode_png(of_channels(array, 3), compression=1).numpy(), 1
    from PIL import Image, ImageOps

    _register(kind)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > LARGE:
                raise _Refused(f"{image.width} x {image.height} pixels, more than {LARGE:,}")
            bits = max(getattr(image, "tag_v2", {}).get(258, (8,)))
            if image.mode in _TOO_DEEP or bits > 8 and not image.mode.startswith("I;16"):
                raise _Refused(f"a TIFF of {bits} bits a colour, which is not read: save it as 16-bit PNG")
            upright, pages = ImageOps.exif_transpose(image), getattr(image, "n_frames", 1)
        if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            upright = upright.convert("I;16" if upright.mode.startswith("I;16") else "RGB")
        file = io.BytesIO()
        upright.save(file, "PNG", compress_level=1, exif=b"", icc_profile=None)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {LARGE:,} pixels") from None
    except Exception as error:  # each decoder has errors of its own
        if kind == "TIFF" and importlib.util.find_spec("tifffile"):
            of_channels(first_series(content)[0], 3)  # which says of bands how many there are
        raise ValueError(f"damaged or cut off ({kind})") from error
    return file.getvalue(), pages


class _Refused(Exception):
    pass


def _register(kind):
    from PIL import features

    if kind == "AVIF" and not features.check("avif"):
        raise ValueError("AVIF, which needs Pillow 11.3 or newer; or save it as JPEG or PNG")
    if kind != "HEIC":
        return
    try:
        import pillow_heif
    except ImportError:
        raise ValueError('HEIC, which needs `pip install "kresnets[images]"`; or save it as JPEG or PNG') from None
    pillow_heif.register_heif_opener()


def decoded(image_bytes: Tensor, decoding: Decoding) -> Tensor:
    """Return the pixels of any file that is read, within `tf.data`: as `decode_image` gives them, and of TIFF and
    arrays where there are other than three channels.

    Args:
        image_bytes: scalar string tensor, the content of a file.
        decoding: a `kresnets.Decoding`.

    Returns:
        uint8 tensor `(height, width, 3)`, or float32 of other `Decoding.channels`, 0..255.
    """
    if decoding.channels == 3:
        return decode_image(readable(image_bytes), decoding=decoding)

    def levels(content):
        array = array_of(_bytes_of(content), decoding)
        scale = 2.0 ** ((decoding.bits or 16) - 8) if array.dtype == np.uint16 else 1.0
        return np.minimum(array.astype(np.float32) / np.float32(scale), np.float32(255))

    def bands():
        return tf.numpy_function(levels, [image_bytes], tf.float32, stateful=False)

    if decoding.from_bytes:
        others = lambda: decode_image(readable(image_bytes), decoding=decoding)
        image = tf.cond(is_array(image_bytes), bands, others)
    else:
        image = bands()
    return tf.ensure_shape(image, (None, None, decoding.channels))


def _bytes_of(content):
    """Return what `tf.numpy_function` gives for a string: bytes in a graph, an array of no axis outside."""
    return content if isinstance(content, bytes) else content.item()


def readable(image_bytes: Tensor) -> Tensor:
    """Return the bytes of a file, a scalar string tensor, as `as_png` does, within `tf.data`."""
    foreign = tf.strings.regex_full_match(
        tf.strings.substr(image_bytes, 0, 8), r"(II\*\x00|MM\x00\*|\CNUMPY|\C{4}ftyp)\C*"
    )
    change = lambda: tf.ensure_shape(
        tf.numpy_function(lambda content: as_png(_bytes_of(content))[0], [image_bytes], tf.string, stateful=False), ()
    )
    return tf.cond(foreign, change, lambda: image_bytes)
