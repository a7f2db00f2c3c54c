"""Untrusted bytes to images, a batch at a time, none of which can spoil another."""

import tensorflow as tf

from kresnets.data.images import load_image


def decode_batch(items, image_of, size, crop, max_pixels):
    """Decode a batch of image files in parallel, as training does, whatever is among them.

    Args:
        items: string tensor `(batch,)`.
        image_of: function from one of them to the bytes of an image file, both scalar string tensors.
        size: int, side of the images in pixels.
        crop: float, share of the resized short side that is kept.
        max_pixels: int, how many pixels a file may unpack to.

    Returns:
        float32 tensor `(batch, size, size, 3)`, RGB 0..255, and bool tensor `(batch,)`: an image that cannot be decoded
        is black and not valid.

    Example:
        >>> import tensorflow as tf
        >>> files = tf.stack([tf.io.encode_png(tf.zeros((2, 4, 1), "uint8")), tf.constant(b"no image")])
        >>> images, valid = decode_batch(files, tf.identity, size=8, crop=1.0, max_pixels=100)
        >>> valid.numpy().tolist()
        [True, False]
    """
    count = tf.size(items, out_type=tf.int64)
    shape = (size, size, 3)
    # Of TensorFlow's own operations only a dataset goes on where an element fails. One row past the end, cut off below:
    # a batch without any image must still give an element.
    loaded = (
        tf.data.Dataset.from_tensor_slices((tf.range(count), items))
        .map(
            lambda row, item: (row, load_image(image_of(item), size, crop, max_pixels)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors((count, tf.zeros(shape))))
    )
    # One batch put in place at once: to update the rows one by one would copy the whole batch for each.
    rows, images = loaded.batch(count + 1).get_single_element()
    images = tf.scatter_nd(rows[:, tf.newaxis], images, tf.stack([count + 1, *shape]))[:-1]
    valid = tf.scatter_nd(rows[:, tf.newaxis], tf.ones_like(rows), [count + 1])[:-1] > 0
    return tf.ensure_shape(images, (None, *shape)), valid
