"""The features of a data set: computed once by the lower half of a model, kept, and given to the upper half."""

from typing import Any

import keras
import numpy as np

from kresnets._util.store import Store, as_text, digest, dtype_of
from kresnets._util.types import PathLike, Patterns
from kresnets.groups import layout
from kresnets.transfer.cache import cut as cutting
from kresnets.transfer.cache.cut import computation
from kresnets.transfer.cache.source import source_of
from kresnets.transfer.inputs import check_source


class FeatureCache:
    """Cut a model above its frozen layers, compute what they give once, and train the rest on that.

    Both halves share the very variables of the model: what `tail` learns, the model has learned. Layers that learn,
    that move statistics, or that draw at random in training (dropout, augmentation) stay in `tail`; so does whatever
    stands above them.

    Args:
        model: a Functional or Sequential Keras model of one input, built, with its flags set (`kresnets.freeze`, or
            `trainable`).
        through: last group or block below the cut, such as `"stage3"`; all up to it must be frozen. None cuts as high
            as can be, so that a trunk that is frozen as a whole gives pooled features. Defaults to None.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.
        folder: where features that are too large for memory go, as memory-mapped files, and where they are found again
            by a later call with the same frozen weights and data. Defaults to None.
        memory: bytes of features that may stay in memory; 0 for files always; None for a quarter of what is free.
            Defaults to None.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, in which features are kept; None for that in which the layers
            compute. Defaults to None.
        progress: bool, show a bar on stderr. Defaults to True.

    Attributes:
        head: the model from images to features.
        tail: the model from features to what the whole model gives; compile and fit it.
        name: name of the last layer below the cut.

    Raises:
        ValueError: where the model does not cut cleanly, `through` is not frozen, or an argument is out of its range.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.freeze(kresnets.CifarResNet20(classes=2), through="stage3")
        >>> cache = kresnets.FeatureCache(model, progress=False)
        >>> features, labels = cache.compute((np.zeros((8, 32, 32, 3)), np.arange(8) % 2))
        >>> features.shape
        (8, 64)
        >>> cache.tail.compile("adam", "sparse_categorical_crossentropy")
        >>> history = cache.tail.fit(features, labels, epochs=2, verbose=0)
    """

    def __init__(
        self,
        model: keras.Model,
        through: str | None = None,
        *,
        groups: Patterns = None,
        folder: PathLike | None = None,
        memory: int | None = None,
        dtype: str | None = None,
        progress: bool = True,
    ) -> None:
        if not isinstance(model, keras.Model) or not isinstance(getattr(model, "inputs", None), list):
            raise ValueError(
                "FeatureCache takes a Functional or Sequential Keras model that has been built. Received: "
                f"{type(model).__name__}"
            )
        if dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"`dtype` must be 'float32', 'bfloat16', 'float16' or None. Received: dtype={dtype!r}")
        if len(model.inputs) != 1:
            raise ValueError(f"FeatureCache takes a model of one input. {model.name!r} has {len(model.inputs)}.")
        self._graph = cutting.open_graph(model)
        below = None if through is None else _layers_through(layout(model, groups), through)
        self._cut = cutting.find_cut(self._graph, lambda layer: below is None or id(layer) in below)
        self.name = cutting.layer_name(self._cut)
        self.head, self.tail = cutting.models_around(self._graph, self._cut)
        self._store, self._dtype, self._progress = Store(folder, memory), dtype, progress

    def compute(self, data: Any) -> Any:
        """Compute the features of data, or find them in the folder.

        Args:
            data: images `(n, height, width, channels)` as the model takes them (preprocessed); or a tuple of arrays
                `(images, labels)` or `(images, labels, weights)`; or batches of such tuples as a `tf.data.Dataset` or
                `keras.utils.PyDataset`.

        Returns:
            Features `(n, ...)`, or a tuple `(features, labels)` or `(features, labels, weights)`, in the order of the
            data (that of one pass, where a pipeline shuffles): arrays, which `tail.fit` takes.

        Raises:
            ValueError: for anything else, or for batches that are others each time they are drawn.
            OSError: where the features fit neither into memory nor on the disk.

        Example:
            >>> import kresnets, numpy as np
            >>> model = kresnets.freeze(kresnets.CifarResNet20(), through="stage2")
            >>> cache = kresnets.FeatureCache(model, through="stage2", progress=False)
            >>> cache.compute(np.zeros((4, 32, 32, 3))).shape
            (4, 16, 16, 32)
        """
        alone = not isinstance(data, (tuple, list)) and hasattr(data, "shape")
        data = (np.asarray(data),) if alone else check_source(data, "data")
        source = source_of(data, _AsTheyAre())
        [features], rest = extract(
            self.head, [self._cut], source, self._store, dtype=self._dtype, progress=self._progress
        )
        return features if alone else (features, *rest)


class _AsTheyAre:
    """Stand where a `Preparation` stands, and change nothing."""

    def __call__(self, batch, draw=None):
        return batch

    def dataset(self, dataset, epoch=None):
        return dataset


def _layers_through(model_layout, name):
    """Return the ids of the layers up to a group or block, which must be frozen."""
    end = model_layout.last(name)
    below = [layer for place, layer in model_layout.places if place <= end]
    learning = [layer.name for layer in below if layer.trainable and layer.weights]
    if learning:
        raise ValueError(
            f"{learning[0]!r} is below the end of {name!r} and learns: call kresnets.freeze(model, through={name!r}) "
            "first."
        )
    return {id(layer) for layer in below}


def extract(head, cuts, source, store, views=1, dtype=None, label=(), progress=True):
    """Return the features of a source at some cuts, and what follows the images in its batches.

    Args:
        head: model from images to a list of tensors.
        cuts: these tensors.
        source: a `FeatureSource`.
        store: a `Store`.
        views: number of passes, each with other augmentation. Defaults to 1.
        dtype: in which features are kept; None for theirs. Defaults to None.
        label: what else decides what an image looks like to the model, for the key. Defaults to ().
        progress: whether to show a bar. Defaults to True.

    Returns:
        List of arrays, one a cut, row `view * source.count + row`; tuple of arrays (labels, weights) by row.
    """
    images, *_ = next(iter(source.batches(0)))
    shapes = [(views * source.count, *_shape(head, cut, images)) for cut in cuts]
    dtypes = [dtype or keras.backend.standardize_dtype(cut.dtype) for cut in cuts]
    sizes = [views * source.count * bytes_of(head, cut, images, dtype) for cut in cuts]
    keys = [None] * len(cuts)
    if store.may_have(max(sizes)):
        keys = [_key(head, cut, source, views, kind, label) for cut, kind in zip(cuts, dtypes)]
    found = [store.find(key, shape, kind) for key, shape, kind in zip(keys, shapes, dtypes)]
    if all(array is not None for array in found):
        return found, source.rest(lambda: _joined([rest for _, *rest in source.batches(0)]))
    cutting.check_same_in_training(head, images[:2])
    made = [store.create(key, shape, kind) for key, shape, kind in zip(keys, shapes, dtypes)]
    title = f"features, {as_text(sum(sizes))}"
    rest = _fill(head, [array for array, _ in made], source, views, title, progress)
    return [keep() for _, keep in made], rest


def bytes_of(model, cut, images, dtype=None):
    """Return how many bytes the features of one image take."""
    return int(np.prod(_shape(model, cut, images), dtype="int64")) * dtype_of(dtype or cut.dtype).itemsize


def _shape(model, cut, images):
    """Return the shape of the features of one image."""
    known = tuple(cut.shape[1:])
    return known if None not in known else tuple(keras.Model(model.inputs, cut).compute_output_shape(images.shape)[1:])


def _key(head, cut, source, views, dtype, label):
    """Return the name under which features are kept, or None where a later run could not know them again."""
    parts = computation(head, cut), source.identity()
    return None if None in parts else digest(parts, cutting.layer_name(cut), source.count, views, dtype, label)


def _fill(head, targets, source, views, title, progress):
    from tqdm import tqdm

    total, row, rest, size = views * source.count, 0, [], None
    disable = None if progress else True  # None: where stderr is no terminal
    with tqdm(desc=title, total=total, disable=disable, unit=" images", delay=1) as bar:
        for view in range(views):
            for images, *others in source.batches(view):
                size = size or len(images)
                if row + len(images) > total:
                    raise cutting.CannotCache("The data gave more images than before.")
                for target, output in zip(targets, _predict(head, images, size), strict=True):
                    if target.shape[1:] != output.shape[1:]:
                        raise cutting.CannotCache("The images are of several sizes.")
                    target[row : row + len(images)] = output
                row += len(images)
                if not view:
                    rest.append(others)
                bar.update(len(images))
    if row != total:
        raise cutting.CannotCache("The data gave fewer images than before.")
    return _joined(rest)


def _predict(head, images, size):
    """Run one batch; a smaller one is filled up, so that nothing is compiled anew for it."""
    count = len(images)
    if count < size:
        images = np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)])
    return [output[:count] for output in keras.tree.flatten(head.predict_on_batch(images))]


def _joined(batches):
    return tuple(np.concatenate(parts) for parts in zip(*batches))
