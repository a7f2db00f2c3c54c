"""Inception networks: the steps that they are made of, and a row for each public one."""

import dataclasses
import math
from typing import Literal

from kresnets.specs.row import Spec, check


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
        check(self, "stem", stem, f"a tuple of {steps}, a Conv first and at most one Mix")
        stages = _is_tuple(self.stages) and all(
            _is_tuple(stage) and all(_is_chain(block, Residual) for block in stage) for stage in self.stages
        )
        check(
            self,
            "stages",
            stages,
            f"a tuple of stages, a stage a tuple of blocks, a block a tuple of {steps}, and at most one Mix or "
            "Residual (with a finite scale) in it",
        )
        if self.stochastic_depth and not self.residuals:
            raise ValueError(
                f"{self.name}: stochastic_depth={self.stochastic_depth!r} does not go with these `stages`: they have "
                "no Residual to leave out; change one of the two."
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


def _times(count, step):
    return ((step,),) * count


# Inception-v3 (1512.00567, figures 5 to 7 and 10), branch by branch as keras.applications has it; 1602.07261 keeps its
# stem for the residual nets.
def _v3_a(pooled):
    return Mix(
        (Conv(64, 1),), (Conv(48, 1), Conv(64, 5)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
        (Pool("avg"), Conv(pooled, 1))
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
                    (Conv(96, 1),), (Conv(64, 1), Conv(96, 3)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
                    (Pool("avg"), Conv(96, 1))
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
                    (Conv(384, 1), Conv(448, (3, 1)), Conv(512, (1, 3)),
                     Mix((Conv(256, (1, 3)),), (Conv(256, (3, 1)),))),
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
            *_times(5, Residual((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)),
                                 (Conv(32, 1), Conv(32, 3), Conv(32, 3)), scale=0.17)),
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
# weights are those of this network. keras.applications' differs from timm's in one thing: its norms have no gamma,
# which a file of its own therefore fills with 1 (Family.gamma in weights/layouts.py).
_IRV2_C = ((Conv(192, 1),), (Conv(192, 1), Conv(224, (1, 3)), Conv(256, (3, 1))))
_INCEPTION_RESNET_V2 = dict(
    stem=_V3_STEM,
    stages=(
        _V3_STAGE1,
        (
            (
                Pool("max", 2),  # 35
                Mix(
                    (Conv(96, 1),), (Conv(48, 1), Conv(64, 5)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
                    (Pool("avg"), Conv(64, 1))
                ),
            ),
            *_times(10, Residual((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)),
                                  (Conv(32, 1), Conv(48, 3), Conv(64, 3)), scale=0.17)),
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


ROWS = (
    InceptionSpec(
        name="InceptionV3",
        reference="1512.00567, table 1; as keras.applications",
        params=23_834_568,
        **_INCEPTION_V3,
    ),
    InceptionSpec(name="InceptionV4", reference="1602.07261, figure 9; as timm", params=42_679_816, **_INCEPTION_V4),
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
