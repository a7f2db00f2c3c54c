"""Random changes to training images, with Keras's own layers, as a pure function of the seed and of what is drawn.

Keras's layers keep the state of their random numbers in variables. In a tf.data pipeline that makes them depend on the
order in which parallel calls happen to run, and a resumed run would draw other numbers than an uninterrupted one. Here
the numbers come from a seed and a draw (epoch and batch) alone.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from kresnets import augmentations
from kresnets.augmentations import layers_of
from kresnets.decoding import CHANNELS
from kresnets.keras_hooks.graph import with_inner

KINDS = ("none", "light", "strong")
_BATCHES_PER_EPOCH = 1 << 31  # above any count of batches: draws of different epochs never meet


class _Seeds(keras.random.SeedGenerator):
    """Hand out the seeds of one call: derived from `base`, numbered as the layers ask, no state read or written."""

    def __init__(self):
        super().__init__(seed=0)
        self.base = None
        self._count = 0

    def start(self, base):
        self.base, self._count = base, 0

    def next(self, ordered=True):
        self._count += 1
        return tf.random.fold_in(self.base, self._count, alg="philox")


class _Layers:
    """Run Keras's preprocessing layers inside a TensorFlow graph, on any backend, with seeds of our own."""

    def __init__(self, layers, seed):
        self._layers = layers
        self._seed = seed
        self._seeds = _Seeds()
        for layer in layers:
            # The method by which Keras's layers fetch their generator, RandAugment and MixUp included; there is no
            # public way in. tests/test_data_augment.py fails when Keras renames it.
            for inner in with_inner(layer):
                inner._get_seed_generator = lambda backend=None: self._seeds
        self._run = tf.function(self._trace, autograph=False)  # in a graph the layers compute with TensorFlow

    def __call__(self, inputs, draw):
        if draw is None:
            draw = tf.random.uniform((), maxval=tf.int64.max, dtype=tf.int64)
        with tf.device("CPU:0"):
            return self._run(inputs, tf.cast(draw, tf.int64))

    def _trace(self, inputs, draw):
        seed = tf.constant([self._seed, 0], tf.int64)
        self._seeds.start(tf.random.fold_in(seed, draw, alg="philox"))
        for layer in self._layers:
            inputs = layer(inputs, training=True)
        return inputs


class Augmentation:
    """Change a batch of training images at random; made by `augmentation`.

    Calling it with the same images, seed and `draw` gives the same result, in tf.data (parallel or not) as outside, on
    any Keras backend. It always computes with TensorFlow, on the CPU.
    """

    def __init__(self, kind: Any, seed: int) -> None:
        self.kind = kind
        if isinstance(kind, Mapping):
            self.layers = tuple(layers_of(kind))
        else:
            self.layers = (_of_its_own(kind),) if isinstance(kind, keras.layers.Layer) else tuple(_make_layers(kind))
        self._layers = _Layers(self.layers, seed)

    def __call__(self, images, draw=None):
        """Return the changed images.

        Args:
            images: tensor or array `(batch, height, width, channels)`, RGB 0..255; see `check_channels` for others.
            draw: int, which of the seed's random changes, for instance the number of the batch; None for one from
                TensorFlow's own generator (`keras.utils.set_random_seed` sets it). Defaults to None.

        Returns:
            `tf.Tensor` of float32, the same shape and range.
        """
        images = tf.cast(images, tf.float32)
        if not self.layers:
            return images
        return tf.clip_by_value(tf.ensure_shape(self._layers(images, draw), images.shape), 0.0, 255.0)


class _Function:
    """Change a batch of images by a function of the user's, given the draw too where it takes two arguments."""

    def __init__(self, function):
        self.kind, self._function = function, function
        parameters = inspect.signature(function).parameters.values()
        places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        self._takes_draw = len(places) > 1

    def __call__(self, images, draw=None):
        images = tf.cast(images, tf.float32)
        changed = self._function(images, draw) if self._takes_draw else self._function(images)
        return tf.ensure_shape(tf.cast(changed, tf.float32), images.shape)


def _of_its_own(layer):
    """Return a layer like the user's: what is done to it here must not be done to theirs."""
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:  # a user's own layer may raise anything
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made again from its config: give it a "
            "`get_config` that tells all arguments of its `__init__`, or a function of a batch of images."
        ) from error


def augmentation(kind: str | Mapping | Callable = "light", seed: int = 0) -> Callable:
    """Return a function that changes a batch of images 0..255 at random.

    Args:
        kind: `"none"`; `"light"` (left-right flip, shift and zoom by up to a tenth, brightness and contrast by up to a
            tenth); or `"strong"` (the same, then Keras's RandAugment: two of eleven operations, chosen once per batch).
            Or a dict of Keras's layers by name with their arguments, `{"RandomRotation": {"factor": 0.1}}`, see
            `kresnets.augmentations`. Or a Keras layer, such as `keras.layers.RandAugment(value_range=(0, 255))` or a
            `keras.Sequential` of such ones, or a function of images, and of a draw if it takes one: float32
            `(batch, height, width, 3)`, RGB 0..255, before and after. What a function draws by itself is its own: a
            resumed run may differ then. Defaults to `"light"`.
        seed: int, chooses the changes. Defaults to 0.

    Returns:
        An `Augmentation` (of a function, a function), to be called with images and, for results that can be had again,
        a `draw`.

    Raises:
        ValueError: for another kind.

    Example:
        >>> import numpy as np
        >>> from kresnets.data import augmentation
        >>> augmentation("light", seed=1)(np.full((2, 32, 32, 3), 100.0), draw=0).shape
        TensorShape([2, 32, 32, 3])
    """
    if isinstance(kind, Augmentation):
        return kind
    if callable(kind) and not isinstance(kind, (str, keras.layers.Layer, type)):
        return _Function(kind)
    if not isinstance(kind, (Mapping, keras.layers.Layer)) and not (isinstance(kind, str) and kind in KINDS):
        allowed = ", ".join(map(repr, KINDS))
        raise ValueError(
            f"Unknown augmentation {kind!r}: use one of {allowed}, a dict of Keras's layers with their arguments, a "
            "Keras layer, or a function of images."
        )
    return Augmentation(kind, seed)


def check_channels(kind: Any, channels: int) -> None:
    """Raise a ValueError where an augmentation does not take images of so many channels: those of colours do not. A
    layer or function of the user's own is taken at its word."""
    if channels == 3 or channels not in CHANNELS or not isinstance(kind, (str, Mapping)):
        return
    try:
        augmentation(kind)(tf.zeros((1, 16, 16, channels)), 0)
    except Exception as error:  # Keras's layers raise what their operations raise
        told = repr(kind) if isinstance(kind, str) else augmentations.told(kind)
        raise ValueError(
            f"The augmentation {told} does not take images of {channels} channels, as what changes colours does not: "
            "use 'light', 'none', or other layers."
        ) from error


def _make_layers(kind):
    if kind == "none":
        return
    options = {"data_format": "channels_last", "dtype": "float32"}  # as the pipeline, whatever Keras is set to
    yield keras.layers.RandomFlip("horizontal", **options)
    yield keras.layers.RandomTranslation(0.1, 0.1, **options)
    yield keras.layers.RandomZoom(0.1, **options)
    yield keras.layers.RandomBrightness(0.1, dtype="float32")
    yield keras.layers.RandomContrast(0.1, dtype="float32")
    if kind == "strong":
        yield keras.layers.RandAugment(value_range=(0, 255), **options)


class Mixup:
    """Blend each image of a batch, and its label, with another one of it (arXiv 1710.09412), by Keras's MixUp layer.

    Args:
        alpha: float above 0, of the Beta(alpha, alpha) distribution that the weights come from.
        seed: int. Defaults to 0.

    Raises:
        ValueError: for an alpha that is not above 0.

    Example:
        >>> import numpy as np
        >>> from kresnets.data import Mixup
        >>> images, labels = Mixup(0.2)(np.zeros((4, 8, 8, 3)), np.eye(4), draw=0)
        >>> np.asarray(labels).sum(axis=1).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, alpha: float, seed: int = 0) -> None:
        if not alpha > 0:
            raise ValueError(f"`alpha` must be above 0. Received: alpha={alpha}")
        layer = keras.layers.MixUp(alpha, data_format="channels_last", dtype="float32")
        self._layers = _Layers([layer], seed)

    def __call__(self, images, labels, draw=None):
        """Return the blended images and labels.

        Args:
            images: tensor or array `(batch, height, width, channels)`.
            labels: float tensor or array `(batch, classes)`, one-hot.
            draw: int or None; see `Augmentation`. Defaults to None.
        """
        images, labels = tf.convert_to_tensor(images, tf.float32), tf.convert_to_tensor(labels, tf.float32)
        mixed = self._layers({"images": images, "labels": labels}, draw)
        return mixed["images"], mixed["labels"]


def augment_batches(dataset: Any, augment: Callable, epoch: Any = None) -> Any:
    """Change the images of every batch of a pipeline, in parallel.

    Args:
        dataset: `tf.data.Dataset` of batches `(images, ...)`, images RGB 0..255; what follows them passes unchanged.
        augment: an `Augmentation`.
        epoch: an int64 `tf.Variable` (`epoch_variable()`), read as the batches are drawn: the changes are then a
            function of the augmentation's seed, the epoch and the number of the batch. Without it they follow
            TensorFlow's generator. Defaults to None.

    Returns:
        A `tf.data.Dataset` of the same elements and cardinality.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data import augment_batches, augmentation
        >>> batches = tf.data.Dataset.from_tensors((tf.zeros((2, 8, 8, 3)), tf.zeros(2)))
        >>> augment_batches(batches, augmentation("light")).element_spec[0].shape
        TensorShape([2, 8, 8, 3])
    """

    def change(number, batch):
        draw = None if epoch is None else epoch.read_value() * _BATCHES_PER_EPOCH + number
        images, *rest = batch
        return (augment(images, draw), *rest)

    dataset = dataset.enumerate().map(change, tf.data.AUTOTUNE, deterministic=True)
    return dataset.prefetch(tf.data.AUTOTUNE)
