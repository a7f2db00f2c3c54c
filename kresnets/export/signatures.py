"""What a server answers: each signature as a function of tensors."""

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from kresnets.decoding import Decoding
from kresnets.export.decode import decode_batch, loader
from kresnets.preprocess import Preprocessing


@dataclasses.dataclass(frozen=True)
class Signatures:
    """The signatures of a served classifier, all with a free batch dimension.

    Args:
        network: function from RGB images 0..255, float32 `(batch, size, size, channels)`, to a dict of `probabilities`,
            float32 `(batch, classes)`, and `features`, float32.
        labels: tuple of str, the name of each class.
        top: int, labels and scores per image.
        size: int, side of the images in pixels.
        preprocessing: `kresnets.Preprocessing`, of which the crop and the decoding are done here.
        max_pixels: int, how many pixels an image file may unpack to.
        numbers: whether the outputs are numbers, of the names in `labels`, rather than probabilities of them.
        arrays: as of `loader`.
    """

    network: Callable
    labels: tuple[str, ...]
    top: int
    size: int
    preprocessing: Preprocessing
    max_pixels: int
    numbers: bool = False
    arrays: bool = False

    def specs(self):
        """Return name -> (function, the tensor it takes).

        Files that TensorFlow decodes have 1, 3 or 4 channels: of others there is no signature from bytes.
        """
        images = tf.TensorSpec((None, self.size, self.size, self._decoding.channels), tf.float32, name="images")
        found = {
            "serving_default": (self.serving_default, tf.TensorSpec((None,), tf.string, name="image_bytes")),
            "classify": (self.classify, tf.TensorSpec((None,), tf.string, name="inputs")),
            "predict_tensor": (self.predict_tensor, images),
            "features": (self.features, images),
        }
        if self.numbers or not self._decoding.from_bytes:
            del found["classify"]
        if not self._decoding.from_bytes:
            found["serving_default"] = found["predict_tensor"]
        return found

    @property
    def _decoding(self):
        return self.preprocessing.decoding or Decoding()

    def serving_default(self, image_bytes):
        """Map the bytes of image files, `(batch,)`, to labels, scores and valid; or to values and valid."""
        if self.numbers:
            images, valid = decode_batch(image_bytes, self._load, self.size, self._decoding.channels)
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
        """Map images 0..255, `(batch, size, size, channels)`, to the probability of each class, or to the values."""
        return {"values" if self.numbers else "probabilities": self.network(images)["probabilities"]}

    def features(self, images):
        """Map images 0..255, `(batch, size, size, channels)`, to what the classifying layer sees."""
        return {"features": self.network(images)["features"]}

    @functools.cached_property
    def _load(self):
        how = self.preprocessing
        return loader(self.size, how.crop, self.max_pixels, how.decoding, self.arrays)

    def _named(self, items, load):
        images, valid = decode_batch(items, load, self.size, self._decoding.channels)
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
