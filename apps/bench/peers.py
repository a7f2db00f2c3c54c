"""The same network in other libraries, each ready to be timed."""

import functools
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


def peers(model, dtype, size, batch_size, steps, timm_python=sys.executable):
    """Return what can be timed of one network.

    Args:
        model: name of a builder of kresnets.
        dtype: a Keras dtype policy.
        size, batch_size: int, of the images.
        steps: int, timed steps a round.
        timm_python: a Python whose environment has timm. Defaults to this one.

    Returns:
        Dict of library -> (function that times training, function that times prediction), kresnets first; both return
        seconds a step. A library that is not installed, or lacks the network, is not in it.
    """
    import keras

    import kresnets
    from kresnets.analysis.timing import Prediction, Training

    shape = (size, size, 3)
    found = {"kresnets": getattr(kresnets, model)(weights=None, input_shape=shape)}
    if hasattr(keras.applications, model):
        found["keras.applications"] = getattr(keras.applications, model)(weights=None, input_shape=shape)
    if model in _HUB and importlib.util.find_spec("keras_hub"):
        found["keras_hub"] = _of_keras_hub(model, shape)
    timed = {
        name: (Training(one, size, batch_size, steps), Prediction(one, size, batch_size, steps))
        for name, one in found.items()
    }
    name = timm_name(model)
    if name and has_timm(timm_python):
        start = functools.partial(Timm, timm_python, name, dtype, size, batch_size, steps)
        timed["timm"] = start("training"), start("prediction")
    return timed


def timm_name(model):
    """Return what timm calls a network, or None."""
    from kresnets import weights

    tags = [row.tag for row in weights.list(model) if row.tag.startswith("timm/")]
    return tags[0].removeprefix("timm/").split(".")[0] if tags else None


@functools.cache
def has_timm(python):
    """Whether a Python's environment has timm."""
    return subprocess.run([python, "-c", "import timm, torch"], capture_output=True, check=False).returncode == 0


def _of_keras_hub(model, shape):
    import keras_hub

    filters, kernels, widths, depths, block = _HUB[model]
    backbone = keras_hub.models.ResNetBackbone(filters, kernels, widths, depths, [1, 2, 2, 2], block, image_shape=shape)
    return keras_hub.models.ResNetImageClassifier(backbone, num_classes=1000, activation="softmax", preprocessor=None)


class Timm:
    """Time steps of timm's network in a process of its own, eager, channels last, under autocast for bfloat16.

    The process waits between rounds, so that TensorFlow has the processor for its own.
    """

    def __init__(self, python, name, dtype, size, batch_size, steps, what):
        script = pathlib.Path(__file__).with_name("timm_child.py")
        arguments = [name, dtype, size, batch_size, steps, what]
        self._child = subprocess.Popen(
            [python, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

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
