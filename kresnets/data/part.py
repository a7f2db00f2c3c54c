"""A part of the images, encoded, with their labels, and the batches that are drawn from it."""

import dataclasses
import functools
import hashlib
import io
import multiprocessing.pool
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kresnets._util.types import Array, Tensor
from kresnets.data import content
from kresnets.data.check import WORKERS
from kresnets.data.decoded import check_cache, kept
from kresnets.data.images import resize_and_crop
from kresnets.data.transcode import decoded
from kresnets.decoding import Decoding


def epoch_variable() -> Tensor:
    """Return the variable that tells `Part.batches` and `augment_batches` which epoch they draw for.

    Set it when an epoch begins (`variable.assign(epoch)` in a callback's `on_epoch_begin`). It lives on the CPU, where
    tf.data reads it, and must be made outside of a `tf.distribute` scope.

    Example:
        >>> from kresnets.data import epoch_variable
        >>> int(epoch_variable().assign(3))
        3
    """
    with tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False, name="data_epoch")


class Part:
    """Hold the images of one part (training, validation or test), still encoded, with their labels.

    Args:
        ids: sequence of str, stable names of the images (paths relative to the source, for files).
        labels: sequence of int, class indices; or of rows of numbers, see `task`.
        contents: sequence of str (paths of files), of bytes (encoded images in memory), or of
            `kresnets.data.content.Piece` (pieces of files).
        class_names: sequence of str.
        progress: bool, show a bar on stderr while images are decoded into memory. Defaults to True.
        decoding: a `kresnets.Decoding`, how files become pixels. Defaults to `Decoding()`.
        groups: sequence of str or None, the group that each image belongs to (a patient, a place). Defaults to None.
        task: `"classes"`; `"labels"`, of rows with a 1 for each label that an image has; or `"numbers"`, of rows with a
            number for each of `class_names`. Defaults to `"classes"`.
        weights: sequence of float or None, how much each image counts in training: the third part of its batches.
            Defaults to None.
    """

    def __init__(
        self,
        ids: Sequence[str],
        labels: Array,
        contents: Sequence[Any],
        class_names: Sequence[str],
        progress: bool = True,
        decoding: Decoding = Decoding(),
        groups: Sequence[str | None] | None = None,
        task: str = "classes",
        weights: Array | None = None,
    ) -> None:
        self.decoding, self.task = decoding, task
        self.weights = None if weights is None else np.asarray(weights, np.float32)
        self.groups = None if groups is None else tuple(groups)
        self.ids = tuple(ids)
        self.class_names = tuple(class_names)
        self.labels: Any
        if task == "classes":
            self.labels = np.asarray(labels, dtype=np.int32).reshape(-1)
        else:
            self.labels = np.asarray(labels, dtype=np.float32).reshape(-1, len(self.class_names))
        self._progress = progress
        self._kind: type = type(contents[0]) if contents else bytes
        with tf.device("CPU:0"):
            self._contents = tf.constant(list(map(content.packed, contents)), dtype=tf.string)
            given = (self.labels,) if self.weights is None else (self.labels, self.weights)
            self._targets = tuple(map(tf.constant, given))
        self._kept: Any = (None, None)  # (size, crop), and the images decoded so
        self._whole: Part | None = None  # with which they are kept, and the rows there; see `subset`
        self._places: Array | None = None

    def __len__(self):
        return len(self.ids)

    def __repr__(self):
        return f"Part({len(self)} images, {self.counts()})"

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class as a dict, class name -> count; of several labels those that have
        it, of numbers those that there are."""
        if self.task != "classes":
            counts = self.labels.sum(0) if self.task == "labels" else np.full(len(self.class_names), len(self))
            return dict(zip(self.class_names, counts.astype(int).tolist()))
        return dict(zip(self.class_names, np.bincount(self.labels, minlength=len(self.class_names)).tolist()))

    def subset(self, rows: Sequence[Any], shared: bool = False) -> "Part":
        """Return a part of this part.

        Args:
            rows: sequence of int, which images, in this order.
            shared: whether what is kept of images (their pixels, the features of frozen layers in a shared store) is
                that of this whole part, computed once for all its subsets: for folds, which take nearly all of it each.
                Defaults to False.

        Example:
            >>> from kresnets.data import Part
            >>> Part(["a", "b"], [0, 1], [b"GIF", b"PNG"], ["cat", "dog"]).subset([1]).ids
            ('b',)
        """
        contents = self._contents.numpy()
        chosen = [content.unpacked(self._kind, contents[row]) for row in rows]
        ids, labels = [self.ids[row] for row in rows], self.labels[list(rows)]
        groups = None if self.groups is None else [self.groups[row] for row in rows]
        weights = None if self.weights is None else self.weights[list(rows)]
        made = Part(ids, labels, chosen, self.class_names, self._progress, self.decoding, groups, self.task, weights)
        if shared:
            whole, places = self.within
            own = np.asarray(rows, np.int64)
            made._whole, made._places = whole, own if places is None else places[own]
        return made

    @property
    def within(self) -> tuple["Part", Array | None]:
        """The part with which this one shares what is kept of its images, and its rows there, see `subset`; itself and
        None where it shares nothing."""
        return self if self._whole is None else self._whole, self._places

    def joined(self, other: "Part") -> "Part":
        """Return a part of the images of both.

        Args:
            other: a `Part` of the same classes.

        Raises:
            ValueError: where the classes or the decoding differ, or one holds files and the other bytes.

        Example:
            >>> from kresnets.data import Part
            >>> Part(["a"], [0], [b"GIF"], ["cat", "dog"]).joined(Part(["b"], [1], [b"PNG"], ["cat", "dog"])).counts()
            {'cat': 1, 'dog': 1}
        """
        own, others = ((part.class_names, part._kind, part.decoding, part.task) for part in (self, other))
        if own != others:
            raise ValueError(f"Parts of the same classes, kind and decoding can be joined. Received: {own}, {others}.")
        contents = [content.unpacked(self._kind, one) for p in (self, other) for one in p._contents.numpy()]
        labels = np.concatenate([self.labels, other.labels])
        both = None if self.groups is None or other.groups is None else (*self.groups, *other.groups)
        ids, weights = (*self.ids, *other.ids), None
        if self.weights is not None or other.weights is not None:  # an image without a weight counts as one
            weights = np.concatenate([np.ones(len(p)) if p.weights is None else p.weights for p in (self, other)])
        return Part(ids, labels, contents, self.class_names, self._progress, self.decoding, both, self.task, weights)

    def batches(
        self,
        batch_size: int,
        size: Any,
        crop: float = 1.0,
        shuffle_seed: int | None = None,
        epoch: Any = None,
        cache: Any = "auto",
        balanced: bool = False,
    ) -> Any:
        """Return the part's batches as a tf.data pipeline of known cardinality.

        The last batch may be smaller. Give `shuffle=False` to `model.fit`, which otherwise warns that it cannot shuffle
        a pipeline itself.

        Args:
            batch_size: int, images per batch.
            size: int, side of the images in pixels.
            crop: float, share of the resized short side that the centre crop keeps. Defaults to 1.0.
            shuffle_seed: int, or None for the order of `ids`. Defaults to None.
            epoch: an int64 `tf.Variable` (`epoch_variable()`) or None. With it the order is a function of
                `(shuffle_seed, epoch)` alone, read when an epoch's iterator is made, so that a resumed run draws the
                same batches as one that was never interrupted; without it every iteration shuffles anew. Defaults to
                None.
            cache: whether images are decoded and resized once, now, with a progress bar, and kept; the batches are the
                same, bit by bit. `"auto"`: in memory, where the float32 pixels take at most a quarter of what is free.
                A folder (made if needed): images with at least 4 times the pixels of the result go to a file there, of
                12 `size`² bytes each, which later runs find again by the files' names, sizes and times, size and crop;
                others as with `"auto"`. Delete the folder when it is no longer of use. False: every epoch decodes them,
                as it does what fits nowhere. What this part already keeps at this size and crop is used in any case but
                False. Defaults to `"auto"`.
            balanced: whether each class is drawn as often as the others, in as many draws as there are images: those of
                a rare class come several times an epoch, those of a frequent one in turns. Needs a `shuffle_seed`.
                Defaults to False.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`: float32 `(batch, size, size, channels)`, 0..255, with the three
            of RGB unless the decoding says otherwise, and int32 `(batch,)`, or float32 `(batch, labels)` of several
            labels and of numbers; and, where images have weights, these as a third, float32 `(batch,)`.

        Raises:
            ValueError: for a batch size below 1, `epoch` without `shuffle_seed`, or another `cache`.
            OSError: where the folder cannot be written or has too little room, before anything is decoded.
            tf.errors.InvalidArgumentError: for an image that is damaged (`load_data` finds them first): now where
                images are kept, else when its batch is drawn.

        Example:
            >>> import tensorflow as tf
            >>> from kresnets.data import Part
            >>> png = tf.io.encode_png(tf.zeros((4, 4, 3), "uint8")).numpy()
            >>> part = Part(["a.png", "b.png", "c.png"], [0, 1, 1], [png] * 3, ["cat", "dog"])
            >>> [labels.shape[0] for _, labels in part.batches(2, size=8, shuffle_seed=0)]
            [2, 1]
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        if epoch is not None and shuffle_seed is None:
            raise ValueError("`epoch` chooses among the orders of a `shuffle_seed`: give one, or leave `epoch` out.")
        if balanced and (shuffle_seed is None or self.task != "classes"):
            raise ValueError("`balanced` draws images of classes at random: give a `shuffle_seed`, or leave it out.")
        check_cache(cache)
        order = self._balanced_order(shuffle_seed, epoch) if balanced else self._order(shuffle_seed, epoch)
        taken = self._keep(size, crop, cache)
        if taken is None:
            dataset = self._decode(order, size, crop).batch(batch_size)
        else:
            dataset = order.batch(batch_size).map(self._gather(taken, size), tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.prefetch(tf.data.AUTOTUNE).with_options(_without_tuning())
        dataset.kresnets_rows = Rows(self, batch_size, size, crop, order.batch(batch_size), cache, epoch)
        return dataset

    def identity(self, touched: bool = True) -> Any:
        """Return a short name of the images and labels, which other ones do not share; see `images_identity`."""
        images = self.images_identity(touched)
        said = self.labels.tobytes() + (b"" if self.weights is None else self.weights.tobytes())
        return hashlib.blake2b(said, key=images.encode(), digest_size=16).hexdigest()

    def images_identity(self, touched: bool = True) -> Any:
        """Return a short name of the images: of files by their names, sizes, times and inodes, of images in memory by
        their bytes.

        Args:
            touched: whether the time of the last change of any kind counts too. It alone tells of a file that was
                written in place with its time set back; but it is another one after chmod as well, which costs those
                who keep decoded images no more than decoding them again. Defaults to True.
        """
        found = hashlib.blake2b(repr(self.ids).encode(), digest_size=16)
        for packed in self._contents.numpy():
            if self._kind is bytes:
                found.update(hashlib.blake2b(packed).digest())
                continue
            stamp = content.stamp_of(content.unpacked(self._kind, packed))
            if stamp is None:
                raise FileNotFoundError(f"There is no image {os.fsdecode(packed)} any more.")
            # The inode too: an unpacked archive sets the time as it likes.
            found.update(b"%d %d %d\0" % (stamp.bytes, stamp.mtime_ns, stamp.inode))
            found.update(b"%d\0" % stamp.offset if stamp.offset else b"")
            found.update(b"%d\0" % stamp.ctime_ns if touched else b"")
        return found.hexdigest()

    def encoded(self, index: int) -> Any:
        """Return an image as it was given, for those who open files: its path as bytes, or a stream of its bytes."""
        return self._contents[index].numpy() if self._kind is str else io.BytesIO(self.image_bytes(index))

    def image_bytes(self, index: int) -> bytes:
        """Return the bytes of an image, as they are in its file."""
        return content.read(content.unpacked(self._kind, self._contents[index].numpy()))

    def pixels(self, size: int, indices: Any = None, crop: float = 1.0) -> Array:
        """Decode images into one array.

        Args:
            size: int, side in pixels.
            indices: sequence of int, which images, or None for all. Defaults to None.
            crop: float, share of the resized short side that the centre crop keeps. Defaults to 1.0.

        Returns:
            float32 array `(images, size, size, channels)`, 0..255; RGB unless the decoding says otherwise.
        """
        indices = np.arange(len(self)) if indices is None else np.asarray(indices, np.int64)
        for part, places in (self.within, (self, None)):
            if part._kept[0] == (size, crop):
                return np.array(part._kept[1][indices if places is None else places[indices]])
        array = np.empty((len(indices), size, size, self.decoding.channels), np.float32)
        self.decode_into(array, crop, indices)
        return array

    def arrays(self, size: int, crop: float = 1.0, batch_size: int = 64) -> Iterator[tuple[Array, Array]]:
        """Yield the images in the order of `ids` with their labels, in batches, as `pixels` gives them."""
        for start in range(0, len(self), batch_size):
            rows = np.arange(start, min(start + batch_size, len(self)))
            yield self.pixels(size, rows, crop), self.labels[rows]

    def decode_into(self, array: Array, crop: float = 1.0, indices: Any = None, label: str = "") -> None:
        """Fill an array `(images, size, size, channels)` with decoded images, in parallel, with a progress bar.

        Args:
            array: float32, all of which is written.
            crop: float, as in `batches`. Defaults to 1.0.
            indices: int array, which images, or None for all. Defaults to None.
            label: str, what the bar says behind "decoding images". Defaults to "".
        """
        from tqdm import tqdm

        indices = np.arange(len(self)) if indices is None else indices
        decode, read = _decoder(array.shape[1], crop, self.decoding), content.reader(self._kind)

        def fill(place):
            with tf.device("CPU:0"):
                array[place] = decode(read(self._contents[indices[place]]))

        hidden = None if self._progress else True
        # By threads that call one function: a tf.data pipeline with decoders in it takes half a second to begin.
        with multiprocessing.pool.ThreadPool(min(WORKERS, len(indices) or 1)) as pool:
            done = pool.imap_unordered(fill, range(len(indices)))
            bar = tqdm(done, f"decoding images{label}", len(indices), disable=hidden, unit=" images", delay=2)
            for _ in bar:
                pass

    def _keep(self, size, crop, cache):
        """Return a function from rows to decoded images, which are kept, the latest size and crop alone: with those of
        the whole part, or where these have no room by themselves; None where each epoch decodes them."""
        if cache is False:
            return None
        alone = [(self, None)]
        for part, places in alone if self._whole is None else [self.within, *alone]:
            if part._kept[0] != (size, crop):
                part._kept = (None, None)  # before the others take their room
                pixels = kept(part, size, crop, cache)
                if pixels is None:
                    continue
                part._kept = ((size, crop), pixels)
            return functools.partial(_rows_of, part._kept[1], places)
        return None

    def _gather(self, taken, size):
        targets, shape = self._targets, (None, size, size, self.decoding.channels)

        def gather(indices):
            # By numpy: an array that tf.data captures is copied, as a whole, once more.
            images = tf.numpy_function(taken, [indices], tf.float32, stateful=False)
            return tf.ensure_shape(images, shape), *(tf.gather(one, indices) for one in targets)

        return gather

    def _order(self, seed, epoch):
        """Return a dataset of the part's indices, int64, in the order in which an epoch draws them."""
        count = len(self)
        if seed is None:
            return tf.data.Dataset.range(count)
        if epoch is None:
            return tf.data.Dataset.range(count).shuffle(max(count, 1), seed=seed, reshuffle_each_iteration=True)

        def shuffled(_):
            seeds = tf.stack([tf.constant(seed, tf.int64), epoch.read_value()])
            indices = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seeds, alg="philox")
            return tf.data.Dataset.from_tensor_slices(indices)

        return tf.data.Dataset.range(1).flat_map(shuffled).apply(tf.data.experimental.assert_cardinality(count))

    def _balanced_order(self, seed, epoch):
        """Return a dataset of indices of which each class has the same number, to one."""
        rows = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        each, over = divmod(len(self), len(rows))
        wanted = [each + (place < over) for place in range(len(rows))]
        turn = epoch if epoch is not None else epoch_variable()

        def shuffled(_):
            now = turn.read_value()
            if epoch is None:  # each iteration anew
                turn.assign_add(1)
            drawn = []
            for place, (own, count) in enumerate(zip(rows, wanted)):
                # Whole rounds of the class, each shuffled by itself: no image comes a third time before all came twice.
                seeds = tf.stack([tf.constant(seed + 1000 * place + 1, tf.int64), now])
                rounds = tf.random.stateless_uniform((-(-count // len(own)), len(own)), seeds, alg="philox")
                order = tf.reshape(tf.argsort(rounds, axis=1), (-1,))[:count]
                drawn.append(tf.gather(tf.constant(own, tf.int64), order))
            seeds = tf.stack([tf.constant(seed, tf.int64), now])
            return tf.data.Dataset.from_tensor_slices(
                tf.random.experimental.stateless_shuffle(tf.concat(drawn, 0), seeds, alg="philox")
            )

        one = tf.data.Dataset.range(1).flat_map(shuffled)
        return one.apply(tf.data.experimental.assert_cardinality(len(self)))

    def _decode(self, order, size, crop):
        contents, targets = self._contents, self._targets
        decode, read = _decoder(size, crop, self.decoding), content.reader(self._kind)

        def load(index):
            return decode(read(contents[index])), *(one[index] for one in targets)

        return order.map(load, tf.data.AUTOTUNE, deterministic=True)


def _rows_of(pixels, places, rows):
    return np.asarray(pixels[rows if places is None else places[rows]])


@functools.lru_cache(maxsize=16)
def _decoder(size, crop, decoding):
    """Return the function from a file's bytes to its pixels: a run makes a dozen pipelines, each of which would trace
    it anew, a third of a second each."""

    def decode(image_bytes):
        return resize_and_crop(decoded(image_bytes, decoding), size, crop, decoding.resize, decoding.padding)

    return tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def _without_tuning():
    """Return options that take tf.data's defaults, parallel on all cores, where it would tune itself while it runs.

    The thread that tunes sleeps twice as long each time, and whoever drops an iterator often waits until it wakes: at
    the end of an epoch, of an evaluation, of a prediction, up to as long again as that took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


@dataclasses.dataclass(frozen=True)
class Rows:
    """Say which images a pipeline of `Part.batches` draws, for those who keep something computed from them; it hangs on
    the pipeline as `kresnets_rows`.

    Args:
        part: the `Part`.
        batch_size: int.
        size: int, pixels a side.
        crop: float.
        order: `tf.data.Dataset` of batches of indices, drawn as the pipeline draws its images.
        cache: that of `Part.batches`.
        epoch: likewise.
    """

    part: Part
    batch_size: int
    size: int
    crop: float
    order: tf.data.Dataset
    cache: str | bool | os.PathLike = "auto"
    epoch: Any = None

    def natural(self) -> Any:
        """Return the pipeline in the order of the indices."""
        return self.part.batches(self.batch_size, self.size, self.crop, cache=self.cache)

    def identity(self) -> Any:
        """Return a short name of the images as the pipeline gives them."""
        return f"{self.part.identity()}-{self.size}-{self.crop}-{self.part.decoding}"


def class_weight(labels: Array, how: str = "balanced") -> dict[int, float] | None:
    """Return what `model.fit(class_weight=...)` takes to make rare classes count as much as frequent ones.

    Args:
        labels: int array, the training labels.
        how: `"balanced"` (a class of n_c among n images and k classes weighs n / (k n_c)) or None for no weights.
            Defaults to `"balanced"`.

    Returns:
        Dict class index -> float, or None for `how=None`.

    Raises:
        ValueError: for another `how`.

    Example:
        >>> from kresnets.data import class_weight
        >>> {label: round(weight, 2) for label, weight in class_weight([0, 0, 0, 1]).items()}
        {0: 0.67, 1: 2.0}
    """
    if how is None:
        return None
    if how != "balanced":
        raise ValueError(f"`how` must be 'balanced' or None. Received: how={how!r}")
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=np.asarray(labels))
    return dict(zip(classes.tolist(), weights.tolist()))
