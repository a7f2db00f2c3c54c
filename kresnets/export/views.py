"""Test-time augmentation: the answer as the mean over views of an image."""

import tensorflow as tf

VIEWS = ("none", "flip", "crops")
_CROP = 0.875  # of a side that a crop keeps


def views(images, how):
    """Return views of images, one after the other in the first axis, the images themselves first.

    Args:
        images: float tensor `(batch, size, size, 3)`.
        how: `"none"`; `"flip"`, the image and its mirror image; or `"crops"`, the image, its centre and its four
            corners at 7/8 of the sides, resized back, and the mirror image of each of these six.

    Returns:
        `(batch * views, size, size, 3)`.
    """
    if how == "none":
        return images
    found = [images]
    if how == "crops":
        rest = 1 - _CROP
        size, count = images.shape[1:3], tf.shape(images)[0]
        for top, left in ((rest / 2, rest / 2), (0, 0), (0, rest), (rest, 0), (rest, rest)):
            box = tf.tile([[top, left, top + _CROP, left + _CROP]], [count, 1])
            found.append(tf.image.crop_and_resize(images, box, tf.range(count), size))
    return tf.concat([*found, *(tf.image.flip_left_right(image) for image in found)], axis=0)


def mean(answers, how):
    """Return the mean of answers to `views`, `(batch, ...)`."""
    if how == "none":
        return answers
    count = 2 if how == "flip" else 12
    shape = tf.shape(answers)
    return tf.reduce_mean(tf.reshape(answers, tf.concat([[count, shape[0] // count], shape[1:]], 0)), axis=0)
