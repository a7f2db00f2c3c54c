"""From the bytes of an image file to pixels: the one function that training, evaluation and the served model share.

Pure TensorFlow operations, so that it runs inside `tf.data` and is saved within a SavedModel.
"""

import tensorflow as tf

from kresnets._util.types import Tensor
from kresnets.data import headers


def decode_image(image_bytes: Tensor, max_pixels: int | None = None) -> Tensor:
    """Decode the bytes of one image file to RGB.

    JPEG (baseline, progressive, grey, CMYK), PNG, GIF and BMP; WebP where the installed TensorFlow decodes it. What
    `tf.io.decode_image` makes of the less ordinary ones:

    - grey: the value is repeated in the three channels;
    - 16-bit PNG: the high byte of each value (not rescaled to the picture's own range);
    - alpha: dropped, so a transparent pixel shows the colour stored under it; a palette PNG or GIF is looked up;
    - CMYK JPEG: converted by the plain formula, without colour profiles; no file's profile is applied;
    - GIF: the first frame, and what is behind it is not looked at;
    - BMP: 8 bits are taken as grey (a palette is ignored), 1 and 4 bits are refused;
    - EXIF rotation: ignored.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of the file.
        max_pixels: int, how many pixels the header may claim before anything is decoded (`headers.claimed_pixels`);
            also, only the formats above are then read, whatever else the installed TensorFlow knows. Defaults to None:
            for files that were checked before (`check_image`).

    Returns:
        uint8 tensor `(height, width, 3)`, RGB 0..255.

    Raises:
        tf.errors.InvalidArgumentError: when run on bytes that are no such image, on a truncated one, or on one of more
            pixels.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import decode_image
        >>> decode_image(tf.io.encode_png(tf.zeros((2, 4, 1), "uint8"))).shape
        TensorShape([2, 4, 3])
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

    def as_it_is():
        return image_bytes, tf.constant(0, tf.int64) if max_pixels is None else headers.claimed_pixels(image_bytes)

    image_bytes, pixels = tf.cond(headers.is_gif(image_bytes), lambda: headers.first_frame(image_bytes), as_it_is)
    if max_pixels is not None:
        fits = (pixels >= 0) & (pixels <= max_pixels)
        reason = f"Neither JPEG, PNG, GIF, BMP nor WebP, or of more than {max_pixels} pixels."
        with tf.control_dependencies([tf.debugging.Assert(fits, [reason])]):
            image_bytes = tf.identity(image_bytes)
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def resize_and_crop(image: Tensor, size: int, crop: float = 1.0) -> Tensor:
    """Resize the short side (bilinear, antialias) and cut out the centre square.

    The same pixels as `tf.image.resize(..., antialias=True)` to a short side of `round(size / crop)` followed by a
    central crop, but in one step that only computes what remains, so that a picture of 20000 x 2 pixels costs no more
    memory than another. A square picture of `size` pixels passes unchanged with `crop=1`.

    Args:
        image: tensor `(height, width, channels)` of a numeric dtype.
        size: int, side of the result in pixels.
        crop: float, share of the resized short side that is kept, 0 < crop <= 1. Defaults to 1.0.

    Returns:
        float32 tensor `(size, size, channels)` in the range of `image`.

    Raises:
        ValueError: for a size below 1 or a crop outside 0..1.

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
    image = tf.convert_to_tensor(image)
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    resized = tf.round(sides * (round(size / crop) / tf.reduce_min(sides)))
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
    return tf.ensure_shape(result, (size, size, image.shape[-1]))


def load_image(image_bytes: Tensor, size: int, crop: float = 1.0, max_pixels: int | None = None) -> Tensor:
    """Decode the bytes of an image file and bring them to a square of the network's size.

    Args:
        image_bytes: scalar string tensor (or bytes); see `decode_image` for the formats.
        size: int, side of the result in pixels.
        crop: float, share of the resized short side that is kept; see `resize_and_crop`. Defaults to 1.0.
        max_pixels: int or None, how many pixels the file may unpack to; see `decode_image`. Defaults to None.

    Returns:
        float32 tensor `(size, size, 3)`, RGB 0..255.

    Raises:
        ValueError: for a size below 1 or a crop outside 0..1.
        tf.errors.InvalidArgumentError: when run on bytes that are no image.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import load_image
        >>> load_image(tf.io.encode_jpeg(tf.zeros((300, 400, 3), "uint8")), size=224).shape
        TensorShape([224, 224, 3])
    """
    return resize_and_crop(decode_image(image_bytes, max_pixels), size, crop)
