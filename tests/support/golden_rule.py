"""The rule of golden/README.md, by numpy alone."""

import math
import zlib

import numpy as np


def golden_tensor(name, shape, gain=0.7):
    """What golden/README.md says of the tensor of that name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_mean"):
        value = rng.normal(0, 0.1, shape)
    elif name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = rng.uniform(0.5, 1.5, shape) * gain
    elif len(shape) == 1:
        value = rng.normal(0, 0.05, shape)
    else:
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return value.astype("float32")


def golden_images(size):
    """The two images of golden/README.md."""
    images = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        cell = math.ceil(size / 5)
        grid = rng.normal(0, 1, (5, 5, 3)).repeat(cell, axis=0).repeat(cell, axis=1)[:size, :size]
        images.append(grid + rng.normal(0, 0.1, (size, size, 3)))
    return np.asarray(images, "float32")
