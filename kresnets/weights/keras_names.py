"""What keras.applications calls the layers of a network, and which rows compute what its own do."""

import functools
import re

from kresnets.networks.inception import convolutions
from kresnets.specs import ResNetSpec
from kresnets.weights.torch_names import block_and_part, other_end, other_numbers, other_stride, other_v2, same_network

_V1_ENDS = {"stem_conv1": "conv1_conv", "stem_bn1": "conv1_bn", "head_dense": "predictions"}
_V2_ENDS = {"stem_conv1": "conv1_conv", "stage4_bn": "post_bn", "head_dense": "predictions"}
# keras.applications leaves most of Inception unnamed, so that Keras numbers it through.
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")
# TF-slim's names of the residual grids, by stage.
_BLOCKS = {2: "block35", 3: "block17", 4: "block8"}


def is_head(module):
    """Whether the file's layer of that name belongs to the head."""
    return not module.startswith(("conv", "batch_normalization", "post_bn", "block"))


# --- ResNets ---------------------------------------------------------------------------------------------------------


def is_v1(spec):
    """Whether keras.applications has the row's kind of network among its first ResNets."""
    return _is_bottleneck(spec) and spec.residual and not spec.preactivation


def v1(layer, spec):
    """`stage2_block3_conv1` -> `conv3_block3_1_conv`; its stages count from 2, and its shortcut is convolution 0."""
    if (place := block_and_part(layer)) is None:
        return _V1_ENDS[layer]
    stage, block, part = place
    kind, index = (part.removeprefix("shortcut_"), 0) if part.startswith("shortcut_") else (part[:-1], part[-1])
    return f"conv{stage + 1}_block{block}_{index}_{kind}"


def v1_unfit(spec):
    """Say what the row computes that keras.applications does not; None where they agree."""
    if spec.stride_on == "3x3":
        return other_stride(spec, "1x1", twin=spec.name.removesuffix("B"))
    return other_end(spec) or other_numbers(spec)


def known_head(names):
    """Some published files are older than the head's name in the code."""
    return {name: name.replace("probs/", "predictions/") for name in names}


def is_v2(spec):
    """Whether keras.applications has the row's kind of network among its pre-activation ones."""
    plain = _is_bottleneck(spec) and spec.preactivation and not spec.stem_norm and spec.bias_without_norm
    return plain and spec.downsample_in == "last"


def v2(layer, spec):
    """`stage2_block3_bn2` -> `conv3_block3_1_bn`: it counts a norm by the convolution before it."""
    if (place := block_and_part(layer)) is None:
        return _V2_ENDS[layer]
    stage, block, part = place
    if part == "bn1":
        part = "preact_bn"
    elif part == "shortcut_conv":
        part = "0_conv"
    else:
        kind, index = part[:-1], int(part[-1])
        part = f"{index - (kind == 'bn')}_{kind}"
    return f"conv{stage + 1}_block{block}_{part}"


def v2_unfit(spec):
    """Say what the row computes that keras.applications does not; None where they agree."""
    return other_v2(spec, border="zeros", last=1)


def _is_bottleneck(spec):
    if not isinstance(spec, ResNetSpec):
        return False
    imagenet = spec.stem == "imagenet" and spec.shortcut == "B"
    first = spec.norm == "batch" and spec.activation == "relu" and spec.cardinality == 1 and not spec.width_per_group
    later = spec.se_ratio or spec.anti_alias or spec.standardize_weights or spec.stem_pool != "max"
    return (
        imagenet and spec.block == "bottleneck" and not spec.deep_stem and not spec.avg_shortcut and first and not later
    )


# --- Inception -------------------------------------------------------------------------------------------------------


def is_inception(spec):
    """Whether the row is InceptionV3 or InceptionResNetV2, in what it computes."""
    return same_network(spec, "InceptionV3") or same_network(spec, "InceptionResNetV2")


def inception(layer, spec):
    """`stage2_block1_branch1_conv1` -> `conv2d_6`: numbered from 1 in the order of making, but for a few with names."""
    if layer == "head_dense":
        return "predictions"
    # The norm stem_bn1 follows stem_conv1, and has its number.
    conv = layer.replace("bn", "conv")
    name = _inception_convs(spec)[conv]
    if conv == layer:
        return name
    return name.replace("conv2d", "batch_normalization") if name.startswith("conv2d") else f"{name}_bn"


def known_inception(names):
    """Number from 1 what Keras numbered on through a session, by its rank.

    Example:
        >>> known_inception(["conv2d_7/kernel", "conv2d/kernel", "predictions/bias"])
        {'conv2d_7/kernel': 'conv2d_2/kernel', 'conv2d/kernel': 'conv2d_1/kernel', 'predictions/bias':
        'predictions/bias'}
    """
    modules = {name: known.rpartition("/")[0] for name, known in known_head(names).items()}
    ranks = {}
    for kind in ("conv2d", "batch_normalization"):
        found = {module for module in modules.values() if (match := _NUMBERED.fullmatch(module)) and match[1] == kind}
        order = sorted(found, key=lambda module: int(_NUMBERED.fullmatch(module)[2] or 0))
        ranks |= {module: f"{kind}_{rank}" for rank, module in enumerate(order, start=1)}
    return {name: f"{ranks.get(module, module)}/{name.rpartition('/')[2]}" for name, module in modules.items()}


@functools.lru_cache
def _inception_convs(spec):
    """Map our names of convolutions to keras.applications'."""
    names, numbered = {}, 0
    for conv in convolutions(spec):
        stage, block, part = block_and_part(conv) or (0, 0, "")
        if part == "up":
            names[conv] = f"{_BLOCKS[stage]}_{block - 1}_conv"
        elif stage == 4 and spec.residuals and block == spec.depths[-1]:
            names[conv] = "conv_7b"
        else:
            numbered += 1
            names[conv] = f"conv2d_{numbered}"
    return names
