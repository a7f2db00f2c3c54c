"""How each kind of file names and shapes the tensors of a network's layers.

A layout is one rule from a layer's name to the file's, and what else it does its own way: a `Layout`.
"""

import collections
import collections.abc
import dataclasses
import re

import keras

from kresnets.preprocess import Preprocessing
from kresnets.specs import SPECS, ResNetSpec

# A network's layers with weights; what a user put before the stem is not the file's business.
_OWN = re.compile(r"stem_(conv|bn)\d+|stage\d+_.+|head_dense")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One kind of file.

    Args:
        label: what messages call it.
        module: (layer's name, row) -> the file's name for that layer.
        is_head: (file's name for a layer) -> whether it belongs to the head.
        refusal: row -> why the row can't take such a file, as the rest of a sentence; None where it can.
        known_as: (name of a tensor) -> the name to know it by, None for one that is no weight.
        join: between the name of a layer and of a variable.
        variables: the file's names of variables, where they are not Keras's.
        axes: number of axes -> which of the file's axes comes where in Keras; none for Keras's own order.
        conv_bias: whether every convolution has a bias, also under a norm.
        preprocessing: what such files want where they do not say.
    """

    label: str
    module: collections.abc.Callable[[str, ResNetSpec], str]
    is_head: collections.abc.Callable[[str], bool]
    refusal: collections.abc.Callable[[ResNetSpec], str | None]
    known_as: collections.abc.Callable[[str], str | None] = lambda name: name
    join: str = "/"
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    axes: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    conv_bias: bool = False
    preprocessing: Preprocessing = Preprocessing("torch")

    def tensor(self, module, variable):
        """The file's name of a variable (`"kernel"`) of a layer, which the file calls `module`."""
        return f"{module}{self.join}{self.variables.get(variable, variable)}"

    def in_head(self, tensor):
        """Whether a tensor of the file belongs to the head."""
        return self.is_head(tensor.rpartition(self.join)[0])


def of(file):
    """Find the layout of an opened `WeightsFile`.

    Raises:
        ValueError: where it has none of those that are known.
    """
    if file.kind == "safetensors":
        return TORCH
    modules = {name.rpartition("/")[0] for name in file.tensors}
    if "stem_conv1" in modules:
        return KRESNETS
    if "conv1_conv" in modules or (file.positional and "conv2d" in modules):
        return KERAS_APPLICATIONS
    found = f"its first tensors are {', '.join(list(file.tensors)[:3])}" if file.tensors else "it holds no tensors"
    raise ValueError(f"{file.path} is neither a file of keras.applications' ResNets nor of kresnets: {found}.")


def modules(layout, model, spec, positional=False):
    """Map the network's own layers with weights to the file's names for them, in the order of the model.

    Args:
        layout: a `Layout`.
        model: the model that was built from the row.
        spec: the row.
        positional: whether the file names layers by class and place.
    """
    names = {
        layer: layout.module(layer.name, spec) for layer in model.layers if layer.weights and _OWN.fullmatch(layer.name)
    }
    return dict(zip(names, _by_place(names), strict=True)) if positional else names


def _by_place(layers):
    """Name layers as Keras 3 does in a `.weights.h5`: `conv2d`, `conv2d_1`, ...

    The order of our layers is keras.applications' own: both builders add shortcut and branch in the same order.
    """
    kinds = {
        keras.layers.Conv2D: "conv2d",
        keras.layers.BatchNormalization: "batch_normalization",
        keras.layers.Dense: "dense",
    }
    counts = collections.Counter()
    for layer in layers:
        kind = next(name for cls, name in kinds.items() if isinstance(layer, cls))
        yield f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1


def _part(layer):
    """Split `stage2_block3_shortcut_conv` into (2, 3, `shortcut_conv`); None for a layer of no block."""
    stage, _, rest = layer.partition("_")
    block, _, part = rest.partition("_")
    stage, block = stage.removeprefix("stage"), block.removeprefix("block")
    return (int(stage), int(block), part) if block.isdecimal() else None


# --- timm and torchvision -------------------------------------------------------------------------------------------

_TORCH_STEM = {"stem_conv1": "conv1", "stem_bn1": "bn1", "head_dense": "fc"}
# The deep stem is a torch.nn.Sequential called conv1, without its last norm; the ReLUs are its modules 2 and 5.
_TORCH_DEEP_STEM = {
    "stem_conv1": "conv1.0",
    "stem_bn1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_bn2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_bn3": "bn1",
    "head_dense": "fc",
}


def _torch_module(layer, spec):
    """`stage2_block3_conv1` -> `layer2.2.conv1`."""
    if (place := _part(layer)) is None:
        return (_TORCH_DEEP_STEM if spec.deep_stem else _TORCH_STEM)[layer]
    stage, block, part = place
    first = 1 if spec.avg_shortcut else 0  # module 0 of a D net's shortcut is the pool, also where it pools nothing
    part = {"shortcut_conv": f"downsample.{first}", "shortcut_bn": f"downsample.{first + 1}"}.get(part, part)
    return f"layer{stage}.{block - 1}.{part}"


def _torch_refusal(spec):
    if not _is_imagenet_v1(spec):
        return "timm and torchvision have no such network"
    if spec.stride_on == "1x1":
        return _other_stride(spec, "3x3", twin=f"{spec.name}B")
    return None


def _is_imagenet_v1(spec):
    return (
        isinstance(spec, ResNetSpec)
        and spec.residual
        and not spec.preactivation
        and spec.stem == "imagenet"
        and spec.shortcut == "B"
    )


def _other_stride(spec, theirs, twin):
    build = twin if twin != spec.name and twin in SPECS else f"the row with stride_on={theirs!r}"
    return (
        f"its network strides in the {theirs} of a block and {spec.name} in the {spec.stride_on}, so the same shapes "
        f"would compute something else: build {build}"
    )


TORCH = Layout(
    label="timm and torchvision",
    module=_torch_module,
    is_head=lambda module: module == "fc",
    refusal=_torch_refusal,
    known_as=lambda name: None if name.endswith(".num_batches_tracked") else name,
    join=".",
    variables={
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
    axes={4: (2, 3, 1, 0), 2: (1, 0)},
)

# --- keras.applications ---------------------------------------------------------------------------------------------

_KERAS_ENDS = {"stem_conv1": "conv1_conv", "stem_bn1": "conv1_bn", "head_dense": "predictions"}


def _keras_module(layer, spec):
    """`stage2_block3_conv1` -> `conv3_block3_1_conv`; its stages count from 2, and its shortcut is convolution 0."""
    if (place := _part(layer)) is None:
        return _KERAS_ENDS[layer]
    stage, block, part = place
    kind, index = (part.removeprefix("shortcut_"), 0) if part.startswith("shortcut_") else (part[:-1], part[-1])
    return f"conv{stage + 1}_block{block}_{index}_{kind}"


def _keras_refusal(spec):
    if not _is_imagenet_v1(spec) or spec.block == "basic" or spec.deep_stem or spec.avg_shortcut:
        return "keras.applications has no such network"
    if spec.stride_on == "3x3":
        return _other_stride(spec, "1x1", twin=spec.name.removesuffix("B"))
    return None


KERAS_APPLICATIONS = Layout(
    label="keras.applications",
    module=_keras_module,
    is_head=lambda module: not module.startswith(("conv", "batch_normalization")),
    refusal=_keras_refusal,
    known_as=lambda name: name.replace(
        "probs/", "predictions/"
    ),  # the published files are older than the name in the code
    conv_bias=True,
    preprocessing=Preprocessing("caffe"),
)

# --- kresnets -------------------------------------------------------------------------------------------------------

KRESNETS = Layout(
    label="kresnets",
    module=lambda layer, spec: layer,
    # Whatever a user adds around a trunk belongs to the head.
    is_head=lambda module: not module.startswith(("stem_", "stage")),
    refusal=lambda spec: None,
)
