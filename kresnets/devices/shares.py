"""Each device's share of each batch, such that a step computes what it computes on one device.

Devices take equal shares, and the last batch of an epoch seldom divides. So rows are added to it, and taken off again
where the step begins. On JAX the batch is one array there, and XLA divides the work as it likes: loss, gradients, batch
norms and metrics see the very rows that they see on one device. On TensorFlow each device is left with rows of its own,
the last one with fewer; the mean of their gradients would count these for more, and is therefore weighted.
"""

import contextlib
import dataclasses
import threading

import keras
import numpy as np

from kresnets.keras_hooks.model import loss_scaled, steps_through


@dataclasses.dataclass(frozen=True)
class Division:
    """Say among whom each batch is divided: so many devices in all, which so many processes have, of which this is one.

    Example:
        >>> import numpy as np
        >>> from kresnets.devices import Division
        >>> second = Division(devices=4, processes=2, process=1)
        >>> images, labels, counter = second((np.zeros((5, 8, 8, 3)), np.arange(5)))
        >>> labels.tolist(), counter.shape  # 3 rows were added to make it 8
        ([4, 4, 4, 4], (4, 4))
    """

    devices: int = 1
    processes: int = 1
    process: int = 0

    @classmethod
    def of(cls, model):
        """Return that of a model: its `tf.distribute` strategy, or the `keras.distribution` that is set."""
        strategy, distribution = getattr(model, "distribute_strategy", None), keras.distribution.distribution()
        if getattr(strategy, "num_replicas_in_sync", 1) > 1:
            return cls(strategy.num_replicas_in_sync)
        if distribution is None:
            return cls()
        devices = distribution.num_model_replicas
        return cls(devices, min(devices, distribution.num_processes), distribution.data_shard_id)

    def __call__(self, batch):
        """Return this process's share of a batch, as long as its devices can divide, and after it an array that has one
        column and one more for each row that was added to the whole batch."""
        ops = _ARRAYS if isinstance(batch[0], np.ndarray) else _TENSORS
        rows = ops.shape(batch[0])[0]
        added = -rows % self.devices
        size = (rows + added) // self.processes
        # The rows added at the end are copies of the last one, which is as good as any.
        mine = ops.minimum(ops.arange(self.process * size, (self.process + 1) * size), rows - 1)
        return (*(ops.take(part, mine, axis=0) for part in batch), ops.zeros((size, 1 + added), "float32"))


@contextlib.contextmanager
def in_shares(model, division, train, validation, class_weight):
    """Yield `(train, validation, class_weight)` as `model.fit` must get them within this context: as they are, but
    where the model trains on several devices.

    Args:
        model: the compiled Keras model that will be fitted.
        division: its `Division`.
        train: batches of tuples of arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`; of several processes,
            what the division gave each.
        validation: the same, or None.
        class_weight: dict class -> weight, or None.
    """
    if division.devices == 1:
        yield train, validation, class_weight
        return
    strategy = getattr(model, "distribute_strategy", None)
    # Keras weighs classes before the batch is divided, by weights that here are ours.
    shares = [
        None if batches is None else _Shares(batches, division, weights)
        for batches, weights in ((train, class_weight), (validation, None))
    ]
    on_several = _on_jax() if strategy is None else _on_tensorflow(model, strategy)
    weighted = [share is not None and share.weighted for share in shares]
    with on_several as whole, steps_through(model, whole, weighted):
        yield (*(share and share.batches() for share in shares), None)


@contextlib.contextmanager
def _on_jax():
    def whole(step, weighted):
        # How many rows were added is told by the weights' shape, so that it is known when the step is traced.
        def whole_step(state, data):
            rows = data[-1].shape[0] - (data[-1].shape[1] - 1)
            return step(state, _first_rows(data, rows, weighted))

        return whole_step

    distribution = keras.distribution.distribution()
    divides, distribution.auto_shard_dataset = distribution.auto_shard_dataset, False  # else Keras divides once more
    try:
        yield whole
    finally:
        distribution.auto_shard_dataset = divides


@contextlib.contextmanager
def _on_tensorflow(model, strategy):
    import tensorflow as tf

    devices, optimizer, mine = strategy.num_replicas_in_sync, model.optimizer, threading.local()  # a thread a device

    def whole(step, weighted):
        def whole_step(data):
            size, columns = tf.unstack(tf.shape(data[-1]))
            rows_of_all = devices * size - (columns - 1)
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.clip_by_value(rows_of_all - index * size, 0, size)
            mine.weight = devices * rows / rows_of_all
            # TensorFlow has no convolution of no images: a device without any computes one, which counts for nothing.
            counted = [tf.identity(variable.value) for variable in model.metrics_variables]
            logs = step(_first_rows(data, tf.maximum(rows, 1), weighted))
            for variable, before in zip(model.metrics_variables, counted, strict=True):
                variable.assign(tf.where(rows > 0, variable.value, before))
            return logs

        return whole_step

    sums = getattr(model.loss, "reduction", None) == "sum"  # which counts each image alike already
    with contextlib.nullcontext() if sums else loss_scaled(optimizer, lambda: mine.weight):
        yield whole


def _first_rows(data, rows, weighted):
    batch = [part[:rows] for part in data[:-1]]
    return (*batch, data[-1][:rows, 0]) if weighted else tuple(batch)


class _Shares:
    """Turn batches into what the model's step expects: a share of each, and its weights in the first column of what the
    `Division` put after it.

    Args:
        source, division: as `in_shares` takes them.
        class_weight: dict class -> weight, or None.
    """

    def __init__(self, source, division, class_weight):
        self._source, self._division, self._class_weight = source, division, class_weight
        self._divided, self._indexed = division.processes > 1, isinstance(source, keras.utils.PyDataset)
        weighted = len(source[0] if self._indexed else source.element_spec) - self._divided == 3
        if class_weight is not None and weighted:
            raise ValueError("Give either `class_weight` or weights in the batches, not both.")
        self.weighted = class_weight is not None or weighted

    def batches(self):
        """Return what `fit` takes."""
        if self._indexed:
            return _SharedBatches(self._source, self._share)
        return self._source.map(lambda *batch: self._share(batch), -1).prefetch(-1)

    def _share(self, batch):
        images, labels, *weights, counter = batch if self._divided else self._division(batch)
        ops = _ARRAYS if isinstance(images, np.ndarray) else _TENSORS
        if weights:
            column = weights[0]
        elif self._class_weight is not None:
            column = ops.take(self._weight_of_class(), self._classes(labels, ops), axis=0)
        else:
            column = counter[:, 0] + 1
        return images, labels, ops.concatenate([ops.reshape(column, (-1, 1)), counter[:, 1:]], axis=1)

    def _weight_of_class(self):
        last = max(self._class_weight)
        return np.array([self._class_weight.get(label, 1.0) for label in range(last + 1)], np.float32)

    def _classes(self, labels, ops):
        if len(labels.shape) > 1 and labels.shape[-1] != 1:
            return ops.argmax(labels, axis=-1)  # one-hot, perhaps blended: as Keras weighs them
        labels = ops.reshape(labels, (-1,))
        # Of one sigmoid unit they are floats, blended ones perhaps.
        return labels if "int" in str(labels.dtype) else ops.cast(ops.round(labels), "int32")


class _Arrays:
    """The few functions that `_Shares` uses, of arrays."""

    def __getattr__(self, name):
        return (lambda array, dtype: array.astype(dtype)) if name == "cast" else getattr(np, name)


class _Tensors:
    """The same for a graph of tf.data."""

    def __getattr__(self, name):
        import tensorflow as tf

        others = {"arange": tf.range, "take": tf.gather, "concatenate": tf.concat}
        return others.get(name) or getattr(tf, name)


_ARRAYS, _TENSORS = _Arrays(), _Tensors()


class _SharedBatches(keras.utils.PyDataset):
    """Serve the shares of another PyDataset's batches."""

    def __init__(self, source, share):
        super().__init__(
            **{name: getattr(source, name) for name in ("workers", "use_multiprocessing", "max_queue_size")}
        )
        self._source, self._share = source, share

    def __len__(self):
        return self._source.num_batches

    def __getitem__(self, index):
        return self._share(self._source[index])

    def on_epoch_begin(self):
        self._source.on_epoch_begin()

    def on_epoch_end(self):
        self._source.on_epoch_end()
