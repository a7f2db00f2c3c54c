"""What a server answers: each signature as a function of tensors."""

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from kresnets.export.decode import decode_batch, loader
from kresnets.preprocess import Preprocessing


@dataclasses.dataclass(frozen=True)
class Signatures:
    """The signatures of a served classifier, all with a free batch dimension.

    Args:
        network: function from RGB images 0..255, float32 `(batch, size, size, 3)`, to a dict of `probabilities`,
            float32 `(batch, classes)`, and `features`, float32.
        labels: tuple of str, the name of each class.
        top: int, labels and scores per image.
        size: int, side of the images in pixels.
        preprocessing: `kresnets.Preprocessing`, of which the crop and the decoding are done here.
        max_pixels: int, how many pixels an image file may unpack to.
        numbers: whether the outputs are numbers, of the names in `labels`, rather than probabilities of them.
    """

    network: Callable
    labels: tuple[str, ...]
    top: int
    size: int
    preprocessing: Preprocessing
    max_pixels: int
    numbers: bool = False

    def specs(self):
        """Return name -> (function, the tensor it takes)."""
        images = tf.TensorSpec((None, self.size, self.size, 3), tf.float32, name="images")
        found = {
            "serving_default": (self.serving_default, tf.TensorSpec((None,), tf.string, name="image_bytes")),
            "classify": (self.classify, tf.TensorSpec((None,), tf.string, name="inputs")),
            "predict_tensor": (self.predict_tensor, images),
            "features": (self.features, images),
        }
        if self.numbers:
            del found["classify"]
        return found

    def serving_default(self, image_bytes):
        """Map the bytes of image files, `(batch,)`, to labels, scores and valid; or to values and valid."""
        if self.numbers:
            images, valid = decode_batch(image_bytes, self._load, self.size)
            values = self.network(images)["probabilities"]
            return {"values": tf.where(valid[:, tf.newaxis], values, tf.zeros_like(values)), "valid": valid}
        return self._named(image_bytes, self._load)

    def classify(self, inputs):
        """Map serialized tf.Examples with `image/encoded`, `(batch,)`, to classes and scores.

        Of TF Serving's Classify API, which takes no third output: what is no image has the classes "".
        """
        answer = self._named(inputs, lambda example: self._load(_encoded_image(example)))
        return {"classes": answer["labels"], "scores": answer["scores"]}

    def predict_tensor(self, images):
        """Map RGB images 0..255, `(batch, size, size, 3)`, to the probability of each class, or to the values."""
        return {"values" if self.numbers else "probabilities": self.network(images)["probabilities"]}

    def features(self, images):
        """Map RGB images 0..255, `(batch, size, size, 3)`, to what the classifying layer sees."""
        return {"features": self.network(images)["features"]}

    @functools.cached_property
    def _load(self):
        return loader(self.size, self.preprocessing.crop, self.max_pixels, self.preprocessing.decoding)

    def _named(self, items, load):
        images, valid = decode_batch(items, load, self.size)
        scores, indices = tf.math.top_k(self.network(images)["probabilities"], self.top)
        row = valid[:, tf.newaxis]
        return {
            "labels": tf.where(row, tf.gather(tf.constant(self.labels), indices), ""),
            "scores": tf.where(row, scores, 0.0),
            "valid": valid,
        }


def _encoded_image(example):
    wanted = {"image/encoded": tf.io.FixedLenFeature((), tf.string)}
    return tf.io.parse_single_example(example, wanted)["image/encoded"]
