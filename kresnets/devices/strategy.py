"""Which devices train: those of this machine, and those of others."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Devices:
    """Hold what `all_devices` found.

    Args:
        count: number of devices, those of other machines included.
        scope: function that returns the context in which a model must be built to train on them.
    """

    count: int
    scope: Callable[[], contextlib.AbstractContextManager]


@contextlib.contextmanager
def all_devices(batch_size=None):
    """Train what is built in the scope on all devices of this machine, after `connect` on those of all machines.

    `tf.distribute.MirroredStrategy` on TensorFlow, `keras.distribution.DataParallel` on JAX: each device has the whole
    model and takes its share of each batch, so that a batch is as large, and a step the same, as on one device. Build
    the model in `scope()`, after the devices are known; call `fine_tune`, or `fit`, anywhere in the block.

    Args:
        batch_size: number of images of the batches that will come, to be held against the number of devices, which
            must divide it on JAX. Defaults to None, not looked at.

    Yields:
        A `Devices`; its `count` is 1 where there is one device, and all goes as without this.

    Raises:
        ValueError: where the devices do not divide `batch_size` on JAX, or on a backend that is neither.

    Example:
        >>> import kresnets, numpy as np
        >>> from kresnets.devices import all_devices
        >>> images, labels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)), np.arange(8) % 2
        >>> with all_devices(batch_size=32) as devices:
        ...     with devices.scope():
        ...         model = kresnets.CifarResNet20(classes=2)
        ...     recipe = kresnets.Recipe.textbook(head_epochs=1, stages=(), augment="none")
        ...     history = kresnets.fine_tune(model, (images, labels), recipe=recipe, verbose=0)
        >>> history.epoch
        [0]
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        yield _mirrored()
    elif backend == "jax":
        count = keras.distribution.get_device_count()
        if count > 1 and batch_size is not None and batch_size % count:
            smaller = batch_size // count * count
            raise ValueError(
                f"A batch of {batch_size} does not divide among {count} devices: take "
                f"{f'{smaller} or ' if smaller else ''}{smaller + count} (--batch-size, for all devices together)."
            )
        with _data_parallel() if count > 1 else contextlib.nullcontext():
            yield Devices(count, contextlib.nullcontext)
    else:
        raise ValueError(f"Several devices train with the TensorFlow and JAX backends. Received: {backend}")


def _mirrored():
    import tensorflow as tf

    # Logical devices: a processor that was divided counts as several, and a GPU that was hidden not at all.
    names = [device.name for device in tf.config.list_logical_devices("GPU")]
    names = names or [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(names) == 1:
        return Devices(1, contextlib.nullcontext)
    return Devices(len(names), _strategy(tuple(names)).scope)


@functools.cache  # a second strategy of the same devices would number its sums as the first one did
def _strategy(names):
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


@contextlib.contextmanager
def _data_parallel():
    before = keras.distribution.distribution()
    # What each process draws is its share already (`in_shares`).
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def connect(coordinator: str, processes: int, process: int) -> None:
    """Join the processes that train one model on many machines, on JAX; call it before anything is computed.

    Returns when all have joined. Where one of them ends later, JAX ends the others: at once if it was the first, else
    at the next step or after its own timeout.

    Args:
        coordinator: `"host:port"` of the first process, as the others reach it.
        processes: number of processes.
        process: which of them this is, from 0.

    Raises:
        ValueError: on another backend than JAX.

    Example:
        >>> from kresnets.devices import connect
        >>> connect("10.0.0.1:1234", processes=2, process=0)  # doctest: +SKIP
    """
    if keras.config.backend() != "jax":
        raise ValueError(
            f"Many machines train with the JAX backend: set KERAS_BACKEND=jax. Received: {keras.config.backend()}"
        )
    os.environ.setdefault("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "gloo")  # for processors; GPUs bring their own
    keras.distribution.initialize(coordinator, processes, process)


def disconnect() -> None:
    """Part from the other processes once all have come here; what is computed afterwards is each one's own."""
    import jax

    jax.distributed.shutdown()
