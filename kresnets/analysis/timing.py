"""How long a step of a Keras model takes, on TensorFlow."""

import itertools
import statistics
import time

import keras
import numpy as np
import tensorflow as tf


class Training:
    """Time training steps of a Keras model, by the clock between batches: tracing and set-up are outside, and a moment
    in which the machine did something else spoils one step."""

    def __init__(self, model, size, batch_size, steps, callbacks=()):
        self._model, self._callbacks = model, list(callbacks)
        model.compile(
            keras.optimizers.SGD(0.001, momentum=0.9), loss="sparse_categorical_crossentropy", jit_compile=False
        )
        images = tf.random.stateless_normal((batch_size, size, size, 3), (0, 0))
        batches = tf.data.Dataset.from_tensors((images, tf.zeros(batch_size, tf.int32)))
        self._batches = batches.cache().repeat(steps + 1)

    def __call__(self):
        clock = _Clock("on_train_batch_begin", "on_epoch_end")
        self._model.fit(self._batches, shuffle=False, verbose=0, callbacks=[clock.callback, *self._callbacks])
        return clock.median()


class Prediction:
    """Time `model.predict`, batch by batch."""

    def __init__(self, model, size, batch_size, steps):
        self._model, self._batch_size = model, batch_size
        shape = (batch_size * (steps + 1), size, size, 3)
        self._images = np.random.default_rng(0).normal(size=shape).astype("float32")

    def __call__(self):
        clock = _Clock("on_predict_batch_begin", "on_predict_end")
        self._model.predict(self._images, self._batch_size, verbose=0, callbacks=[clock.callback])
        return clock.median()


class _Clock:
    """Note when each batch begins, and the end."""

    def __init__(self, *events):
        self._times = []
        self.callback = keras.callbacks.LambdaCallback()
        for event in events:
            setattr(self.callback, event, lambda *_, **__: self._times.append(time.perf_counter()))

    def median(self):
        """Return the median of the batches but the first, which traces and waits for the pipeline."""
        return statistics.median(b - a for a, b in itertools.pairwise(self._times[1:]))
