"""What every format is made of: a network from pixels to probabilities, and what is to be known of a format."""

import dataclasses
import importlib.util
from collections.abc import Callable

import keras
import tensorflow as tf


class Network(keras.Model):
    """A classifier as a Keras model, from RGB images 0..255 to probabilities, for Keras's own exporters.

    Args:
        classifier: a `kresnets.export.Classifier`.
    """

    def __init__(self, classifier):
        super().__init__(name=classifier.model.name)
        self.trunk = classifier.model  # tracked by Keras: its weights are those of this model
        self.signature = [tf.TensorSpec((None, *classifier.shape), tf.float32, name="images")]
        self._classifier = classifier
        self(tf.zeros((1, *self.signature[0].shape[1:])))

    def call(self, images, training=None):
        return {"probabilities": self._classifier.scores.probabilities(self._classifier.raw_outputs(images))}

    def write(self, file, format, **options):
        """Export by Keras, with `images` and `probabilities` as the names of what goes in and comes out."""
        self.export(str(file), format=format, verbose=False, input_signature=self.signature, **options)


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format, by the libraries that own it.

    Args:
        title: str, what people call it.
        suffixes: tuple of str, of the files that it consists of; the first is the one to open.
        libraries: tuple of str, the modules that must be there to write and run it; the last one runs it.
        extra: str, the extra of kresnets that installs them.
        write: function `(network, file, images, labels)` that writes a `Network` to a pathlib.Path.
        open: function from the pathlib.Path to a function that the format's own runtime answers: from float32 images
            `(batch, size, size, 3)` of whole numbers 0..255 to an array of probabilities.
        calibrated: bool, whether the images given to `write` decide its numbers.
    """

    title: str
    suffixes: tuple[str, ...]
    libraries: tuple[str, ...]
    extra: str
    write: Callable
    open: Callable
    calibrated: bool = False

    def require_libraries(self, libraries=None):
        """Raise an ImportError that says what to install, where one of the libraries, or of those given, is missing."""
        missing = [name for name in libraries or self.libraries if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(f"{self.title} needs {' and '.join(missing)}: pip install 'kresnets[{self.extra}]'.")
