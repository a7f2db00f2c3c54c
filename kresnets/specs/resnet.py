"""Residual networks and their plain twins: the knobs, and a row for each public one."""

import dataclasses
import math
from typing import Literal

from kresnets.specs.row import Spec, check


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
            `widths` says in all. ResNeXt-50 32x4d: cardinality 32, 4; Wide-ResNet-50-2 (1605.07146): cardinality 1,
            128.
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
        norm: `"batch"`, `"group"` (of 32 groups of channels, or as many as divide both numbers; arXiv 1803.08494: the
            same in a batch of any size), or `"none"`, where each convolution has a bias instead.
        standardize_weights: whether each filter of a convolution is brought to mean 0 and variance 1 before it is used
            (arXiv 1903.10520), as in BiT.
        activation: between convolutions and after the sum, one of Keras's names.
        se_ratio: hidden channels of the squeeze-and-excitation that ends a residual branch over its outputs, in steps
            of 8 as timm's (arXiv 1709.01507 section 3); 0 leaves it out.
        stem_pool: what halves the stem's output: a 3x3 `"max"` pool or a 3x3 `"conv"` of stride 2 with its norm
            (ResNet-RS, arXiv 2103.07579 section 4).
        anti_alias: whether what strides is blurred by 1 2 1 first, but for the first convolution and the shortcuts
            (arXiv 1904.11486; as timm's resnetblur): the 3x3 and the pool stride by 1, and the blur by 2.
        output_stride: pixels of the image to one of the last feature map, each way. At 16 or 8 the last stages do not
            stride, and their 3x3 are dilated instead (arXiv 1706.05587 section 3): the same weights look as far.
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
    norm: Literal["batch", "group", "none"] = "batch"
    standardize_weights: bool = False
    activation: Literal["relu", "silu", "gelu", "elu", "mish", "hard_silu"] = "relu"
    se_ratio: float = 0.0
    stem_pool: Literal["max", "conv"] = "max"
    anti_alias: bool = False
    output_stride: Literal[8, 16, 32] = 32

    def __post_init__(self):
        super().__post_init__()
        for field in dataclasses.fields(ResNetSpec):
            if getattr(field.type, "__origin__", None) is Literal:
                check(
                    self, field.name, getattr(self, field.name) in field.type.__args__, f"one of {field.type.__args__}"
                )
        for knob in ("depths", "widths", "strides"):
            values = getattr(self, knob)
            fits = isinstance(values, tuple) and all(type(value) is int and value > 0 for value in values)
            check(self, knob, fits, "a tuple of whole numbers from 1")
        for knob in ("stem_width", "width_per_group"):
            value = getattr(self, knob)
            check(self, knob, value is None or type(value) is int and value > 0, "None or a whole number from 1")
        check(self, "cardinality", self.cardinality >= 1, "a whole number from 1")
        check(self, "se_ratio", 0 <= self.se_ratio <= 1, "0 to 1")
        if not len(self.depths) == len(self.widths) == len(self.strides) > 0:
            raise ValueError(
                f"{self.name}: `depths`, `widths` and `strides` need one entry a stage each. Received: "
                f"depths={self.depths}, "
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
        no_norm, dilated = self.norm == "none", self.output_stride < 32
        undilated = 4 * math.prod(self.strides) > self.output_stride
        other_stem, rectified = cifar or self.stem_pool == "conv", self.activation == "relu"
        misfits = (
            ("block", "stride_on", basic and self.stride_on == "1x1", "a basic block has no 1x1 to stride"),
            ("block", "cardinality", basic and self.cardinality > 1, "only a bottleneck's 3x3 is grouped"),
            ("block", "width_per_group", basic and self.width_per_group, "only a bottleneck's 3x3 has groups"),
            ("widths", "cardinality", uneven, "each group needs as many whole channels as the others"),
            ("widths", "width_per_group", broken, "it rises as they do and must come out whole in each stage"),
            ("stem", "deep_stem", cifar and self.deep_stem, "the deep stem replaces the 7x7, which a CIFAR stem lacks"),
            (stem, "deep_stem", self.deep_stem and outputs[0] < 2, "its first convolutions have half the channels"),
            ("stem", "stem_pool_border", cifar and (bare_border or at_end), "a CIFAR stem has no pool"),
            ("stem_norm", "stem_pool_border", self.stem_norm and bare_border, "after a ReLU it is the same as zeros"),
            ("stem_norm", "stem_pool_border", not self.stem_norm and at_end, "zeros are the least only after a ReLU"),
            ("shortcut", "avg_shortcut", a and self.avg_shortcut, "the pool stands before a projection; A has none"),
            ("shortcut", narrows, self.residual and a and narrowing, "A can add channels of zeros, not take any away"),
            ("residual", "shortcut", plain and self.shortcut == "C", "a plain net has no shortcut to project"),
            ("residual", "avg_shortcut", plain and self.avg_shortcut, "a plain net has no shortcut"),
            ("residual", "zero_gamma", plain and self.zero_gamma, "a plain block at 0 lets nothing through"),
            ("residual", "stochastic_depth", plain and self.stochastic_depth, "a plain block left out leaves nothing"),
            ("residual", "preactivation", plain and self.preactivation, "the plain twins are those of v1"),
            ("preactivation", "zero_gamma", not v1 and self.zero_gamma, "no norm ends a pre-activation branch"),
            ("preactivation", "stem_norm", v1 and not self.stem_norm, "a v1 stem is normed"),
            ("preactivation", "downsample_in", v1 and self.downsample_in == "last", "only v2 strides there"),
            ("preactivation", "bias_without_norm", v1 and self.bias_without_norm, "in v1 a norm follows each one"),
            ("downsample_in", "avg_shortcut", no_projection and self.avg_shortcut, "the last block projects nothing"),
            ("norm", "zero_gamma", no_norm and self.zero_gamma, "there is no norm whose gamma could be 0"),
            ("norm", "bias_without_norm", no_norm and self.bias_without_norm, "without norms each one has a bias"),
            ("stem", "stem_pool", cifar and self.stem_pool == "conv", "a CIFAR stem has no pool"),
            ("stem_pool_border", "stem_pool", self.stem_pool == "conv" and bare_border, "there is no pool"),
            ("stem_pool_border", "stem_pool", self.stem_pool == "conv" and at_end, "there is no pool"),
            ("stem_norm", "stem_pool", not self.stem_norm and self.stem_pool == "conv", "a bare stem ends in a pool"),
            ("stem_pool_border", "activation", not rectified and at_end, "zeros are the least only after a ReLU"),
            ("preactivation", "se_ratio", not v1 and self.se_ratio, "a pre-activation branch ends with its sum"),
            ("preactivation", "anti_alias", not v1 and self.anti_alias, "what strides there was activated before"),
            ("anti_alias", "stem", self.anti_alias and other_stem, "the blur stands behind a max pool"),
            ("anti_alias", "stem_pool_border", self.anti_alias and at_end, "its pool has zeros on all sides"),
            ("anti_alias", "stride_on", self.anti_alias and self.stride_on == "1x1", "the blur follows the 3x3"),
            ("anti_alias", "strides", self.anti_alias and not {1, 2} >= {*self.strides}, "the blur strides by 2"),
            ("anti_alias", "output_stride", self.anti_alias and dilated, "nothing there strides to be blurred"),
            ("strides", "output_stride", dilated and not undilated, "it strides no further than that"),
            ("stem", "output_stride", cifar and dilated, "a CIFAR net strides by less than that"),
            ("downsample_in", "output_stride", self.downsample_in == "last" and dilated, "only the first is dilated"),
            ("stride_on", "output_stride", self.stride_on == "1x1" and dilated, "only a 3x3 can be dilated"),
        )  # fmt: skip
        for one, other, misfit, why in misfits:
            if misfit:
                raise ValueError(
                    f"{self.name}: {one}={getattr(self, one)!r} does not go with {other}={getattr(self, other)!r}: "
                    f"{why}; "
                    "change one of the two."
                )

    def grids(self):
        """Return (stride, dilation of its first block, dilation of the others) of each stage."""
        before, dilation, found = 4, 1, []
        for stride in self.strides:
            first = dilation
            if self.output_stride < 32 and before >= self.output_stride:
                dilation, stride = dilation * stride, 1
            before *= stride
            found.append((stride, first, dilation))
        return found

    @property
    def expansion(self):
        """Output channels of a block over its width."""
        return 4 if self.block == "bottleneck" else 1

    def inner_width(self, width):
        """Channels of the 3x3 convolutions of a stage that `widths` gives this width."""
        if self.width_per_group is None:
            return width
        return self.cardinality * self.width_per_group * width // self.widths[0]


_BASIC = dict(block="basic")
# The paper and keras.applications stride in the first 1x1 and norm with these constants; everyone else follows torch.
_A = dict(stride_on="1x1", epsilon=1.001e-5, momentum=0.99, reference="1512.03385, table 1; as keras.applications")
_B = dict(reference="1812.01187, section 4.1, ResNet-B; as timm and torchvision")
_C = dict(deep_stem=True, reference="1812.01187, section 4.1, ResNet-C; as timm")
_D = dict(deep_stem=True, avg_shortcut=True, reference="1812.01187, section 4.2, ResNet-D; as timm")
_PAPER = dict(reference="1512.03385, table 1")
_PLAIN = dict(residual=False, imagenet=False)
_CIFAR = dict(
    widths=(16, 32, 64), strides=(1, 2, 2), block="basic", shortcut="A", stem="cifar", input_size=32, min_size=8,
    classes=10, imagenet=False,
    reference="1512.03385, section 4.2",
)  # fmt: skip
# For pictures of 48 to 96 pixels, with weights that ship: each stage strides, so that a picture of 64 costs what 32
# does in the CIFAR nets; a third of ResNet-18's channels. Each block starts as its shortcut.
_SMALL = dict(zero_gamma=True, min_size=16, classes=10, imagenet=False)
# As keras.applications: the stem's convolution bare, strides in a stage's last block (max pool on the shortcut).
_V2 = dict(
    preactivation=True, strides=(2, 2, 2, 1), downsample_in="last", stem_norm=False, bias_without_norm=True,
    epsilon=1.001e-5, momentum=0.99, reference="1603.05027, figure 4e; as keras.applications",
)  # fmt: skip
# As timm, whose weights exist, and so with a bare stem, where the authors' norm and rectify before the first two paths
# part; strides in a stage's first block, as the paper.
_V2_BASIC = dict(
    block="basic", preactivation=True, stem_norm=False, stem_pool_border="nothing",
    reference="1603.05027, figure 4e; as timm"
)  # fmt: skip
_CIFAR_V2 = dict(preactivation=True, reference="1603.05027, figure 4e and appendix")
# The authors' code strides in the first 1x1 and projects where shapes differ.
_CIFAR_BOTTLENECK = dict(block="bottleneck", stride_on="1x1", shortcut="B")

_THIN = dict(widths=(32, 64, 128, 256), imagenet=False)
# The stem of whole width and Caffe's pool: the network that Yahoo trained.
_OPEN_NSFW = dict(
    stem_width=64, stem_pool_border="end", reference="1512.03385, table 1, at half width; as Yahoo's open_nsfw"
)

_DISTILLED = dict(input_size=128, reference="1812.01187, section 4.2, at half width")

_NEXT = dict(reference="1611.05431, table 1; as timm and torchvision")
_WIDE = dict(width_per_group=128, reference="1605.07146, section 2.3; as timm and torchvision")
_RS = dict(se_ratio=0.25, stem_pool="conv", reference="2103.07579, table 11; as timm")
# As timm, whose files are the authors': the first convolution bare, and zeros around the pool after it.
_BIT = dict(
    preactivation=True, stem_norm=False, norm="group", standardize_weights=True,
    reference="1912.11370, section 3.1; as timm",
)  # fmt: skip

# Blocks a stage by depth: 18 and 34 count basic blocks (2 layers each), the others bottlenecks (3), plus stem and head.
_18 = _26 = (2, 2, 2, 2)
_34 = _50 = (3, 4, 6, 3)
_101, _152, _200 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)


def _row(name, depths, params, *knobs):
    return ResNetSpec(
        name=name, depths=depths, params=params, **{key: value for part in knobs for key, value in part.items()}
    )


ROWS = (
    _row("ResNet18", _18, 11_689_512, _BASIC, _PAPER),
    _row("ResNet34", _34, 21_797_672, _BASIC, _PAPER),
    _row("ResNet26", _26, 15_995_176, _B),
    _row("ResNet50", _50, 25_557_032, _A),
    _row("ResNet101", _101, 44_549_160, _A),
    _row("ResNet152", _152, 60_192_808, _A),
    _row("ResNet50Thin", _50, 6_927_528, _A, _THIN, _OPEN_NSFW),
    _row("ResNet50B", _50, 25_557_032, _B),
    _row("ResNet101B", _101, 44_549_160, _B),
    _row("ResNet152B", _152, 60_192_808, _B),
    _row("ResNet18C", _18, 11_708_744, _BASIC, _C, dict(imagenet=False)),
    _row("ResNet34C", _34, 21_816_904, _BASIC, _C, dict(imagenet=False)),
    _row("ResNet50C", _50, 25_576_264, _C),
    _row("ResNet101C", _101, 44_568_392, _C),
    _row("ResNet152C", _152, 60_212_040, _C),
    _row("ResNet18D", _18, 11_708_744, _BASIC, _D),
    _row("ResNet18DThin", _18, 3_063_448, _BASIC, _D, _THIN, _DISTILLED),
    _row("ResNet34D", _34, 21_816_904, _BASIC, _D),
    _row("ResNet26D", _26, 16_014_408, _D),
    _row("ResNet50D", _50, 25_576_264, _D),
    _row("ResNet101D", _101, 44_568_392, _D),
    _row("ResNet152D", _152, 60_212_040, _D),
    _row("ResNet200D", _200, 64_693_064, _D),
    _row("ResNeXt50_32x4d", _50, 25_028_904, _NEXT, dict(cardinality=32, width_per_group=4)),
    _row("ResNeXt101_32x4d", _101, 44_177_704, _NEXT, dict(cardinality=32, width_per_group=4)),
    _row("ResNeXt101_64x4d", _101, 83_455_272, _NEXT, dict(cardinality=64, width_per_group=4)),
    _row("WideResNet50_2", _50, 68_883_240, _WIDE),
    _row("WideResNet101_2", _101, 126_886_696, _WIDE),
    _row("SEResNet50", _50, 28_088_024, dict(se_ratio=1 / 16, reference="1709.01507, table 1; as timm")),
    _row("ResNetBlur50", _50, 25_557_032, dict(anti_alias=True, reference="1904.11486, section 3.3; as timm")),
    _row("ResNetRS50", _50, 35_691_912, _D, _RS),
    _row("ResNetRS101", _101, 63_618_696, _D, _RS),
    _row("ResNetRS152", _152, 86_621_576, _D, _RS),
    _row("BiT50x1", _50, 25_549_352, _BIT),
    _row("BiT101x1", _101, 44_541_480, _BIT),
    _row("PlainNet18", _18, 11_515_688, _BASIC, _PAPER, _PLAIN),
    _row("PlainNet34", _34, 21_623_848, _BASIC, _PAPER, _PLAIN),
    _row("ResNet18V2", _18, 11_687_720, _V2_BASIC),
    _row("ResNet34V2", _34, 21_795_880, _V2_BASIC),
    _row("ResNet50V2", _50, 25_568_360, _V2),
    _row("ResNet101V2", _101, 44_577_896, _V2),
    _row("ResNet152V2", _152, 60_236_904, _V2),
    # The same for n = 1, as MLPerf Tiny has it (arXiv 2106.07597, table 1): for tiny images, and to try things out.
    _row("CifarResNet8", (1,) * 3, 75_770, _CIFAR),
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
)
