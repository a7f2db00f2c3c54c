"""The same network in other libraries, each ready to be timed."""

import importlib.util
import pathlib
import subprocess
import sys

# keras_hub names its networks by their weights, which would be fetched: here they are built from what its presets say.
_HUB = {
    "ResNet18D": ([32, 32, 64], [3, 3, 3], [64, 128, 256, 512], [2, 2, 2, 2], "basic_block_vd"),
    "ResNet50B": ([64], [7], [64, 128, 256, 512], [3, 4, 6, 3], "bottleneck_block"),
    "ResNet50D": ([32, 32, 64], [3, 3, 3], [64, 128, 256, 512], [3, 4, 6, 3], "bottleneck_block_vd"),
}


def peers(model, dtype, size, batch_size, steps):
    """Return what can be timed of a builder of kresnets, under a dtype policy.

    Returns dict of library -> (function that times training, function that times prediction), kresnets first; both
    return seconds a step. A library that is not installed, or lacks the network, is not in it.
    """
    import keras

    import kresnets
    from kresnets import weights
    from kresnets.analysis.timing import Prediction, Training

    shape = (size, size, 3)
    found = {"kresnets": getattr(kresnets, model)(weights=None, input_shape=shape)}
    if hasattr(keras.applications, model):
        found["keras.applications"] = getattr(keras.applications, model)(weights=None, input_shape=shape)
    if model in _HUB and importlib.util.find_spec("keras_hub"):
        found["keras_hub"] = _of_keras_hub(model, shape)
    how = size, batch_size, steps
    timed = {name: (Training(one, *how), Prediction(one, *how)) for name, one in found.items()}
    tags = [row.tag.removeprefix("timm/") for row in weights.list(model) if row.tag.startswith("timm/")]
    if tags and importlib.util.find_spec("timm"):
        timed["timm"] = tuple(Timm(tags[0].split(".")[0], dtype, *how, what) for what in ("training", "prediction"))
    return timed


def _of_keras_hub(model, shape):
    import keras_hub

    filters, kernels, widths, depths, block = _HUB[model]
    backbone = keras_hub.models.ResNetBackbone(filters, kernels, widths, depths, [1, 2, 2, 2], block, image_shape=shape)
    return keras_hub.models.ResNetImageClassifier(backbone, num_classes=1000, activation="softmax", preprocessor=None)


class Timm:
    """Time steps of timm's network in a process of its own, eager, channels last, under autocast for bfloat16.

    The process waits between rounds, so that TensorFlow has the processor for its own.
    """

    def __init__(self, *arguments):
        command = [sys.executable, pathlib.Path(__file__).with_name("timm_child.py"), *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen(command, **pipes, text=True)

    def __call__(self):
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("The process that was to measure timm ended: run apps/bench/timm_child.py by hand.")
        return float(line)

    def close(self):
        """End the process."""
        self._child.stdin.close()
        self._child.wait()
