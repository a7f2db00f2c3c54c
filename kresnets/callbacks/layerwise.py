"""A learning rate for each group."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kresnets._util.checks import is_number
from kresnets._util.types import Logs, Patterns
from kresnets.callbacks.group import GroupCallback, end_watch, watch_start
from kresnets.keras_hooks import optimizer as optimizer_hooks


class LayerwiseLearningRate(GroupCallback):
    """Give each group its own learning rate (discriminative fine-tuning, arXiv 1801.06146 section 3.1).

    The ratio scales the update itself, so it is right for Adam as for SGD, and the decoupled weight decay with it.
    The optimizer's learning rate stays the one knob: schedules and Keras's callbacks work on it. Never touches
    `trainable`: at ratio 0 no trainable variable changes, while batch norms that are not frozen still move their
    statistics.

    Args:
        ratios: a number: the k-th group below the head learns at `ratios ** k` of the head's rate; or a dict `{group:
            ratio}`, in which a group not named has ratio 1. Ratios are at least 0.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.

    Logs: `learning_rate/<group>` (that of the epoch's middle step; 0 where nothing trains) and `trainable_parameters`.

    Raises:
        ValueError: for negative or non-finite ratios, or a group that the model lacks.

    Example:
        >>> import kresnets
        >>> kresnets.LayerwiseLearningRate(0.3).ratios
        0.3
        >>> kresnets.LayerwiseLearningRate({"stem": 0, "stage4": 0.1}).ratios
        {'stem': 0, 'stage4': 0.1}
    """

    kind = "LayerwiseLearningRate"

    def __init__(self, ratios: float | Mapping[str, float], groups: Patterns = None) -> None:
        super().__init__(groups)
        values: Any = ratios.values() if isinstance(ratios, dict) else (ratios,)
        if not all(is_number(r) and r >= 0 for r in values):
            raise ValueError(
                f"`ratios` must be a number from 0 or a dict {{group: number from 0}}. Received: {ratios!r}"
            )
        self.ratios: Any = dict(ratios) if isinstance(ratios, dict) else ratios

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        optimizer_hooks.check_scales(model.optimizer, self.ratio_by_group(self._layout.names).values())

    def ratio_by_group(self, names: Sequence[str]) -> dict[str, float]:
        """Return `{group: ratio}` for the given groups, the head last."""
        if not isinstance(self.ratios, dict):
            return {name: float(self.ratios) ** (len(names) - 1 - index) for index, name in enumerate(names)}
        unknown = [name for name in self.ratios if name not in names]
        if unknown:
            raise ValueError(
                f"`ratios` names {', '.join(map(repr, unknown))}, but the model's groups are {', '.join(names)}."
            )
        return {name: float(self.ratios.get(name, 1.0)) for name in names}

    def on_train_begin(self, logs: Logs = None) -> None:
        ratios = self.ratio_by_group(self._layout.names)
        scaled = [
            (variable, ratios[name])
            for name, layers in self._layout.groups().items()
            for layer in layers
            for variable in layer.variables
            if ratios[name] != 1.0
        ]
        optimizer_hooks.scale_updates(self.model.optimizer, scaled)
        self.model.make_train_function(force=True)
        watch_start(self.model)  # should this fit be interrupted, the next one takes the scaling back

    def on_train_end(self, logs: Logs = None) -> None:
        super().on_train_end(logs)
        optimizer_hooks.unscale_updates(self.model.optimizer)
        end_watch(self.model)
        # What is traced still scales; the next fit traces anew.
        self.model.train_function = None
