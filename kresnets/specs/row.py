"""What every network needs, and how a row says that a value does not fit."""

import dataclasses
import math


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
                check(self, field.name, type(getattr(self, field.name)) in kinds, allowed)
        check(self, "name", self.name, "text")
        check(self, "classes", self.classes >= 1, "a whole number from 1")
        check(self, "dropout", 0 <= self.dropout < 1, "0 <= dropout < 1")
        check(self, "stochastic_depth", 0 <= self.stochastic_depth < 1, "0 <= stochastic_depth < 1")
        check(self, "epsilon", 0 < self.epsilon < math.inf, "above 0 and finite")
        check(self, "momentum", 0 <= self.momentum < 1, "0 <= momentum < 1")
        check(self, "min_size", 1 <= self.min_size <= self.input_size, f"1 to input_size={self.input_size}")


# A bool is an int to Python, and not here; a whole number will do for a float.
_KINDS = {
    str: ((str,), "text"),
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((float, int), "a number"),
}


def check(spec, knob, fits, allowed):
    if not fits:
        raise ValueError(f"{spec.name}: `{knob}` must be {allowed}. Received: {knob}={getattr(spec, knob)!r}")
