"""From the bytes of an image file to pixels: the one function that training, evaluation and the served model share.

Pure TensorFlow operations, so that it runs inside `tf.data` and is saved within a SavedModel.
"""

import functools
from collections.abc import Sequence

import tensorflow as tf

from kresnets._util.types import Tensor
from kresnets.data import headers
from kresnets.data.branches import take
from kresnets.decoding import RESIZE, Decoding

_STRIP = 1 << 20  # pixels


def decode_image(image_bytes: Tensor, max_pixels: int | None = None, decoding: Decoding | None = None) -> Tensor:
    """Decode the bytes of one image file to RGB.

    JPEG (baseline, progressive, grey, CMYK), PNG, GIF and BMP; WebP where the installed TensorFlow decodes it. What
    becomes of the less ordinary ones:

    - grey: the value is repeated in the three channels;
    - 16-bit PNG: the high 8 of the bits that the data set fills (`Decoding.bits`), never by the picture's own range;
    - alpha of PNG, GIF and WebP: the picture is put on a colour (`Decoding.background`), as Pillow's
      `alpha_composite` does; a palette PNG or GIF is looked up; in a BMP it is dropped;
    - JPEG of more than 50 million pixels: at 1/2, 1/4 or 1/8 of its sides (`Decoding.whole`);
    - CMYK JPEG: converted by the plain formula, without colour profiles; no file's profile is applied;
    - GIF: the first frame, and what is behind it is not looked at;
    - BMP: 8 bits are taken as grey (a palette is ignored), 1 and 4 bits are refused;
    - EXIF orientation of JPEG, PNG and WebP: the picture is turned upright (`Decoding.exif_orientation`);
    - with `Decoding.channels` 1 its luma, with 4 its alpha beside its colours, opaque where it has none; of more bands
      are TIFF and `.npy` alone, which `kresnets.data.transcode.decoded` reads.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of the file.
        max_pixels: int, how many pixels the header may claim before anything is decoded (`headers.claimed_pixels`);
            also, only the formats above are then read, whatever else the installed TensorFlow knows. Defaults to None:
            for files that were checked before (`check_image`).
        decoding: the `kresnets.Decoding` of the data or the model; None for `Decoding()`. Defaults to None.

    Returns:
        uint8 tensor `(height, width, 3)`, RGB 0..255; with other `Decoding.channels` float32 of so many, 0..255.

    Raises:
        ValueError: for 2, or more than 4, `Decoding.channels`.
        tf.errors.InvalidArgumentError: when run on bytes that are no such image, on a truncated one, or on one of more
            pixels.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import decode_image
        >>> decode_image(tf.io.encode_png(tf.zeros((2, 4, 1), "uint8"))).shape
        TensorShape([2, 4, 3])
    """
    return _decoder(max_pixels, decoding or Decoding())(tf.convert_to_tensor(image_bytes, tf.string))


@functools.cache
def _decoder(max_pixels, decoding):
    """Return the function of bytes that decodes so, traced once for all pipelines and graphs that call it."""
    ways, whole = _ways(decoding), -1 if decoding.whole is None else decoding.whole
    channels = decoding.channels
    background = bytes(decoding.background or ())

    def decode(data):
        def as_it_is(data):
            unknown = tf.constant(0, tf.int64)
            return data, unknown if max_pixels is None else headers.claimed_pixels(data, decoding.whole)

        first_frame = functools.partial(headers.first_frame, background=background)
        image_bytes, pixels = take(headers.is_gif(data), [as_it_is, first_frame], data)
        if max_pixels is not None:
            fits = (pixels >= 0) & (pixels <= max_pixels)
            reason = f"Neither JPEG, PNG, GIF, BMP nor WebP, or of more than {max_pixels} pixels."
            with tf.control_dependencies([tf.debugging.Assert(fits, [reason])]):
                image_bytes = tf.identity(image_bytes)
        if len(set(ways)) == 1:
            image = ways[0](image_bytes)
        else:
            [image] = take(headers.way(image_bytes, whole), ways, image_bytes)
        if decoding.exif_orientation:
            way = headers.orientation(image_bytes)
            [image] = take(way > 1, [lambda image, way: image, _upright], image, way)
        return tf.ensure_shape(image, (None, None, channels))

    return tf.function(decode, [tf.TensorSpec((), tf.string)], autograph=False)


# By orientation, from 0: whether the rows of the file run from its bottom, the columns from its right.
_RUNS = ((0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (1, 0), (1, 1), (0, 1))


def _upright(image, orientation):
    """Turn an image as `PIL.ImageOps.exif_transpose` does: where each pixel comes from, by whole numbers. (To transpose
    bytes oneDNN complains on stderr, even where no image is turned.)"""
    height, width, _ = tf.unstack(tf.shape(image))
    upwards, leftwards = tf.unstack(tf.gather(_RUNS, orientation))
    rows = tf.abs(upwards * (height - 1) - tf.range(height)) * width
    columns = tf.abs(leftwards * (width - 1) - tf.range(width))
    # From 5 on its sides change places.
    places = tf.cond(orientation >= 5, lambda: columns[:, tf.newaxis] + rows, lambda: rows[:, tf.newaxis] + columns)
    return tf.gather(tf.reshape(image, (-1, image.shape[-1])), places)


def _ways(decoding):
    """Return what decodes an image in each of `headers.WAYS`."""
    if not decoding.from_bytes:
        raise ValueError(f"Images of channels={decoding.channels} come as TIFF or .npy alone, not as bytes to decode.")
    ways = _coloured(decoding)
    if decoding.channels == 1:
        grey = lambda decode: lambda image_bytes: _by_strips(_luma, decode(image_bytes), tf.float32, 1)
        ways = {way: grey(decode) for way, decode in ways.items()}
        deep = lambda strip: _luma(_exact(strip, decoding.bits))
        ways[headers.DEEP] = lambda image_bytes: _by_strips(
            deep, tf.io.decode_png(image_bytes, 3, tf.uint16), tf.float32, 1
        )
    if decoding.channels == 4:
        opaque = lambda decode: lambda image_bytes: _opaque(tf.cast(decode(image_bytes), tf.float32))
        ways = {way: opaque(decode) for way, decode in ways.items()}
        ways[headers.CLEAR] = lambda image_bytes: tf.cast(_plain(image_bytes, 4), tf.float32)
        ways[headers.DEEP] = ways[headers.CLEAR_DEEP] = lambda image_bytes: _by_strips(
            # Alpha has a range of its own.
            lambda strip: tf.concat([_exact(strip[..., :3], decoding.bits), _exact(strip[..., 3:], 16)], -1),
            tf.io.decode_png(image_bytes, 4, tf.uint16),
            tf.float32,
            4,
        )
    return list(ways.values())


def _plain(image_bytes, channels=3):
    return tf.io.decode_image(image_bytes, channels=channels, expand_animations=False)


def _coloured(decoding):
    """Return way -> what decodes an image to red, green and blue, uint8."""
    background, shift, plain = decoding.background, (decoding.bits or 16) - 8, _plain

    def scaled(image_bytes, ratio):
        return tf.io.decode_jpeg(image_bytes, channels=3, ratio=ratio)

    def deep(image_bytes):
        return _by_strips(lambda strip: _high(strip, shift), tf.io.decode_png(image_bytes, 3, tf.uint16))

    def clear(image_bytes):
        return _by_strips(lambda strip: _over(background, strip[..., :3], strip[..., 3:]), plain(image_bytes, 4))

    def clear_deep(image_bytes):
        def change(strip):
            colours = _high(strip[..., :3], shift)
            return colours if background is None else _over(background, colours, _high(strip[..., 3:], 8))

        return _by_strips(change, tf.io.decode_png(image_bytes, 4, tf.uint16))

    ways = dict.fromkeys(headers.WAYS, plain)
    if decoding.whole is not None:
        for way, ratio in ((headers.HALF, 2), (headers.QUARTER, 4), (headers.EIGHTH, 8)):
            ways[way] = functools.partial(scaled, ratio=ratio)
    if background is not None:
        ways |= dict.fromkeys((headers.CLEAR, headers.CLEAR_DEEP), clear)
    if shift < 8:
        ways |= {headers.DEEP: deep, headers.CLEAR_DEEP: clear_deep}
    return ways


def _high(values, shift):
    """Return uint16 values without their lower bits, as uint8; what is above 8 bits then is white."""
    return tf.cast(tf.minimum(tf.bitwise.right_shift(values, tf.constant(shift, tf.uint16)), 255), tf.uint8)


def _exact(values, bits):
    """Return uint16 values of so many bits as float32, 0..255, fractions kept."""
    return tf.minimum(tf.cast(values, tf.float32) / 2.0 ** ((bits or 16) - 8), 255.0)


def _luma(colours):
    """Return the grey of colours (ITU-R BT.601, as Pillow's "L"), float32; of a grey colour exactly its value."""
    red, green, blue = tf.split(tf.cast(colours, tf.float32), 3, axis=-1)
    return green + 0.299 * (red - green) + 0.114 * (blue - green)


def _opaque(colours):
    return tf.pad(colours, [[0, 0], [0, 0], [0, 1]], constant_values=255.0)


def _over(background, colours, alpha):
    """Put pixels, uint8, on a colour: rounded as Pillow rounds, in arithmetic of 16 bits."""
    colours, alpha = tf.cast(colours, tf.uint16), tf.cast(alpha, tf.uint16)
    half, byte = tf.constant(128, tf.uint16), tf.constant(8, tf.uint16)
    mixed = colours * alpha + tf.constant(background, tf.uint16) * (255 - alpha) + half
    return tf.cast(tf.bitwise.right_shift(mixed + tf.bitwise.right_shift(mixed, byte), byte), tf.uint8)


def _by_strips(change, image, dtype=tf.uint8, channels=3):
    """Change an image, some rows at a time, as it takes several times the room."""
    rows = tf.maximum(1, _STRIP // tf.shape(image)[1])
    count = (tf.shape(image)[0] + rows - 1) // rows
    strips = tf.TensorArray(dtype, count, infer_shape=False, element_shape=(None, None, channels))
    _, strips = tf.while_loop(
        lambda number, _: number < count,
        lambda number, strips: (number + 1, strips.write(number, change(image[number * rows : (number + 1) * rows]))),
        (0, strips),
        parallel_iterations=1,
    )
    return strips.concat()


def resize_and_crop(
    image: Tensor, size: int, crop: float = 1.0, resize: str = "crop", padding: Sequence[int] | None = None
) -> Tensor:
    """Make a square of an image (bilinear, antialias): resize its short side, and cut out the centre.

    The same pixels as `tf.image.resize(..., antialias=True)` to a short side of `round(size / crop)` followed by a
    central crop, but in one step that only computes what remains, so that a picture of 20000 x 2 pixels costs no more
    memory than another. A square picture of `size` pixels passes unchanged with `crop=1`.

    Args:
        image: tensor `(height, width, channels)` of a numeric dtype.
        size: int, side of the result in pixels.
        crop: float, share of the resized short side that is kept, 0 < crop <= 1. Defaults to 1.0.
        resize: `"crop"`; `"pad"`: the long side is resized, and what is missing filled; or `"squash"`: both sides are
            resized, see `Decoding.resize`. Defaults to `"crop"`.
        padding: what `"pad"` fills with, a number a channel, or None for 0. Defaults to None.

    Returns:
        float32 tensor `(size, size, channels)` in the range of `image`.

    Raises:
        ValueError: for a size below 1, a crop outside 0..1, or another `resize`.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import resize_and_crop
        >>> resize_and_crop(tf.zeros((480, 640, 3)), size=224, crop=0.875).shape
        TensorShape([224, 224, 3])
    """
    size = int(size)
    if size < 1:
        raise ValueError(f"`size` must be at least 1 pixel. Received: size={size}")
    if not 0 < crop <= 1:
        raise ValueError(f"`crop` must be above 0 and at most 1. Received: crop={crop}")
    if resize not in RESIZE:
        raise ValueError(f"`resize` must be {', '.join(map(repr, RESIZE))}. Received: resize={resize!r}")
    image = tf.convert_to_tensor(image)
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    resized = {
        "crop": lambda: tf.round(sides * (round(size / crop) / tf.reduce_min(sides))),
        "pad": lambda: tf.maximum(tf.round(sides * (size / tf.reduce_max(sides))), 1),
        "squash": lambda: tf.fill((2,), tf.constant(size, tf.float64)),
    }[resize]()
    scale = resized / sides
    offset = tf.floor((resized - size) / 2)
    # Only the part of the picture that the triangle kernel reaches takes part: without this a very long picture would
    # become a huge intermediate, and its positions would lose their fraction in float32.
    reach = tf.maximum(1 / scale, tf.ones_like(scale)) + 1
    begin = tf.floor(tf.nn.relu(offset / scale - reach))
    end = tf.math.ceil(tf.minimum(sides, (offset + size) / scale + reach))
    (top, left), (bottom, right) = (tf.unstack(tf.cast(edge, tf.int32)) for edge in (begin, end))
    result = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis, top:bottom, left:right],
        size=[size, size],
        scale=tf.cast(scale, tf.float32),
        translation=tf.cast(begin * scale - offset, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    if resize == "pad" and padding is not None:
        rows, columns = (
            (place >= -offset[side]) & (place < resized[side] - offset[side])
            for side, place in enumerate([tf.range(size, dtype=tf.float64)] * 2)
        )
        inside = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis]
        result = tf.where(inside, result, tf.constant(padding, tf.float32))
    return tf.ensure_shape(result, (size, size, image.shape[-1]))


def load_image(
    image_bytes: Tensor,
    size: int,
    crop: float = 1.0,
    max_pixels: int | None = None,
    decoding: Decoding | None = None,
) -> Tensor:
    """Decode the bytes of an image file and bring them to a square of the network's size.

    Args:
        image_bytes: scalar string tensor (or bytes); see `decode_image` for the formats.
        size: int, side of the result in pixels.
        crop: float, share of the resized short side that is kept; see `resize_and_crop`. Defaults to 1.0.
        max_pixels: int or None, how many pixels the file may unpack to; see `decode_image`. Defaults to None.
        decoding: the `kresnets.Decoding` of the data or the model; see `decode_image`. Defaults to None.

    Returns:
        float32 tensor `(size, size, Decoding.channels)`, RGB 0..255.

    Raises:
        ValueError: for a size below 1, a crop outside 0..1, or channels that `decode_image` does not give.
        tf.errors.InvalidArgumentError: when run on bytes that are no image.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import load_image
        >>> load_image(tf.io.encode_jpeg(tf.zeros((300, 400, 3), "uint8")), size=224).shape
        TensorShape([224, 224, 3])
    """
    how = decoding or Decoding()
    return resize_and_crop(decode_image(image_bytes, max_pixels, how), size, crop, how.resize, how.padding)
