"""Types that many signatures share."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

PathLike: TypeAlias = str | os.PathLike
Array: TypeAlias = np.ndarray
Dataset: TypeAlias = Any  # a `tf.data.Dataset` or `keras.utils.PyDataset` of batches, or a tuple of arrays
Tensor: TypeAlias = Any  # of TensorFlow or any backend of Keras
Patterns: TypeAlias = Mapping[str, str] | None  # group -> regex of layers' names, for models that are not of kresnets
Logs: TypeAlias = Mapping[str, Any] | None  # of a Keras callback
Names: TypeAlias = Sequence[str]
