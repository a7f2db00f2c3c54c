"""What a user passes as images and labels, turned into the batches that `fit` takes: augmented, preprocessed, of known
length."""

import keras
import numpy as np

from kresnets.keras_hooks.graph import random_states

BATCH_SIZE = 32  # of arrays, as in model.fit
_DRAWS_PER_EPOCH = 1 << 31  # above any number of batches: the draws of two epochs never meet


class EpochSeeds(keras.callbacks.Callback):
    """Make each epoch's randomness a function of the seed and the epoch alone, so that a resumed run equals an
    uninterrupted one.

    Args:
        seed: whole number from 0.
        clocks: what must know the epoch, by `assign(epoch)`: the `kresnets.data.epoch_variable()` of a pipeline, or
            `Batches`.
    """

    def __init__(self, seed, clocks=()):
        super().__init__()
        self.seed, self.clocks = seed, clocks

    def on_epoch_begin(self, epoch, logs=None):
        for clock in self.clocks:
            clock.assign(epoch)
        for index, state in enumerate(random_states(self.model)):  # of dropout and its like
            state.assign(np.random.SeedSequence((self.seed, epoch, index)).generate_state(2))


class Batches(keras.utils.PyDataset):
    """Serve the batches of a PyDataset, or of arrays, in an order that is a function of the seed and the epoch.

    Args:
        source: a PyDataset, or a tuple of arrays `(images, labels)` or `(images, labels, weights)`.
        prepare: function of such a tuple for one batch, and of an int that numbers the batches of all epochs.
        seed: of the order; None keeps it. Rows are shuffled in arrays, whole batches of a PyDataset. Defaults to None.
    """

    def __init__(self, source, prepare, seed=None):
        settings = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{name: getattr(source, name) for name in settings if hasattr(source, name)})
        self._source, self._prepare, self._seed = source, prepare, seed
        self._arrays = isinstance(source, tuple)
        self.assign(0)

    def assign(self, epoch):
        """Take the order of this epoch."""
        count = len(self._source[0]) if self._arrays else len(self)
        rng = np.random.default_rng((self._seed or 0, epoch))
        self._epoch, self._order = epoch, np.arange(count) if self._seed is None else rng.permutation(count)

    def __len__(self):
        return -(-len(self._source[0]) // BATCH_SIZE) if self._arrays else self._source.num_batches

    def on_epoch_begin(self):
        if not self._arrays:
            self._source.on_epoch_begin()

    def on_epoch_end(self):
        if not self._arrays:
            self._source.on_epoch_end()

    def rows(self, index):
        """Return the rows of the arrays that a batch of the epoch takes, ascending: h5py takes nothing else."""
        return np.sort(self._order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE])

    def __getitem__(self, index):
        if self._arrays:
            rows = self.rows(index)
            batch = tuple(array[rows] for array in self._source)
        else:
            batch = self._source[int(self._order[index])]
        return self._prepare(batch, self._epoch * _DRAWS_PER_EPOCH + index)


class Preparation:
    """Turn a batch of RGB images 0..255 and their labels into what a model is trained on.

    Args:
        preprocessing: the `kresnets.Preprocessing` that the weights want.
        labels: the `kresnets.transfer.labels.Labels` that they are.
        augment: kind of augmentation, see `kresnets.data.augmentation`. Defaults to `"none"`.
        mixup: alpha of mixup. Defaults to 0.
        seed: of both. Defaults to 0.
        share: function of a batch that returns the part of it to be prepared, with something after it that passes
            unchanged; None for all of it. Defaults to None.
    """

    def __init__(self, preprocessing, labels, augment="none", mixup=0.0, seed=0, share=None):
        self._preprocessing, self.labels, self._share = preprocessing, labels, share
        self._augment = self._mixup = None
        if augment != "none" or mixup:
            from kresnets.data.augment import Mixup, augmentation

            self._augment = augmentation(augment, seed) if augment != "none" else None
            self._mixup = Mixup(mixup, seed) if mixup else None

    def __call__(self, batch, draw=None):
        images, labels, *weights = batch if self._share is None else self._share(batch)
        on_tensors = not isinstance(images, np.ndarray)
        labels = self.labels(labels if on_tensors else np.asarray(labels))
        if self._augment:
            images = self._augment(images, draw)
        if self._mixup:
            images, labels = self._mixup(images, labels, draw)
        if not on_tensors:
            images, labels = np.asarray(images), np.asarray(labels)
        return (self._preprocessing(images, "channels_last"), labels, *weights)

    def plain(self):
        """Return the same for images as they are: of whole batches, neither augmented nor mixed."""
        return Preparation(self._preprocessing, self.labels)

    def dataset(self, dataset, epoch=None):
        """Return the `tf.data.Dataset` of prepared batches."""

        def change(number, batch):
            return self(batch, None if epoch is None else epoch.read_value() * _DRAWS_PER_EPOCH + number)

        # -1 is tf.data.AUTOTUNE. Parallel batches draw the same numbers in any order, since each draw has its own.
        return (
            dataset.enumerate()
            .map(lambda number, *batch: change(number, batch[0]), -1, deterministic=True)
            .prefetch(-1)
        )


def rows_of(source):
    """Return the `kresnets.data.part.Rows` that a pipeline of `Part.batches` draws, None for any other data."""
    return getattr(source, "kresnets_rows", None)


def is_dataset(source):
    """Whether this is a `tf.data.Dataset`, told without importing TensorFlow."""
    return hasattr(source, "element_spec") and hasattr(source, "cardinality")


def check_source(source, argument):
    """Return `source` as a tf.data.Dataset, a PyDataset or a tuple of arrays; raise a ValueError for anything else."""
    if is_dataset(source) or isinstance(source, keras.utils.PyDataset):
        return source
    if isinstance(source, (tuple, list)) and len(source) in (2, 3) and all(hasattr(part, "shape") for part in source):
        lengths = [len(part) for part in source]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(f"`{argument}`: the arrays must be of one length, above 0. Received lengths: {lengths}")
        images, labels = source[:2]
        if len(images.shape) != 4 or np.ndim(labels) not in (1, 2):
            raise ValueError(
                f"`{argument}` must be images (n, height, width, 3) and one integer label each (n,), or one-hot rows "
                f"(n, classes). Received shapes: {tuple(images.shape)}, {tuple(labels.shape)}"
            )
        return tuple(np.asarray(part) for part in source)
    if hasattr(source, "batches") or hasattr(source, "train"):  # a `kresnets.data.Part`, or `Data` whole
        own = f"data.{argument}" if hasattr(source, "train") else "part"
        raise ValueError(
            f"`{argument}` must come in batches: give {own}.batches(32, size=224), of the size of the model."
        )
    raise ValueError(
        f"`{argument}` must be a tf.data.Dataset or keras.utils.PyDataset of batches (images, labels), or a pair of "
        f"arrays. Received: {type(source).__name__}"
    )


def with_length(source, argument):
    """Return the source and its number of batches an epoch; one of unknown length is counted once."""
    if isinstance(source, tuple):
        return source, -(-len(source[0]) // BATCH_SIZE)
    count = int(source.cardinality()) if is_dataset(source) else source.num_batches
    if count == -2:  # tf.data.UNKNOWN_CARDINALITY: a filter, a generator
        import tensorflow as tf

        count = sum(1 for _ in source)
        # Told to Keras too: where it must find the end by itself, the optimizer counts the step that finds none.
        source = source.apply(tf.data.experimental.assert_cardinality(count)) if count else source
    if count is None or count < 1:
        raise ValueError(
            f"`{argument}` must have a known, finite number of batches, at least 1, since the schedule needs it: "
            "leave `repeat()` out, "
            f"or end it with `take(n)`. Received: {'endless' if count in (None, -1) else count} batches"
        )
    return source, count
