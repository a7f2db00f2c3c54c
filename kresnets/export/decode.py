"""Untrusted bytes to images, a batch at a time, none of which can spoil another."""

import tensorflow as tf

from kresnets.data.images import load_image, resize_and_crop
from kresnets.data.transcode import decoded


def loader(size, crop, max_pixels, decoding=None, arrays=False):
    """Return a function from the bytes of an image file to the image, which is traced once for all that call it.

    Args:
        size: int, side of the images in pixels.
        crop: float, share of the resized short side that is kept.
        max_pixels: int, how many pixels a file may unpack to.
        decoding: a `kresnets.Decoding`. Defaults to None, `Decoding()`.
        arrays: whether TIFF and arrays (`.npy`) are read too, of any number of channels, which takes Python: not for a
            graph that is saved, nor for files that nobody looked at. Defaults to False.
    """

    def load(image_bytes):
        if arrays:
            return resize_and_crop(decoded(image_bytes, decoding), size, crop, decoding.resize)
        return load_image(image_bytes, size, crop, max_pixels, decoding)

    return tf.function(load, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def decode_batch(items, load, size, channels=3):
    """Decode a batch in parallel, whatever is among it.

    Args:
        items: string tensor `(batch,)`.
        load: function from one of them, a scalar, to an image, such as a `loader`'s.
        size: int, side of the images in pixels.
        channels: of them. Defaults to 3.

    Returns:
        float32 tensor `(batch, size, size, channels)`, RGB 0..255, and bool tensor `(batch,)`: an image that cannot be
        decoded is black and not valid.

    Example:
        >>> import tensorflow as tf
        >>> files = tf.stack([tf.io.encode_png(tf.zeros((2, 4, 1), "uint8")), tf.constant(b"no image")])
        >>> images, valid = decode_batch(files, loader(size=8, crop=1.0, max_pixels=100), size=8)
        >>> valid.numpy().tolist()
        [True, False]
    """
    count = tf.size(items, out_type=tf.int64)
    shape = (size, size, channels)

    @tf.autograph.experimental.do_not_convert
    def load_row(row, item):
        return row, load(item)

    # Of TensorFlow's own operations only a dataset goes on where an element fails. One row past the end, cut off below:
    # a batch without any image must still give an element.
    loaded = (
        tf.data.Dataset.from_tensor_slices((tf.range(count), items))
        .map(load_row, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors((count, tf.zeros(shape))))
    )
    # One batch put in place at once: to update the rows one by one would copy the whole batch for each.
    rows, images = loaded.batch(count + 1).get_single_element()
    images = tf.scatter_nd(rows[:, tf.newaxis], images, tf.stack([count + 1, *shape]))[:-1]
    valid = tf.scatter_nd(rows[:, tf.newaxis], tf.ones_like(rows), [count + 1])[:-1] > 0
    return tf.ensure_shape(images, (None, *shape)), valid
