"""What each group of a network puts out, with its stride: the maps that detection and segmentation build on."""

import re
from typing import NamedTuple

import keras

from kresnets.keras_hooks.graph import graph_nodes, has_graph

_GROUP = re.compile(r"(stem|stage[1-9]\d*)_")


class Feature(NamedTuple):
    """A feature map of a network.

    Args:
        output: symbolic tensor of the model, `(batch, height, width, channels)`, or channels first.
        stride: pixels of the image at the stem that one step on this map goes; its sides are theirs divided by it, and
            rounded as the network pads.
    """

    output: keras.KerasTensor
    stride: int


def features(model: keras.Model) -> dict[str, Feature]:
    """Give what each group of a kresnets network puts out, and at which stride.

    The output of a group is what its last layer gives: of an ImageNet ResNet's stem the pooled map (stride 4, as
    stage1), of a v2 stage the sum before the next norm, of the last stage what enters the head. Strides are counted
    along the model's own graph, so they are those of its row: `{'stem': 2, 'stage1': 4, ...}` for an Inception, 1, 1,
    2, 4 for a CIFAR net, and 8 at stage1 for a v2 net that strides in a stage's last block. For a map within a group
    take the layer: `model.get_layer("stem_relu1").output` has stride 2 in most ResNets.

    Args:
        model: a Keras model with one kresnets trunk, with or without a head, or with the trunk nested in it. It is not
            changed and shares its layers with whatever is built on the outputs.

    Returns:
        Dict `stem`, `stage1` .. `stageN` (those that the model has) -> `Feature(output, stride)`, in the order in which
        an image passes them. The outputs hang on `model.input`; resizing before the stem does not count as stride.

    Raises:
        ValueError: where the model has no graph, no kresnets trunk, or more than one.

    Example:
        >>> import keras, kresnets, numpy as np
        >>> model = kresnets.ResNet18(weights=None, include_top=False)
        >>> found = kresnets.features(model)
        >>> {name: feature.stride for name, feature in found.items()}
        {'stem': 4, 'stage1': 4, 'stage2': 8, 'stage3': 16, 'stage4': 32}
        >>> pyramid = keras.Model(model.input, {name: feature.output for name, feature in found.items()})
        >>> pyramid.predict(np.zeros((1, 96, 64, 3)), verbose=0)["stage4"].shape
        (1, 3, 2, 512)
    """
    if not isinstance(model, keras.Model) or not has_graph(model):
        raise ValueError(
            "`features` takes a Functional or Sequential Keras model that has been built. Received: "
            f"{type(model).__name__}"
        )
    found, _ = _trace(model, 1)
    if not found.keys() - {"stem"}:
        raise ValueError(
            f"{model.name!r} has no layers named as kresnets names them (stem_conv1, stage1_block1_conv1, ...): give a "
            "model that kresnets built, or one around it."
        )
    order = sorted(found, key=lambda name: int(name.removeprefix("stage")) if name != "stem" else 0)
    return {name: found[name] for name in order}


def _trace(model, stride):
    """Return the features of a model that is given its inputs at a stride, and the stride of what it puts out."""
    found, strides = {}, {id(tensor): stride for tensor in model.inputs}
    for node in graph_nodes(model):
        layer, arriving = node.operation, max(strides[id(tensor)] for tensor in node.input_tensors)
        if isinstance(layer, keras.Model) and has_graph(layer):
            inner, leaving = _trace(layer, arriving)
            if inner.keys() & found.keys():
                raise ValueError(
                    f"{model.name!r} has several trunks, or passes images through one several times: take the features "
                    "of one trunk, and call a model of them on each image."
                )
            found |= _called_on(node, inner)
        else:
            match = _GROUP.match(layer.name)
            leaving = arriving * (_stride(layer) if match else 1)
            if match:  # in the order of the graph, so the group's last layer stays
                found[match[1]] = Feature(node.output_tensors[0], leaving)
        strides |= {id(tensor): leaving for tensor in node.output_tensors}
    return found, max(strides[id(tensor)] for tensor in model.outputs)


def _called_on(node, inner):
    """Repeat the call of a nested model, for its features: tensors inside of it are not of the graph around it."""
    if not inner:
        return {}
    outputs = keras.Model(node.operation.inputs, [feature.output for feature in inner.values()])(node.input_tensors)
    return {name: Feature(output, inner[name].stride) for name, output in zip(inner, outputs, strict=True)}


def _stride(layer):
    strides = getattr(layer, "strides", 1)
    return strides if isinstance(strides, int) else strides[0]
