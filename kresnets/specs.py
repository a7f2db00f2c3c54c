"""Every architecture as a frozen row of data.

A network is a `ResNetSpec`; a variant is the same row with other values, never another function. `SPECS` holds the
rows of the public builders by their names; `dataclasses.replace(SPECS["ResNet50D"], ...)` makes a row of one's own
for `kresnets.build`.
"""

import dataclasses
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
        _in_range(self, "epsilon", self.epsilon > 0, "above 0")
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
        stem_norm: whether the stem's last convolution is normed and rectified (always so in v1).
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
    stem_norm: bool = True
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
        _in_range(
            self,
            "stem_width",
            self.stem_width is None or type(self.stem_width) is int and self.stem_width > 0,
            "None or a whole number from 1",
        )
        if not len(self.depths) == len(self.widths) == len(self.strides) > 0:
            raise ValueError(
                f"{self.name}: `depths`, `widths` and `strides` need one entry a stage each. Received: depths={self.depths}, "
                f"widths={self.widths}, strides={self.strides}"
            )
        outputs = [self.stem_width or self.widths[0], *(width * self.expansion for width in self.widths)]
        narrowing = any(later < earlier for earlier, later in zip(outputs, outputs[1:]))
        stem = "stem_width" if self.stem_width else "widths"
        narrows = stem if outputs[1] < outputs[0] else "widths"
        misfits = (
            (
                "block",
                "stride_on",
                self.block == "basic" and self.stride_on == "1x1",
                "a basic block has no 1x1 to stride",
            ),
            (
                "stem",
                "deep_stem",
                self.stem == "cifar" and self.deep_stem,
                "the deep stem replaces the 7x7, which a CIFAR stem lacks",
            ),
            (
                "shortcut",
                "avg_shortcut",
                self.shortcut == "A" and self.avg_shortcut,
                "the pool belongs before a projection, and A has none",
            ),
            (
                stem,
                "deep_stem",
                self.deep_stem and outputs[0] < 2,
                "its first two convolutions have half of the channels",
            ),
            (
                "shortcut",
                narrows,
                self.residual and self.shortcut == "A" and narrowing,
                "A can add channels of zeros, not take any away",
            ),
            ("residual", "avg_shortcut", not self.residual and self.avg_shortcut, "a plain net has no shortcut"),
            (
                "residual",
                "zero_gamma",
                not self.residual and self.zero_gamma,
                "a plain block that starts at 0 lets nothing through",
            ),
            ("residual", "preactivation", not self.residual and self.preactivation, "the plain twins are those of v1"),
            (
                "preactivation",
                "zero_gamma",
                self.preactivation and self.zero_gamma,
                "no norm ends a pre-activation branch",
            ),
            ("preactivation", "stem_norm", not self.preactivation and not self.stem_norm, "a v1 stem is normed"),
            (
                "preactivation",
                "downsample_in",
                not self.preactivation and self.downsample_in == "last",
                "only v2 nets stride in the last block",
            ),
            (
                "preactivation",
                "bias_without_norm",
                not self.preactivation and self.bias_without_norm,
                "in v1 a norm follows every convolution",
            ),
            (
                "downsample_in",
                "avg_shortcut",
                self.downsample_in == "last" and self.avg_shortcut and self.shortcut == "B",
                "the last block's shortcut is an identity there, with no projection to pool for",
            ),
        )
        for one, other, misfit, why in misfits:
            if misfit:
                raise ValueError(
                    f"{self.name}: {one}={getattr(self, one)!r} does not go with {other}={getattr(self, other)!r}: {why}; change one of the two."
                )

    @property
    def expansion(self):
        """Output channels of a block over its width."""
        return 4 if self.block == "bottleneck" else 1


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

# Blocks a stage by depth: 18 and 34 count basic blocks (2 layers each), the others bottlenecks (3), plus stem and head.
_18 = _26 = (2, 2, 2, 2)
_34 = _50 = (3, 4, 6, 3)
_101, _152, _200 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)


def _row(name, depths, params, *knobs):
    return ResNetSpec(
        name=name, depths=depths, params=params, **{key: value for part in knobs for key, value in part.items()}
    )


SPECS = {
    spec.name: spec
    for spec in (
        _row("ResNet18", _18, 11_689_512, _BASIC, _PAPER),
        _row("ResNet34", _34, 21_797_672, _BASIC, _PAPER),
        _row("ResNet26", _26, 15_995_176, _B),
        _row("ResNet50", _50, 25_557_032, _A),
        _row("ResNet101", _101, 44_549_160, _A),
        _row("ResNet152", _152, 60_192_808, _A),
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
        _row("CifarResNet20", (3,) * 3, 269_722, _CIFAR),
        _row("CifarResNet32", (5,) * 3, 464_154, _CIFAR),
        _row("CifarResNet44", (7,) * 3, 658_586, _CIFAR),
        _row("CifarResNet56", (9,) * 3, 853_018, _CIFAR),
        _row("CifarResNet110", (18,) * 3, 1_727_962, _CIFAR),
        _row("CifarPlainNet20", (3,) * 3, 269_722, _CIFAR, _PLAIN),
        _row("CifarPlainNet32", (5,) * 3, 464_154, _CIFAR, _PLAIN),
        _row("CifarPlainNet44", (7,) * 3, 658_586, _CIFAR, _PLAIN),
        _row("CifarPlainNet56", (9,) * 3, 853_018, _CIFAR, _PLAIN),
        _row("CifarPlainNet110", (18,) * 3, 1_727_962, _CIFAR, _PLAIN),
    )
}
