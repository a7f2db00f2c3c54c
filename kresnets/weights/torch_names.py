"""What timm and torchvision call the layers of a network, and which rows compute what theirs do.

From our name to theirs, never back: `assign.py` goes through a model's variables and looks their tensors up."""

from kresnets.specs import SPECS, InceptionSpec, ResNetSpec

_STEM = {"stem_conv1": "conv1", "stem_bn1": "bn1", "head_dense": "fc"}
# The deep stem is a torch.nn.Sequential called conv1, without its last norm; the ReLUs are its modules 2 and 5.
_DEEP_STEM = {
    "stem_conv1": "conv1.0",
    "stem_bn1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_bn2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_bn3": "bn1",
    "head_dense": "fc",
}
_V2_ENDS = {"stem_conv1": "stem.conv", "head_dense": "head.fc"}
_INCEPTION_RESNET_V2_STEM = {
    "stem_conv1": "conv2d_1a",
    "stem_conv2": "conv2d_2a",
    "stem_conv3": "conv2d_2b",
    "stage1_block1_conv2": "conv2d_3b",
    "stage1_block1_conv3": "conv2d_4a",
}


def block_and_part(layer):
    """Take `stage2_block3_shortcut_conv` apart into (2, 3, `shortcut_conv`); None for a layer of no block.

    Example:
        >>> block_and_part("stage2_block3_conv1")
        (2, 3, 'conv1')
    """
    stage, _, rest = layer.partition("_")
    block, _, part = rest.partition("_")
    stage, block = stage.removeprefix("stage"), block.removeprefix("block")
    return (int(stage), int(block), part) if block.isdecimal() else None


# --- ResNets ---------------------------------------------------------------------------------------------------------


def is_v1(spec):
    """Whether timm's `resnet.py` has the row's kind of network; so with its ResNeXt and wide ones."""
    v1 = _is_imagenet(spec) and spec.residual and not spec.preactivation
    return v1 and spec.norm != "none" and not spec.standardize_weights


def v1(layer, spec):
    """`stage2_block3_conv1` -> `layer2.2.conv1`."""
    if (place := block_and_part(layer)) is None:
        # The last convolution of ResNet-RS's stem is where others have their pool.
        last = 4 if spec.deep_stem else 2
        pool = {f"stem_conv{last}": "maxpool.0", f"stem_bn{last}": "maxpool.1"}
        return ((_DEEP_STEM if spec.deep_stem else _STEM) | pool)[layer]
    stage, block, part = place
    first = 1 if spec.avg_shortcut else 0  # module 0 of a D net's shortcut is the pool, also where it pools nothing
    others = {
        "shortcut_conv": f"downsample.{first}", "shortcut_bn": f"downsample.{first + 1}", "se_conv1": "se.fc1",
        "se_conv2": "se.fc2",
    }  # fmt: skip
    part = others.get(part, part)
    return f"layer{stage}.{block - 1}.{part}"


def v1_unfit(spec):
    """Say what the row computes that timm does not; None where they agree."""
    if spec.stride_on == "1x1":
        return other_stride(spec, "3x3", twin=f"{spec.name}B")
    return other_end(spec) or other_numbers(spec)


def is_v2(spec):
    """Whether timm's `resnetv2.py` has the row's kind of network."""
    if not _is_imagenet(spec) or not spec.preactivation:
        return False
    plain = not spec.deep_stem and not spec.avg_shortcut
    bare = not spec.stem_norm and not spec.bias_without_norm and spec.downsample_in == "first"
    return plain and bare and spec.norm != "none"


def v2(layer, spec):
    """`stage2_block3_bn1` -> `stages.1.blocks.2.norm1`."""
    if (place := block_and_part(layer)) is None:
        return _V2_ENDS.get(layer, "norm")
    stage, block, part = place
    part = "downsample.conv" if part == "shortcut_conv" else part.replace("bn", "norm")
    return f"stages.{stage - 1}.blocks.{block - 1}.{part}"


def v2_unfit(spec):
    """Say what the row computes that timm does not; None where they agree."""
    return other_v2(spec, border="zeros" if spec.standardize_weights else "nothing", last=2)


def other_v2(spec, border, last):
    """Say what a v2 row computes otherwise than a file's network, whose stem pools with that border and whose last
    stage strides by `last`; None where they agree."""
    if spec.stride_on == "1x1":
        return other_stride(spec, "3x3", twin=spec.name)
    return (other_border(spec, border) if spec.stem_pool_border != border else None) or other_numbers(spec, last)


def _is_imagenet(spec):
    return isinstance(spec, ResNetSpec) and spec.stem == "imagenet" and spec.shortcut == "B"


def other_stride(spec, theirs, twin):
    """Say that a file's network strides elsewhere, and which row to build for it."""
    build = twin if twin != spec.name and twin in SPECS else f"the row with stride_on={theirs!r}"
    return (
        f"its network strides in the {theirs} of a block and {spec.name} in the {spec.stride_on}, so the same shapes "
        f"would compute something else: build {build}"
    )


def other_end(spec):
    """Say that a file's v1 network pads its stem's pool on all sides, where the row does so at its end alone."""
    return other_border(spec, "zeros") if spec.stem_pool_border == "end" else None


def other_border(spec, theirs):
    """Say that the pool of a file's network sees something else beyond the border than the row's."""
    return (
        f"its stem's pool has stem_pool_border={theirs!r} and this one {spec.stem_pool_border!r}, so the same shapes "
        f"would compute something else: build the row with stem_pool_border={theirs!r}"
    )


def other_numbers(spec, last=2):
    """Say which strides or epsilon a file's network has, where the row has others; its last stage strides by `last`."""
    strides = (1, 2, 2, 2) if last == 2 else (2, 2, 2, 1)
    if len(spec.strides) == 4 and spec.strides != strides:
        return (
            f"its network has strides={strides}, so the same shapes would compute something else: build the row "
            "with those"
        )
    if not 0.9e-5 < spec.epsilon < 1.1e-5:  # 1e-5 of torch and 1.001e-5 of keras.applications differ by nothing seen
        return "its network was trained with epsilon=1e-5: build the row with that"
    return None


def missing(spec):
    """Say why there is no such network in timm."""
    if same_network(spec, "InceptionV3"):
        return (
            "theirs counts the padding in its average pools and InceptionV3 does not, so the same shapes would "
            "compute something else"
        )
    if _is_imagenet(spec) and spec.preactivation:
        return (
            "theirs have a bare stem, no bias without a norm and their strides in a stage's first block, so the same "
            "shapes would compute something else"
        )
    return "they have no such network"


# --- Inception -------------------------------------------------------------------------------------------------------


def same_network(spec, name):
    """Whether a row computes what the row of that name does."""
    return isinstance(spec, InceptionSpec) and (spec.stem, spec.stages) == (SPECS[name].stem, SPECS[name].stages)


def is_inception_v4(spec):
    """Whether the row is timm's inception_v4."""
    return same_network(spec, "InceptionV4")


def inception_v4(layer, spec):
    """`stage2_block2_branch4_conv2` -> `features.6.branch3.1.conv`: its modules count stem and blocks through."""
    if layer == "head_dense":
        return "last_linear"
    if (place := block_and_part(layer)) is None:
        kind, number = _kind(layer.removeprefix("stem_"))
        return f"features.{number - 1}.{kind}"
    stage, block, part = place
    feature = f"features.{len(spec.stem) + sum(spec.depths[: stage - 1]) + block - 1}"
    (step,) = spec.stages[stage - 1][block - 1]
    if sum(len(branch) == 1 and branch[0] == _POOL for branch in step.branches) and len(step.branches) == 2:
        return f"{feature}.conv.{_kind(part.partition('_')[2])[0]}"  # one convolution beside a pool
    return f"{feature}.{_branch(step, part, forked=stage == 4 and block > 1)}"


def is_inception_resnet_v2(spec):
    """Whether the row is timm's inception_resnet_v2."""
    return same_network(spec, "InceptionResNetV2")


def inception_resnet_v2(layer, spec):
    """`stage3_block2_branch1_conv1` -> `repeat_1.0.branch0.conv`."""
    if layer == "head_dense":
        return "classif"
    name = layer.replace("bn", "conv")
    if name in _INCEPTION_RESNET_V2_STEM:
        return f"{_INCEPTION_RESNET_V2_STEM[name]}.{'bn' if name != layer else 'conv'}"
    stage, block, part = block_and_part(layer)
    if block == 1:
        module = f"mixed_{stage + 3}{'b' if stage == 2 else 'a'}"
    elif stage < 4:
        module = f"repeat{'_1' if stage == 3 else ''}.{block - 2}"
    elif block < 11:
        module = f"repeat_2.{block - 2}"
    elif block == 11:
        module = "block8"  # the one without a ReLU
    else:
        return f"conv2d_7b.{_kind(part)[0]}"
    return f"{module}.conv2d" if part == "up" else f"{module}.{_branch(spec.stages[stage - 1][block - 1][-1], part)}"


_POOL = SPECS["InceptionV4"].stages[0][0][0].branches[0][0]


def _kind(part):
    """Take `conv2` apart into (`conv`, 2)."""
    kind = part.rstrip("0123456789")
    return kind, int(part.removeprefix(kind))


def _branch(step, part, forked=False):
    """`branch4_conv2` -> `branch3.1.conv`; a branch of one step is no sequence, and one with a fork counts by hand."""
    first, *inner, last = part.split("_")
    index = int(first.removeprefix("branch")) - 1
    kind, number = _kind(last)
    steps = step.branches[index]
    if len(steps) == 1:
        return f"branch{index}.{kind}"
    if not forked or index == len(step.branches) - 1:
        return f"branch{index}.{number - 1}.{kind}"
    arm = "ab"[int(inner[0].removeprefix("branch")) - 1] if inner else ""
    return f"branch{index}_{len(steps) - 1 if inner else number - 1}{arm}.{kind}"
