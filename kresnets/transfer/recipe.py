"""How a network is fine-tuned, as data."""

import dataclasses
import inspect

import keras

from kresnets.transfer.freezing import BATCHNORM

SCHEDULES = ("cosine", "constant")
AUGMENT = ("none", "light", "strong")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Say how to fine-tune: the head alone first, then the trunk from its end, each earlier group at a smaller rate.

    Args:
        head_epochs: epochs in which the head alone learns. Defaults to 3.
        stages: groups, or blocks such as `"stage3_block4"`, thawed one after the other; None for the last stage down
            to `stage2`; what is not named, nor above a named one, stays frozen for ever; `()` leaves it at the head.
            Defaults to None.
        epochs_per_stage: epochs after each unfreezing. Defaults to 3.
        learning_rate: peak rate while the head learns alone. Defaults to 1e-3.
        trunk_learning_rate: peak rate once the trunk thaws, for the head too. Defaults to 1e-4.
        ratio: the k-th group below the head learns at `ratio ** k` of the rate, 0..1 and above (arXiv 1801.06146
            section 3.1). Defaults to 0.5.
        batchnorm: `"frozen"` or `"train"`, see `StagedUnfreezing`. Defaults to `"frozen"`.
        optimizer: name of a Keras optimizer. Defaults to `"adamw"`.
        weight_decay: decoupled, on kernels only; None for the optimizer's own default. Defaults to 1e-4.
        schedule: `"cosine"`, down to 0 once in each stage, or `"constant"`, on which `ReduceLROnPlateau` and its like
            can work. Defaults to `"cosine"`.
        warmup: share of each stage's steps in which the rate rises from 0, 0..1 (cosine only). Defaults to 0.1.
        augment: `"none"`, `"light"` or `"strong"`, see `kresnets.data.augmentation`. Defaults to `"light"`.
        views: augmented copies of each image that the feature cache keeps. Without the cache there is only 1. Defaults
            to 1.
        label_smoothing: 0 <= label_smoothing < 1. Defaults to 0.
        mixup: alpha of mixup (arXiv 1710.09412); 0 for none. Defaults to 0.
        ema: momentum of a moving average of the weights, which validation and the result then use; None for none.
            Defaults to None.
        seed: of shuffling, augmentation and dropout. Defaults to 0.

    Raises:
        ValueError: for a value out of its range.

    Example:
        >>> import kresnets
        >>> kresnets.Recipe(head_epochs=2, stages=("stage4",)).plan(("stem", "stage1", "stage2", "stage3", "stage4", "head"))
        {0: 'head', 2: 'stage4'}
    """

    head_epochs: int = 3
    stages: tuple[str, ...] | None = None
    epochs_per_stage: int = 3
    learning_rate: float = 1e-3
    trunk_learning_rate: float = 1e-4
    ratio: float = 0.5
    batchnorm: str = "frozen"
    optimizer: str = "adamw"
    weight_decay: float | None = 1e-4
    schedule: str = "cosine"
    warmup: float = 0.1
    augment: str = "light"
    views: int = 1
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.stages is not None:
            if isinstance(self.stages, str) or not hasattr(self.stages, "__iter__"):
                raise ValueError(
                    f"Recipe: `stages` must be a sequence of groups such as ('stage4',). Received: stages={self.stages!r}"
                )
            object.__setattr__(self, "stages", tuple(self.stages))
        number = (int, float)
        rules = (
            ("head_epochs", _whole(self.head_epochs, 0), "a whole number from 0"),
            (
                "stages",
                self.stages is None or all(isinstance(s, str) for s in self.stages),
                "a sequence of groups, or None",
            ),
            ("epochs_per_stage", _whole(self.epochs_per_stage, 1), "a whole number from 1"),
            ("learning_rate", _number(self.learning_rate) and self.learning_rate > 0, "a number above 0"),
            (
                "trunk_learning_rate",
                _number(self.trunk_learning_rate) and self.trunk_learning_rate > 0,
                "a number above 0",
            ),
            ("ratio", _number(self.ratio) and self.ratio >= 0, "a number from 0"),
            ("batchnorm", self.batchnorm in BATCHNORM, f"one of {BATCHNORM}"),
            (
                "optimizer",
                optimizer_class(self.optimizer) is not None,
                "the name of a Keras optimizer such as 'adamw' or 'sgd'",
            ),
            (
                "weight_decay",
                self.weight_decay is None or _number(self.weight_decay) and self.weight_decay >= 0,
                "a number from 0, or None",
            ),
            ("schedule", self.schedule in SCHEDULES, f"one of {SCHEDULES}"),
            ("warmup", _number(self.warmup) and 0 <= self.warmup <= 1, "a share from 0 to 1"),
            ("augment", self.augment in AUGMENT, f"one of {AUGMENT}"),
            ("views", self.views == 1, "1: more views need the feature cache, which this version does not have"),
            ("label_smoothing", _number(self.label_smoothing) and 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("mixup", _number(self.mixup) and 0 <= self.mixup <= 1, "from 0 to 1"),
            ("ema", self.ema is None or isinstance(self.ema, number) and 0 < self.ema < 1, "between 0 and 1, or None"),
            ("seed", _whole(self.seed, 0) and self.seed < 2**32, "a whole number from 0 to 4294967295"),
        )
        for field, fits, allowed in rules:
            if not fits:
                raise ValueError(f"Recipe: `{field}` must be {allowed}. Received: {field}={getattr(self, field)!r}")
        if not self.head_epochs and self.stages == ():
            raise ValueError("Recipe: with head_epochs=0 and stages=() nothing would ever learn; give one of them.")

    @classmethod
    def from_scratch(cls, epochs=20, learning_rate=3e-3, seed=0):
        """Return the recipe in which everything trains from the first epoch at one rate, batch norms included.

        Args:
            epochs: whole number from 1. Defaults to 20.
            learning_rate: peak rate. Defaults to 3e-3.
            seed: see above. Defaults to 0.

        Example:
            >>> import kresnets
            >>> kresnets.Recipe.from_scratch(5).epochs(("stem", "stage1", "head"))
            5
        """
        rates = dict(learning_rate=learning_rate, trunk_learning_rate=learning_rate, ratio=1.0)
        return cls(head_epochs=0, stages=("stem",), epochs_per_stage=epochs, batchnorm="train", seed=seed, **rates)

    def plan(self, names):
        """Return `{first epoch: group or block from which on layers learn}` for a model with these groups, the head
        last."""
        stages = tuple(reversed(names[2:-1])) if self.stages is None else self.stages
        plan = {0: names[-1]} if self.head_epochs else {}
        plan |= {self.head_epochs + k * self.epochs_per_stage: stage for k, stage in enumerate(stages)}
        return plan

    def epochs(self, names):
        """Return the number of epochs in all."""
        return self.head_epochs + self.epochs_per_stage * (len(self.plan(names)) - bool(self.head_epochs))

    def peak_rates(self, names):
        """Return `{first epoch: peak learning rate}`, one entry a stage."""
        return {
            epoch: self.learning_rate if self.head_epochs and epoch == 0 else self.trunk_learning_rate
            for epoch in self.plan(names)
        }


def optimizer_class(name):
    """Return the Keras optimizer of this name in any case, or None. (`keras.optimizers.get` of 3.15 does not know
    Lamb.)"""
    classes = {key.lower(): value for key, value in vars(keras.optimizers).items() if isinstance(value, type)}
    found = classes.get(name.lower()) if isinstance(name, str) else None
    usable = found is not None and issubclass(found, keras.optimizers.Optimizer)
    return found if usable and "learning_rate" in inspect.signature(found).parameters else None


def _whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value):
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )
