"""Every architecture as a frozen row of data.

A network is a `ResNetSpec` or an `InceptionSpec`; a variant is the same row with other values, never another function.
`SPECS` holds the rows of the public builders by their names; `dataclasses.replace(SPECS["ResNet50D"], ...)` makes a row
of one's own for `kresnets.build`.
"""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What every network needs.

    Args:
        name: public name, also the builder's, such as `"ResNet50D"`.
        reference: where it is defined: arXiv id with section or table, or the implementation that is followed.
        input_size: pixels a side that the builder takes unless told otherwise.
        min_size: smallest pixels a side at which every layer still has something to look at.
        classes: outputs of the default head.
        epsilon: added to the variance in every batch norm.
        momentum: share of the old value that a moving statistic keeps per step (1 - torch's momentum).
        dropout: rate before the head's last layer, 0 <= dropout < 1.
        stochastic_depth: rate at which training leaves out the last residual branch, an image at a time; it rises
            linearly from the first block to there, 0 <= stochastic_depth < 1 (arXiv 1603.09382 section 3). Inference
            leaves out none. It moves the order of layers in the graph: copy weights by layer, not by `set_weights`.
        imagenet: whether ImageNet weights of this network exist (decides the builder's default for `weights`).
        params: learned parameters (trainable ones, without moving statistics) with the default head on 3 channels;
            None for a row of one's own. Checked against the built network by the tests.
    """

    name: str
    reference: str
    input_size: int = 224
    min_size: int = 32
    classes: int = 1000
    epsilon: float = 1e-5
    momentum: float = 0.9
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    imagenet: bool = True
    params: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type in _KINDS:
                kinds, allowed = _KINDS[field.type]
                _in_range(self, field.name, type(getattr(self, field.name)) in kinds, allowed)
        _in_range(self, "name", self.name, "text")
        _in_range(self, "classes", self.classes >= 1, "a whole number from 1")
        _in_range(self, "dropout", 0 <= self.dropout < 1, "0 <= dropout < 1")
        _in_range(self, "stochastic_depth", 0 <= self.stochastic_depth < 1, "0 <= stochastic_depth < 1")
        _in_range(self, "epsilon", 0 < self.epsilon < math.inf, "above 0 and finite")
        _in_range(self, "momentum", 0 <= self.momentum < 1, "0 <= momentum < 1")
        _in_range(self, "min_size", 1 <= self.min_size <= self.input_size, f"1 to input_size={self.input_size}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetSpec(Spec):
    """A residual network, or its plain twin.

    Args:
        depths: blocks in each stage.
        widths: channels of each stage's 3x3 convolutions; a bottleneck block puts out 4 times as many.
        block: `"basic"` (two 3x3) or `"bottleneck"` (1x1, 3x3, 1x1); arXiv 1512.03385 figure 5.
        stride_on: convolution of a bottleneck block that strides: the first `"1x1"` (A) or the `"3x3"` (B, arXiv
            1812.01187 section 4.1). A basic block strides in its first 3x3.
        downsample_in: block of a stage that strides: `"first"`, or `"last"` as keras.applications' v2 nets.
        strides: stride of each stage.
        stem: `"imagenet"` (7x7 stride 2 and a 3x3 max pool stride 2) or `"cifar"` (one 3x3).
        stem_width: channels of the stem; None for the first of `widths`.
        deep_stem: three 3x3 convolutions (half, half, all of the stem's channels) in place of the 7x7 (C).
        avg_shortcut: 2x2 average pool before an unstrided 1x1 on a shortcut that strides (D).
        preactivation: norm and ReLU before each convolution, nothing after the sum (v2, arXiv 1603.05027 figure 4e).
        cardinality: groups of a bottleneck's 3x3 convolution (ResNeXt, arXiv 1611.05431 table 1).
        width_per_group: channels of each such group in the first stage, rising with `widths`; None for as many as
            `widths` says in all. ResNeXt-50 32x4d: cardinality 32, 4; Wide-ResNet-50-2 (1605.07146): cardinality 1, 128.
        stem_norm: whether the stem's last convolution is normed and rectified (always so in v1). In v2 this is then the
            first activation of the first block too, before its two paths part (1603.05027, appendix).
        stem_pool_border: what the stem's max pool sees beyond the border: `"zeros"` on all sides (keras.applications),
            `"nothing"` (torch), which differs only where no ReLU comes before, so where `stem_norm` is False, or
            `"end"`: zeros at the bottom and the right alone, which is Caffe's rule of rounding up.
        bias_without_norm: whether convolutions that no norm follows have a bias, as keras.applications' v2 nets.
        residual: False builds the plain twin: the same layers without shortcuts.
        shortcut: where shapes differ: `"A"` pads channels with zeros, `"B"` projects by 1x1; `"C"` projects everywhere
            (arXiv 1512.03385 section 3.3 and table 3).
        zero_gamma: start the last norm of each residual branch at gamma = 0, so that each block starts as its shortcut
            (arXiv 1706.02677 section 5.1).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: Literal["basic", "bottleneck"] = "bottleneck"
    stride_on: Literal["1x1", "3x3"] = "3x3"
    downsample_in: Literal["first", "last"] = "first"
    strides: tuple[int, ...] = (1, 2, 2, 2)
    stem: Literal["imagenet", "cifar"] = "imagenet"
    stem_width: int | None = None
    deep_stem: bool = False
    avg_shortcut: bool = False
    preactivation: bool = False
    cardinality: int = 1
    width_per_group: int | None = None
    stem_norm: bool = True
    stem_pool_border: Literal["zeros", "nothing", "end"] = "zeros"
    bias_without_norm: bool = False
    residual: bool = True
    shortcut: Literal["A", "B", "C"] = "B"
    zero_gamma: bool = False

    def __post_init__(self):
        super().__post_init__()
        for field in dataclasses.fields(ResNetSpec):
            if getattr(field.type, "__origin__", None) is Literal:
                _in_range(
                    self, field.name, getattr(self, field.name) in field.type.__args__, f"one of {field.type.__args__}"
                )
        for knob in ("depths", "widths", "strides"):
            values = getattr(self, knob)
            fits = isinstance(values, tuple) and all(type(value) is int and value > 0 for value in values)
            _in_range(self, knob, fits, "a tuple of whole numbers from 1")
        for knob in ("stem_width", "width_per_group"):
            value = getattr(self, knob)
            _in_range(self, knob, value is None or type(value) is int and value > 0, "None or a whole number from 1")
        _in_range(self, "cardinality", self.cardinality >= 1, "a whole number from 1")
        if not len(self.depths) == len(self.widths) == len(self.strides) > 0:
            raise ValueError(
                f"{self.name}: `depths`, `widths` and `strides` need one entry a stage each. Received: depths={self.depths}, "
                f"widths={self.widths}, strides={self.strides}"
            )
        outputs = [self.stem_width or self.widths[0], *(width * self.expansion for width in self.widths)]
        narrowing = any(later < earlier for earlier, later in zip(outputs, outputs[1:]))
        stem = "stem_width" if self.stem_width else "widths"
        narrows = stem if outputs[1] < outputs[0] else "widths"
        plain, v1, basic = not self.residual, not self.preactivation, self.block == "basic"
        cifar, a = self.stem == "cifar", self.shortcut == "A"
        uneven = any(self.inner_width(width) % self.cardinality for width in self.widths)
        broken = any((self.width_per_group or 0) * width % self.widths[0] for width in self.widths)
        bare_border, at_end = (self.stem_pool_border == border for border in ("nothing", "end"))
        no_projection = self.downsample_in == "last" and self.shortcut == "B"
        misfits = (
            ("block", "stride_on", basic and self.stride_on == "1x1", "a basic block has no 1x1 to stride"),
            ("block", "cardinality", basic and self.cardinality > 1, "only a bottleneck's 3x3 is grouped"),
            ("block", "width_per_group", basic and self.width_per_group, "only a bottleneck's 3x3 has groups with a width"),
            ("widths", "cardinality", uneven, "each group needs as many whole channels as the others"),
            ("widths", "width_per_group", broken, "it rises as they do and must come out whole in each stage"),
            ("stem", "deep_stem", cifar and self.deep_stem, "the deep stem replaces the 7x7, which a CIFAR stem lacks"),
            (stem, "deep_stem", self.deep_stem and outputs[0] < 2, "its first two convolutions have half of the channels"),
            ("stem", "stem_pool_border", cifar and (bare_border or at_end), "a CIFAR stem has no pool"),
            ("stem_norm", "stem_pool_border", self.stem_norm and bare_border, "after a ReLU it is the same as zeros"),
            ("stem_norm", "stem_pool_border", not self.stem_norm and at_end, "zeros are the least only after a ReLU"),
            ("shortcut", "avg_shortcut", a and self.avg_shortcut, "the pool belongs before a projection, and A has none"),
            ("shortcut", narrows, self.residual and a and narrowing, "A can add channels of zeros, not take any away"),
            ("residual", "shortcut", plain and self.shortcut == "C", "a plain net has no shortcut to project"),
            ("residual", "avg_shortcut", plain and self.avg_shortcut, "a plain net has no shortcut"),
            ("residual", "zero_gamma", plain and self.zero_gamma, "a plain block that starts at 0 lets nothing through"),
            ("residual", "stochastic_depth", plain and self.stochastic_depth, "nothing is left of a plain block left out"),
            ("residual", "preactivation", plain and self.preactivation, "the plain twins are those of v1"),
            ("preactivation", "zero_gamma", not v1 and self.zero_gamma, "no norm ends a pre-activation branch"),
            ("preactivation", "stem_norm", v1 and not self.stem_norm, "a v1 stem is normed"),
            ("preactivation", "downsample_in", v1 and self.downsample_in == "last", "only v2 nets stride in the last block"),
            ("preactivation", "bias_without_norm", v1 and self.bias_without_norm, "in v1 a norm follows every convolution"),
            ("downsample_in", "avg_shortcut", no_projection and self.avg_shortcut, "the last block has no projection to pool for"),
        )  # fmt: skip
        for one, other, misfit, why in misfits:
            if misfit:
                raise ValueError(
                    f"{self.name}: {one}={getattr(self, one)!r} does not go with {other}={getattr(self, other)!r}: {why}; "
                    "change one of the two."
                )

    @property
    def expansion(self):
        """Output channels of a block over its width."""
        return 4 if self.block == "bottleneck" else 1

    def inner_width(self, width):
        """Channels of the 3x3 convolutions of a stage that `widths` gives this width."""
        if self.width_per_group is None:
            return width
        return self.cardinality * self.width_per_group * width // self.widths[0]


@dataclasses.dataclass(frozen=True)
class Conv:
    """A step of an Inception row: convolution, norm and ReLU.

    Args:
        filters: output channels.
        kernel: pixels a side, or `(height, width)`.
        stride: 1 or more; a step that strides has no padding.
        padded: whether the grid keeps its size at stride 1.

    Example:
        >>> Conv(192, (1, 7)).padding
        'same'
    """

    filters: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padded: bool = True

    @property
    def padding(self):
        """Keras's word for it."""
        return "same" if self.padded and self.stride == 1 else "valid"


@dataclasses.dataclass(frozen=True)
class Pool:
    """A step of an Inception row: a 3x3 pool, padded at stride 1; a mean leaves the padding out.

    Args:
        kind: `"max"` or `"avg"`.
        stride: 1 or more.

    Example:
        >>> Pool("max", 2).padding
        'valid'
    """

    kind: Literal["max", "avg"]
    stride: int = 1

    @property
    def padding(self):
        """Keras's word for it."""
        return "same" if self.stride == 1 else "valid"


@dataclasses.dataclass(frozen=True, init=False)
class Mix:
    """A step of an Inception row: branches side by side, each a tuple of steps, joined along the channels.

    Example:
        >>> Mix((Conv(64, 1),), (Pool("avg"), Conv(32, 1))).branches[1][0].kind
        'avg'
    """

    branches: tuple[tuple, ...]

    def __init__(self, *branches):
        object.__setattr__(self, "branches", branches)


@dataclasses.dataclass(frozen=True, init=False)
class Residual:
    """A step of an Inception row: x + scale * F(x); F joins branches and brings them to x's channels by a linear 1x1.

    Args:
        *branches: as those of `Mix`.
        scale: factor of the residual branch (arXiv 1602.07261 section 3.3).
        relu: whether a ReLU follows the sum.

    Example:
        >>> Residual((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)), scale=0.17).scale
        0.17
    """

    branches: tuple[tuple, ...]
    scale: float
    relu: bool

    def __init__(self, *branches, scale=1.0, relu=True):
        for field, value in (("branches", branches), ("scale", scale), ("relu", relu)):
            object.__setattr__(self, field, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionSpec(Spec):
    """An Inception network, with or without residual blocks.

    Args:
        stem: the steps down to stride 2; the first is a `Conv`.
        stages: the blocks of each stage, a block being a tuple of steps (`Conv`, `Pool`, `Mix`, `Residual`). Stage 1
            ends at stride 4, stages 2 to 4 are the grids of 35, 17 and 8 a side for 299 pixels.
    """

    stem: tuple
    stages: tuple[tuple[tuple, ...], ...]
    input_size: int = 299
    min_size: int = 75
    epsilon: float = 1e-3
    momentum: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        steps = "steps Conv, Pool and Mix, none empty, with whole numbers from 1"
        stem = _is_chain(self.stem) and isinstance(self.stem[0], Conv)
        _in_range(self, "stem", stem, f"a tuple of {steps}, a Conv first and at most one Mix")
        stages = _is_tuple(self.stages) and all(
            _is_tuple(stage) and all(_is_chain(block, Residual) for block in stage) for stage in self.stages
        )
        _in_range(
            self,
            "stages",
            stages,
            f"a tuple of stages, a stage a tuple of blocks, a block a tuple of {steps}, and at most one Mix or Residual (with a "
            "finite scale) in it",
        )
        if self.stochastic_depth and not self.residuals:
            raise ValueError(
                f"{self.name}: stochastic_depth={self.stochastic_depth!r} does not go with these `stages`: they have no Residual to leave "
                "out; change one of the two."
            )

    @property
    def depths(self):
        """Blocks in each stage."""
        return tuple(len(stage) for stage in self.stages)

    @property
    def residuals(self):
        """Number of residual blocks."""
        return sum(isinstance(step, Residual) for stage in self.stages for block in stage for step in block)


def _is_tuple(value):
    return isinstance(value, tuple) and bool(value)


def _is_chain(steps, *more):
    """Whether these are steps one after the other; a `Residual` stands in a block alone, where `more` has it."""
    joins = [step for step in steps if isinstance(step, (Mix, Residual))] if _is_tuple(steps) else [None] * 2
    return len(joins) < 2 and all(_is_step(step, more) for step in steps)


def _is_step(step, more=()):
    if isinstance(step, Conv):
        sides = step.kernel if isinstance(step.kernel, tuple) else (step.kernel,) * 2
        whole = len(sides) == 2 and all(type(n) is int and n > 0 for n in (step.filters, *sides, step.stride))
        return whole and isinstance(step.padded, bool)
    if isinstance(step, Pool):
        return step.kind in ("max", "avg") and type(step.stride) is int and step.stride > 0
    if isinstance(step, Residual):
        number = type(step.scale) in (int, float) and math.isfinite(step.scale)
        fits = number and isinstance(step.relu, bool) and Residual in more
    else:
        fits = isinstance(step, Mix)
    return fits and bool(step.branches) and all(map(_is_chain, step.branches))


def swap(steps, old, new):
    """Replace one step by others wherever it stands in an Inception row.

    Args:
        steps: the row's `stem` or `stages`, or any tuple of steps or blocks.
        old: the step to replace.
        new: tuple of the steps that stand in its place.

    Returns:
        The same, with every `old` replaced.

    Example:
        >>> swap((Mix((Conv(48, 1), Conv(64, 5))),), Conv(64, 5), (Conv(64, 3), Conv(64, 3)))[0].branches[0][1:]
        (Conv(filters=64, kernel=3, stride=1, padded=True), Conv(filters=64, kernel=3, stride=1, padded=True))
    """
    swapped = []
    for step in steps:
        if step == old:
            swapped.extend(new)
        elif isinstance(step, tuple):
            swapped.append(swap(step, old, new))
        elif isinstance(step, Mix):
            swapped.append(Mix(*swap(step.branches, old, new)))
        elif isinstance(step, Residual):
            swapped.append(Residual(*swap(step.branches, old, new), scale=step.scale, relu=step.relu))
        else:
            swapped.append(step)
    return tuple(swapped)


# A bool is an int to Python, and not here; a whole number will do for a float.
_KINDS = {
    str: ((str,), "text"),
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((float, int), "a number"),
}


def _in_range(spec, knob, fits, allowed):
    if not fits:
        raise ValueError(f"{spec.name}: `{knob}` must be {allowed}. Received: {knob}={getattr(spec, knob)!r}")


_BASIC = dict(block="basic")
# The paper and keras.applications stride in the first 1x1 and norm with these constants; everyone else follows torch.
_A = dict(stride_on="1x1", epsilon=1.001e-5, momentum=0.99, reference="1512.03385, table 1; as keras.applications")
_B = dict(reference="1812.01187, section 4.1, ResNet-B; as timm and torchvision")
_C = dict(deep_stem=True, reference="1812.01187, section 4.1, ResNet-C; as timm")
_D = dict(deep_stem=True, avg_shortcut=True, reference="1812.01187, section 4.2, ResNet-D; as timm")
_PAPER = dict(reference="1512.03385, table 1")
_PLAIN = dict(residual=False, imagenet=False)
_CIFAR = dict(
    widths=(16, 32, 64), strides=(1, 2, 2), block="basic", shortcut="A", stem="cifar", input_size=32, min_size=8, classes=10, imagenet=False,
    reference="1512.03385, section 4.2",
)  # fmt: skip
# For pictures of 48 to 96 pixels, with weights that ship: each stage strides, so that a picture of 64 costs what 32 does
# in the CIFAR nets; a third of ResNet-18's channels. Each block starts as its shortcut.
_SMALL = dict(zero_gamma=True, min_size=16, classes=10, imagenet=False)
# As keras.applications: the stem's convolution bare, strides in a stage's last block (max pool on the shortcut).
_V2 = dict(
    preactivation=True, strides=(2, 2, 2, 1), downsample_in="last", stem_norm=False, bias_without_norm=True,
    epsilon=1.001e-5, momentum=0.99, reference="1603.05027, figure 4e; as keras.applications",
)  # fmt: skip
# As timm, whose weights exist, and so with a bare stem, where the authors' norm and rectify before the first two paths
# part; strides in a stage's first block, as the paper.
_V2_BASIC = dict(
    block="basic", preactivation=True, stem_norm=False, stem_pool_border="nothing", reference="1603.05027, figure 4e; as timm"
)  # fmt: skip
_CIFAR_V2 = dict(preactivation=True, reference="1603.05027, figure 4e and appendix")
# The authors' code strides in the first 1x1 and projects where shapes differ.
_CIFAR_BOTTLENECK = dict(block="bottleneck", stride_on="1x1", shortcut="B")

# Half of ResNet50's channels but for the stem, and Caffe's pool: the network that Yahoo taught.
_THIN = dict(
    widths=(32, 64, 128, 256), stem_width=64, stem_pool_border="end", imagenet=False,
    reference="1512.03385, table 1, at half width; as Yahoo's open_nsfw",
)  # fmt: skip

# Blocks a stage by depth: 18 and 34 count basic blocks (2 layers each), the others bottlenecks (3), plus stem and head.
_18 = _26 = (2, 2, 2, 2)
_34 = _50 = (3, 4, 6, 3)
_101, _152, _200 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)


def _row(name, depths, params, *knobs):
    return ResNetSpec(
        name=name, depths=depths, params=params, **{key: value for part in knobs for key, value in part.items()}
    )


def _times(count, step):
    return ((step,),) * count


# Inception-v3 (1512.00567, figures 5 to 7 and 10), branch by branch as keras.applications has it; 1602.07261 keeps its
# stem for the residual nets.
def _v3_a(pooled):
    return Mix(
        (Conv(64, 1),), (Conv(48, 1), Conv(64, 5)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)), (Pool("avg"), Conv(pooled, 1))
    )  # fmt: skip


def _v3_b(width):
    return Mix(
        (Conv(192, 1),),
        (Conv(width, 1), Conv(width, (1, 7)), Conv(192, (7, 1))),
        (Conv(width, 1), Conv(width, (7, 1)), Conv(width, (1, 7)), Conv(width, (7, 1)), Conv(192, (1, 7))),
        (Pool("avg"), Conv(192, 1)),
    )


_V3_STEM = (Conv(32, 3, 2), Conv(32, 3, padded=False), Conv(64, 3))  # 149, 147, 147
_V3_STAGE1 = ((Pool("max", 2), Conv(80, 1), Conv(192, 3, padded=False)),)  # 73, 73, 71
_V3_C = Mix(
    (Conv(320, 1),),
    (Conv(384, 1), Mix((Conv(384, (1, 3)),), (Conv(384, (3, 1)),))),
    (Conv(448, 1), Conv(384, 3), Mix((Conv(384, (1, 3)),), (Conv(384, (3, 1)),))),
    (Pool("avg"), Conv(192, 1)),
)
_INCEPTION_V3 = dict(
    stem=_V3_STEM,
    stages=(
        _V3_STAGE1,
        ((Pool("max", 2), _v3_a(32)), (_v3_a(64),), (_v3_a(64),)),  # 35
        (
            (Mix((Conv(384, 3, 2),), (Conv(64, 1), Conv(96, 3), Conv(96, 3, 2)), (Pool("max", 2),)),),  # 17
            (_v3_b(128),), *_times(2, _v3_b(160)), (_v3_b(192),),
        ),
        (
            (
                Mix(
                    (Conv(192, 1), Conv(320, 3, 2)),
                    (Conv(192, 1), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2)),
                    (Pool("max", 2),),
                ),  # 8
            ),
            *_times(2, _V3_C),
        ),
    ),
)  # fmt: skip

# Inception-v4 (1602.07261, figures 3 to 9).
_INCEPTION_V4 = dict(
    stem=_V3_STEM,
    stages=(
        (
            (Mix((Pool("max", 2),), (Conv(96, 3, 2),)),),  # 73
            (
                Mix(
                    (Conv(64, 1), Conv(96, 3, padded=False)),
                    (Conv(64, 1), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, padded=False)),
                ),  # 71
            ),
        ),
        (
            (Mix((Conv(192, 3, 2),), (Pool("max", 2),)),),  # 35
            *_times(
                4,
                Mix(
                    (Conv(96, 1),), (Conv(64, 1), Conv(96, 3)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)), (Pool("avg"), Conv(96, 1))
                ),
            ),
        ),
        (
            (Mix((Conv(384, 3, 2),), (Conv(192, 1), Conv(224, 3), Conv(256, 3, 2)), (Pool("max", 2),)),),  # 17
            *_times(
                7,
                Mix(
                    (Conv(384, 1),),
                    (Conv(192, 1), Conv(224, (1, 7)), Conv(256, (7, 1))),
                    (Conv(192, 1), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
                    (Pool("avg"), Conv(128, 1)),
                ),
            ),
        ),
        (
            (
                Mix(
                    (Conv(192, 1), Conv(192, 3, 2)),
                    (Conv(256, 1), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2)),
                    (Pool("max", 2),),
                ),  # 8
            ),
            *_times(
                3,
                Mix(
                    (Conv(256, 1),),
                    (Conv(384, 1), Mix((Conv(256, (1, 3)),), (Conv(256, (3, 1)),))),
                    (Conv(384, 1), Conv(448, (3, 1)), Conv(512, (1, 3)), Mix((Conv(256, (1, 3)),), (Conv(256, (3, 1)),))),
                    (Pool("avg"), Conv(256, 1)),
                ),
            ),
        ),
    ),
)  # fmt: skip

# Inception-ResNet-v1 (figures 10 to 14, table 1). The paper gives scales of 0.1 to 0.3 in section 3.3 and none with the
# figures: these are those of v2. Every block ends in a ReLU, as in the figures.
_INCEPTION_RESNET_V1 = dict(
    stem=_V3_STEM,
    stages=(
        _V3_STAGE1,
        (
            (Conv(256, 3, 2),),  # 35
            *_times(5, Residual((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)), (Conv(32, 1), Conv(32, 3), Conv(32, 3)), scale=0.17)),
        ),
        (
            (Mix((Conv(384, 3, 2),), (Conv(192, 1), Conv(192, 3), Conv(256, 3, 2)), (Pool("max", 2),)),),  # 17
            *_times(10, Residual((Conv(128, 1),), (Conv(128, 1), Conv(128, (1, 7)), Conv(128, (7, 1))), scale=0.1)),
        ),
        (
            (
                Mix(
                    (Conv(256, 1), Conv(384, 3, 2)),
                    (Conv(256, 1), Conv(256, 3, 2)),
                    (Conv(256, 1), Conv(256, 3), Conv(256, 3, 2)),
                    (Pool("max", 2),),
                ),  # 8
            ),
            *_times(5, Residual((Conv(192, 1),), (Conv(192, 1), Conv(192, (1, 3)), Conv(192, (3, 1))), scale=0.2)),
        ),
    ),
)  # fmt: skip

# Inception-ResNet-v2 as TF-slim, keras.applications and timm have it. The paper's figures 15 to 19 differ: they take
# the stem of v4 and other widths (its figure 17 says 1154 channels where code and weights have 1088), and the authors'
# weights are those of this network. keras.applications' differs from timm's in one thing: its norms have no gamma, which
# a file of its own therefore fills with 1 (Family.gamma in weights/layouts.py).
_IRV2_C = ((Conv(192, 1),), (Conv(192, 1), Conv(224, (1, 3)), Conv(256, (3, 1))))
_INCEPTION_RESNET_V2 = dict(
    stem=_V3_STEM,
    stages=(
        _V3_STAGE1,
        (
            (
                Pool("max", 2),  # 35
                Mix(
                    (Conv(96, 1),), (Conv(48, 1), Conv(64, 5)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)), (Pool("avg"), Conv(64, 1))
                ),
            ),
            *_times(10, Residual((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)), (Conv(32, 1), Conv(48, 3), Conv(64, 3)), scale=0.17)),
        ),
        (
            (Mix((Conv(384, 3, 2),), (Conv(256, 1), Conv(256, 3), Conv(384, 3, 2)), (Pool("max", 2),)),),  # 17
            *_times(20, Residual((Conv(192, 1),), (Conv(128, 1), Conv(160, (1, 7)), Conv(192, (7, 1))), scale=0.1)),
        ),
        (
            (
                Mix(
                    (Conv(256, 1), Conv(384, 3, 2)),
                    (Conv(256, 1), Conv(288, 3, 2)),
                    (Conv(256, 1), Conv(288, 3), Conv(320, 3, 2)),
                    (Pool("max", 2),),
                ),  # 8
            ),
            *_times(9, Residual(*_IRV2_C, scale=0.2)),
            (Residual(*_IRV2_C, relu=False),),
            (Conv(1536, 1),),
        ),
    ),
)  # fmt: skip


SPECS = {
    spec.name: spec
    for spec in (
        _row("ResNet18", _18, 11_689_512, _BASIC, _PAPER),
        _row("ResNet34", _34, 21_797_672, _BASIC, _PAPER),
        _row("ResNet26", _26, 15_995_176, _B),
        _row("ResNet50", _50, 25_557_032, _A),
        _row("ResNet101", _101, 44_549_160, _A),
        _row("ResNet152", _152, 60_192_808, _A),
        _row("ResNet50Thin", _50, 6_927_528, _A, _THIN),
        _row("ResNet50B", _50, 25_557_032, _B),
        _row("ResNet101B", _101, 44_549_160, _B),
        _row("ResNet152B", _152, 60_192_808, _B),
        _row("ResNet18C", _18, 11_708_744, _BASIC, _C, dict(imagenet=False)),
        _row("ResNet34C", _34, 21_816_904, _BASIC, _C, dict(imagenet=False)),
        _row("ResNet50C", _50, 25_576_264, _C),
        _row("ResNet101C", _101, 44_568_392, _C),
        _row("ResNet152C", _152, 60_212_040, _C),
        _row("ResNet18D", _18, 11_708_744, _BASIC, _D),
        _row("ResNet34D", _34, 21_816_904, _BASIC, _D),
        _row("ResNet26D", _26, 16_014_408, _D),
        _row("ResNet50D", _50, 25_576_264, _D),
        _row("ResNet101D", _101, 44_568_392, _D),
        _row("ResNet152D", _152, 60_212_040, _D),
        _row("ResNet200D", _200, 64_693_064, _D),
        _row("PlainNet18", _18, 11_515_688, _BASIC, _PAPER, _PLAIN),
        _row("PlainNet34", _34, 21_623_848, _BASIC, _PAPER, _PLAIN),
        _row("ResNet18V2", _18, 11_687_720, _V2_BASIC),
        _row("ResNet34V2", _34, 21_795_880, _V2_BASIC),
        _row("ResNet50V2", _50, 25_568_360, _V2),
        _row("ResNet101V2", _101, 44_577_896, _V2),
        _row("ResNet152V2", _152, 60_236_904, _V2),
        _row("CifarResNet20", (3,) * 3, 269_722, _CIFAR),
        _row("CifarResNet32", (5,) * 3, 464_154, _CIFAR),
        _row("CifarResNet44", (7,) * 3, 658_586, _CIFAR),
        _row("CifarResNet56", (9,) * 3, 853_018, _CIFAR),
        _row("CifarResNet110", (18,) * 3, 1_727_962, _CIFAR),
        _row("CifarResNet110V2", (18,) * 3, 1_727_962, _CIFAR, _CIFAR_V2),
        _row("CifarResNet164V2", (18,) * 3, 1_703_258, _CIFAR, _CIFAR_V2, _CIFAR_BOTTLENECK),
        _row("CifarPlainNet20", (3,) * 3, 269_722, _CIFAR, _PLAIN),
        _row("CifarPlainNet32", (5,) * 3, 464_154, _CIFAR, _PLAIN),
        _row("CifarPlainNet44", (7,) * 3, 658_586, _CIFAR, _PLAIN),
        _row("CifarPlainNet56", (9,) * 3, 853_018, _CIFAR, _PLAIN),
        _row("CifarPlainNet110", (18,) * 3, 1_727_962, _CIFAR, _PLAIN),
        _row(
            "SmallResNet20",
            (3,) * 3,
            269_722,
            _CIFAR,
            _SMALL,
            dict(
                strides=(2, 2, 2),
                input_size=48,
                reference="1512.03385, section 4.2, its first stage striding too",
            ),
        ),
        _row(
            "SmallResNet18D",
            _18,
            1_243_326,
            _BASIC,
            _D,
            _SMALL,
            dict(
                widths=(24, 48, 96, 160),
                input_size=64,
                reference="1812.01187, section 4.2, ResNet-D of fewer channels",
            ),
        ),
        InceptionSpec(
            name="InceptionV3",
            reference="1512.00567, table 1; as keras.applications",
            params=23_834_568,
            **_INCEPTION_V3,
        ),
        InceptionSpec(
            name="InceptionV4", reference="1602.07261, figure 9; as timm", params=42_679_816, **_INCEPTION_V4
        ),
        InceptionSpec(
            name="InceptionResNetV1",
            reference="1602.07261, figures 10 to 15",
            params=22_756_328,
            imagenet=False,
            **_INCEPTION_RESNET_V1,
        ),
        InceptionSpec(
            name="InceptionResNetV2",
            reference="1602.07261, table 1; as timm and keras.applications",
            params=55_843_464,
            **_INCEPTION_RESNET_V2,
        ),
    )
}
