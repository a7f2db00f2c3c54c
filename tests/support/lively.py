"""Weights under which every layer shows in the output, and images to show it by."""

import h5py
import keras
import numpy as np
from golden_rule import golden_images as golden_images
from golden_rule import golden_tensor as golden_tensor


def make_lively(model, seed=0):
    """Give a model weights under which every layer shows in the output: no statistic at 0 or 1, no bias at 0."""
    rng = np.random.default_rng(seed)
    draw = {
        "kernel": lambda shape: rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape),
        "bias": lambda shape: rng.normal(0, 0.1, shape),
        "gamma": lambda shape: rng.uniform(0.35, 1.05, shape),
        "beta": lambda shape: rng.normal(0, 0.05, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    draw |= dict.fromkeys(("depthwise_kernel", "pointwise_kernel"), draw["kernel"])
    for variable in model.weights:
        variable.assign(draw[variable.name](tuple(variable.shape)))
    return model


def save_legacy(model, path, renamed=None):
    """Write weights as Keras 2 wrote the files that keras.applications publishes.

    Their head is called `probs`, though the code says `predictions`.
    """
    renamed = {"predictions": "probs"} if renamed is None else renamed
    with h5py.File(path, "w") as file:
        names = [renamed.get(layer.name, layer.name) for layer in model.layers]
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for name, layer in zip(names, model.layers, strict=True):
            group = file.create_group(name)
            weights = {f"{name}/{variable.name}:0": keras.ops.convert_to_numpy(variable) for variable in layer.weights}
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                group[weight] = value
    return path


def relative_error(found, expected):
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())
