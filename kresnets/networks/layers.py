"""The pieces that every trunk is made of: convolution, norms and ReLU, explicit padding, pooling.

Each function takes a tensor and a name and returns a tensor, under the data format of the moment.
"""

import json
import math

import keras
import numpy as np

from kresnets.preprocess import Preprocessing

_GROUPS = 32  # of a group norm, as in its paper and in timm
_STANDARDIZE = 1e-8  # added to a filter's variance, as in BiT
_FUSED_DTYPES = ("float32", "bfloat16")


class Carrier:
    """A layer that carries what its model's weights want, beside its own weights.

    Args:
        preprocessing: a `kresnets.Preprocessing` (or its dict) that the weights of the model want; it travels here
            because a layer's config survives saving, cloning and a new head. Set on the first one of a trunk only.
        origin: where the weights of the model came from, a tag or a file, beside it; None for a random start.
        task: what the model's scores mean, see `kresnets.task.set_task`, beside it.
        *args, **kwargs: those of the layer.
    """

    def __init__(self, *args, preprocessing=None, origin=None, task=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.origin, self.task = origin, task
        self.preprocessing = Preprocessing.of_data(preprocessing) if isinstance(preprocessing, dict) else preprocessing

    def get_config(self):
        config = super().get_config()
        if self.preprocessing is not None:
            config["preprocessing"] = self.preprocessing.as_data()
        if self.task is not None:
            config["task"] = list(self.task)
        # The origin goes with the weights, not with the config: a clone starts at random.
        return config

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # A `.weights.h5` file has no configs; without this note its weights would be fed as if they wanted the default.
        if self.preprocessing is not None and hasattr(store, "h5_file"):
            store.h5_file.attrs["preprocessing"] = json.dumps(self.preprocessing.as_data())
            store.h5_file.attrs["origin"] = self.origin or ""
            store.h5_file.attrs["task"] = json.dumps(self.task and list(self.task))

    def load_own_variables(self, store):
        super().load_own_variables(store)
        # The weights changed, so does what they want.
        if self.preprocessing is not None and hasattr(store, "h5_file"):
            note = store.h5_file.attrs.get("preprocessing")
            if isinstance(note, str):
                self.preprocessing = Preprocessing.of_data(json.loads(note))
            # A file of before there was a note may hold anything: `origin.is_pretrained` looks at the statistics then.
            origin = store.h5_file.attrs.get("origin")
            self.origin = (origin or None) if isinstance(origin, str) else self.origin
            task = store.h5_file.attrs.get("task")
            self.task = json.loads(task) if isinstance(task, str) else None


@keras.saving.register_keras_serializable(package="kresnets")
class BatchNormalization(Carrier, keras.layers.BatchNormalization):
    """Keras's batch normalization, computed by one fused kernel where TensorFlow has one.

    The same arguments, weights and numbers as `keras.layers.BatchNormalization` (arXiv 1502.03167). The kernel serves
    inputs `(batch, height, width, channels)` in float32 or bfloat16 on the TensorFlow backend; masked, renormalized,
    synchronized or channels-first inputs, other dtypes, ranks and backends run Keras's own code.

    Args:
        **kwargs: those of `keras.layers.BatchNormalization`, and what the first norm of a trunk carries.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.layers.BatchNormalization()(np.ones((2, 4, 4, 3), "float32")).shape
        TensorShape([2, 4, 4, 3])
    """

    def call(self, inputs, training=None, mask=None):
        if mask is None and self._has_kernel(inputs):
            return self._fused(inputs, bool(training) and self.trainable)
        return super().call(inputs, training=training, mask=mask)

    def _has_kernel(self, inputs):
        return (
            keras.config.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
            and keras.backend.standardize_dtype(self.moving_mean.dtype) == "float32"
            and not self.synchronized
            and not self.renorm
        )

    def _fused(self, inputs, training):
        import tensorflow as tf

        ones, zeros = tf.ones_like(self.moving_variance), tf.zeros_like(self.moving_mean)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else ones,
            offset=tf.convert_to_tensor(self.beta) if self.center else zeros,
            # In training the kernel computes the statistics itself and wants these only as placeholders.
            mean=zeros if training else tf.convert_to_tensor(self.moving_mean),
            variance=ones if training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel divides by n - 1, as torch does for its moving variance; Keras divides by n.
            n = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * ((n - 1.0) / n))
        return outputs

    def _move(self, variable, value):
        variable.assign(variable * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="kresnets")
class GroupNormalization(Carrier, keras.layers.GroupNormalization):
    """Keras's group normalization (arXiv 1803.08494), which carries what its model's weights want.

    Args:
        **kwargs: those of `keras.layers.GroupNormalization`, and what the first norm of a trunk carries.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.layers.GroupNormalization(groups=2)(np.ones((2, 4, 4, 4), "float32")).shape
        TensorShape([2, 4, 4, 4])
    """


@keras.saving.register_keras_serializable(package="kresnets")
class Conv2D(Carrier, keras.layers.Conv2D):
    """Keras's convolution, with filters that are standardized before they are used, or that carries what its model's
    weights want where no norm does.

    Args:
        *args, **kwargs: those of `keras.layers.Conv2D`.
        standardize: added to the variance of each filter, which is brought to mean 0 and variance 1 (arXiv 1903.10520);
            None takes them as they are. Defaults to None.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.layers.Conv2D(8, 3, standardize=1e-8)(np.ones((2, 4, 4, 4), "float32")).shape
        TensorShape([2, 2, 2, 8])
    """

    def __init__(self, *args, standardize=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.standardize = standardize

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, self.standardized(kernel))

    def standardized(self, kernel):
        """Return the kernel as it is used."""
        if self.standardize is None:
            return kernel
        whole = keras.ops.cast(kernel, "float32")  # squares of what bfloat16 leaves would tell little
        mean, variance = keras.ops.moments(whole, axes=[0, 1, 2], keepdims=True)
        return keras.ops.cast(
            (whole - mean) * keras.ops.rsqrt(variance + self.standardize), keras.backend.standardize_dtype(kernel.dtype)
        )

    def get_config(self):
        return super().get_config() | {"standardize": self.standardize}


@keras.saving.register_keras_serializable(package="kresnets")
class BlurPooling2D(keras.layers.Layer):
    """Blur by 1 2 1 each way, then take every other pixel (arXiv 1904.11486 section 3); the border is mirrored.

    Args:
        data_format: `"channels_last"` or `"channels_first"`; None for Keras's of the moment. Defaults to None.
        **kwargs: those of `keras.layers.Layer`.

    Example:
        >>> import kresnets, numpy as np
        >>> kresnets.layers.BlurPooling2D()(np.ones((1, 4, 4, 1), "float32")).shape
        TensorShape([1, 2, 2, 1])
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.data_format = data_format or keras.config.image_data_format()

    def get_config(self):
        return super().get_config() | {"data_format": self.data_format}

    def call(self, inputs):
        first = self.data_format == "channels_first"
        border = [[1, 1], [1, 1]]
        x = keras.ops.pad(inputs, [[0, 0], [0, 0], *border] if first else [[0, 0], *border, [0, 0]], mode="reflect")
        line = np.array([0.25, 0.5, 0.25], "float32")
        channels = inputs.shape[1 if first else -1]
        kernel = np.broadcast_to(np.outer(line, line)[:, :, None, None], (3, 3, channels, 1))
        kernel = keras.ops.cast(kernel, inputs.dtype)
        return keras.ops.depthwise_conv(x, kernel, strides=2, padding="valid", data_format=self.data_format)

    def compute_output_shape(self, input_shape):
        sides = slice(2, 4) if self.data_format == "channels_first" else slice(1, 3)
        shape = list(input_shape)
        shape[sides] = [side and (side + 1) // 2 for side in shape[sides]]
        return tuple(shape)


def channel_axis():
    """Axis of the channels under the data format of the moment."""
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def conv(
    x, filters, kernel, name, strides=1, use_bias=False, groups=1, padding="symmetric", dilation=1, standardize=False,
    carries=False,
):  # fmt: skip
    """Convolve; `padding` is Keras's, or `"symmetric"`: `"same"` is so only without a stride, so a strided kernel is
    padded by hand, as the papers do. One that is standardized, or `carries`, is the `Conv2D` from here."""
    if padding == "symmetric":
        padding = "same" if strides == 1 else "valid"
        if strides > 1 and kernel > 1:
            x = keras.layers.ZeroPadding2D(kernel // 2, name=name.replace("conv", "pad"))(x)
    # The variance 2 / fan in of arXiv 1502.01852 section 2.2; uniform where the paper draws from a normal distribution,
    # which takes three times as long, more than all the rest of building a network.
    start = keras.initializers.VarianceScaling(2.0, "fan_in", "uniform")
    kind, more = keras.layers.Conv2D, {}
    if standardize or carries:
        kind, more = Conv2D, {"standardize": _STANDARDIZE if standardize else None}
    return kind(
        filters, kernel, strides, padding, dilation_rate=dilation, groups=groups, use_bias=use_bias,
        kernel_initializer=start, name=name, **more,
    )(x)  # fmt: skip


def norm(x, spec, name, zero=False):
    """Batch-normalize with the row's constants; `zero` starts gamma at 0."""
    return BatchNormalization(
        axis=channel_axis(),
        epsilon=spec.epsilon,
        momentum=spec.momentum,
        gamma_initializer="zeros" if zero else "ones",
        name=name,
    )(x)


def group_norm(x, spec, name, zero=False):
    """Normalize groups of channels with the row's constant; `zero` starts gamma at 0."""
    start, groups = "zeros" if zero else "ones", math.gcd(_GROUPS, x.shape[channel_axis()])
    return GroupNormalization(groups, axis=channel_axis(), epsilon=spec.epsilon, gamma_initializer=start, name=name)(x)


def relu(x, name):
    """Rectify."""
    return keras.layers.Activation("relu", name=name)(x)


def pad_channels(x, extra, name):
    """Append `extra` channels of zeros."""
    # ZeroPadding2D pads the two axes that its data format calls height and width. Told the other format, its second
    # (or first) axis is the channels: so Keras's own layer, which every Keras can load, does what no Keras layer
    # offers by name.
    if keras.config.image_data_format() == "channels_last":
        return keras.layers.ZeroPadding2D(((0, 0), (0, extra)), data_format="channels_first", name=name)(x)
    return keras.layers.ZeroPadding2D(((0, extra), (0, 0)), data_format="channels_last", name=name)(x)


def drop_branch(x, spec, nth, of, name):
    """Leave out the `nth` of `of` residual branches at the row's rate for it, an image at a time, in training only."""
    if not spec.stochastic_depth:
        return x
    # Linear from rate / of to rate, as the paper; timm begins at 0.
    rate = spec.stochastic_depth * nth / of
    return keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)(x)
