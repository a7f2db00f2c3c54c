"""One small row of each kind, for the tests that take every family; imported by processes without TensorFlow too."""

import dataclasses

import keras
import numpy as np

import kresnets
from kresnets.specs import Conv, Mix, Residual

IMAGENET = dict(widths=(8, 8, 16, 16))


def _resnet(name, **knobs):
    spec = kresnets.SPECS[name]
    small = {"depths": (1,) * len(spec.depths), "classes": 5, "params": None, **knobs}
    return dataclasses.replace(spec, **small)


def _inception(name, **knobs):
    """An eighth of the channels and at most two blocks a stage: each stage's entry, and one of what is repeated."""
    spec = kresnets.SPECS[name]
    stages = tuple(narrowed(blocks[:2]) for blocks in spec.stages)
    return dataclasses.replace(spec, stem=narrowed(spec.stem), stages=stages, classes=5, params=None, **knobs)


def narrowed(steps):
    """Divide the channels of an Inception row's steps by 8."""
    found = []
    for step in steps:
        if isinstance(step, tuple):
            found.append(narrowed(step))
        elif isinstance(step, Conv):
            found.append(dataclasses.replace(step, filters=max(2, step.filters // 8)))
        elif isinstance(step, Mix):
            found.append(Mix(*narrowed(step.branches)))
        elif isinstance(step, Residual):
            found.append(Residual(*narrowed(step.branches), scale=step.scale, relu=step.relu))
        else:
            found.append(step)
    return tuple(found)


SMALL = {
    "v1": _resnet("ResNet50", **IMAGENET),
    "d": _resnet("ResNet18D", **IMAGENET),
    "v2": _resnet("ResNet50V2", **IMAGENET, depths=(1, 2, 1, 1), stochastic_depth=0.3, dropout=0.2),
    "resnext": _resnet("ResNet50B", **IMAGENET, cardinality=4, width_per_group=2, stochastic_depth=0.3, dropout=0.2),
    "se": _resnet("ResNetRS50", **IMAGENET, se_ratio=0.5),
    "blur": _resnet("ResNetBlur50", **IMAGENET, activation="silu"),
    "bit": _resnet("BiT50x1", **IMAGENET),
    "dilated": _resnet("ResNet50D", **IMAGENET, output_stride=8),
    "plain": _resnet("PlainNet18", **IMAGENET),
    "cifar": _resnet("CifarResNet20", widths=(4, 6, 8)),
    "inception": _inception("InceptionV3", dropout=0.2),
    "inception-resnet": _inception("InceptionResNetV1", stochastic_depth=0.3),
}


def smallest(spec, channels=3):
    """The shape of the smallest images that the row takes, under the data format of the moment."""
    first = keras.config.image_data_format() == "channels_first"
    sides = (spec.min_size,) * 2
    return (channels, *sides) if first else (*sides, channels)


def images(shape, count=2):
    """Noise, channels last."""
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")
