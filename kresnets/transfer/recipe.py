"""How a network is fine-tuned, as data."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kresnets import augmentations
from kresnets._util.checks import asks_what_is_meant, is_number, is_whole
from kresnets._util.types import PathLike
from kresnets.callbacks.schedule import Plateau, Schedule
from kresnets.freezing import BATCHNORM

ADVANCE = ("epochs", "plateau")
SCHEDULES = ("cosine", "constant")
AUGMENT = ("none", "light", "strong")
KEEP = ("best", "last")
HEAD = ("trained", "solved")
AUTO = "auto"
_STEPS = 45  # of a stage, see `Recipe.for_images`
# The numbers of the papers (1801.06146 in spirit), by which nothing was measured.
_TEXTBOOK = dict(
    head_epochs=3, stages=None, epochs_per_stage=3, learning_rate=1e-3, trunk_learning_rate=1e-4, ratio=0.5,
    batchnorm="frozen", optimizer="adamw", weight_decay=1e-4, schedule="cosine", warmup=0.1, augment="light", views=1,
    label_smoothing=0.0, mixup=0.0, ema=None, keep="best", head="trained",
)  # fmt: skip
_LATER = {"momentum": None, "monitor": "val_loss"}  # fields that came later, as they were before
RESOLVED = tuple(_TEXTBOOK)  # the fields that may be left to the rule


@asks_what_is_meant
@dataclasses.dataclass(frozen=True)
class Recipe:
    """Say how to fine-tune: the head first, then the trunk, each earlier group at a smaller rate.

    A field that is left out is `"auto"`: `kresnets.plan`, and with it `fine_tune`, the command line and a search,
    resolve it by the number of images, the steps of an epoch, the size of the validation, the classes, and whether the
    trunk is pretrained. A field that is given stays as it is given. `Recipe.textbook()` has the numbers of the papers.

    Args:
        head_epochs: epochs in which the head alone learns, from 0.
        stages: groups, or blocks such as `"stage3_block4"`, unfrozen one after the other, each with all above it; None
            for the last stage down to `stage2`; what is not named, nor above a named one, stays frozen for ever; `()`
            leaves it at the head.
        epochs_per_stage: epochs after each unfreezing, from 1.
        learning_rate: peak rate while the head learns alone.
        trunk_learning_rate: peak rate once the trunk is unfrozen, for the head too.
        ratio: the k-th group below the head learns at `ratio ** k` of the rate, 0..1 and above (arXiv 1801.06146
            section 3.1).
        batchnorm: `"frozen"` or `"train"`, see `StagedUnfreezing`.
        optimizer: name of a Keras optimizer.
        weight_decay: decoupled, on kernels only; None for the optimizer's own default.
        schedule: `"cosine"`, down to 0 once in each stage, or `"constant"`, on which `ReduceLROnPlateau` and its like
            can work. Where `advance` is `"plateau"`, or there is a `timetable`, it is constant: a cosine needs to know
            its end.
        warmup: share of each stage's steps in which the rate rises from 0, 0..1 (cosine only).
        augment: `"none"`, `"light"` or `"strong"`, or a dict of Keras's layers by name with their arguments; in Python
            a Keras layer or a function of images too, see `kresnets.data.augmentation`.
        views: 1 draws each image's augmentation anew in each epoch, through the whole network; from 2 on so many
            augmented copies of each image are made once, the frozen layers compute them once, and an epoch draws among
            them.
        label_smoothing: 0 <= label_smoothing < 1.
        mixup: alpha of mixup (arXiv 1710.09412); 0 for none.
        ema: momentum of a moving average of the weights, which validation and the result then use; None for none.
        keep: which weights are the result: `"best"`, those of the epoch with the lowest validation loss, or `"last"`.
            With few validation images the lowest loss is mostly chance. Without validation it is the last.
        head: `"solved"`: before the first epoch the head becomes the logistic regression on the trunk's features of the
            training images, unaugmented, its strength chosen by folds (LP-FT, arXiv 2202.10054, whose head is fitted
            too); or `"trained"`: it begins at random. Where the head is not one Dense layer on the trunk's features,
            the `loss` is one's own, or a `keras.distribution` is set, it can only be trained.
        seed: of shuffling, augmentation and dropout. Defaults to 0.
        advance: `"epochs"`, or `"plateau"`: each stage, that of the head too, lasts until the validation loss stops
            improving, whatever `head_epochs` (unless 0) and `epochs_per_stage` say; the last one's plateau ends the
            training. Defaults to `"epochs"`.
        patience: epochs in a row without improvement that are a plateau, from 0. Defaults to 2.
        max_epochs_per_stage: most epochs of a stage that waits for its plateau. Defaults to 10.
        restore_best: whether the best weights of a stage come back before the next one begins, see `StagedUnfreezing`;
            None: where `advance` is `"plateau"`. Defaults to None.
        ramp: epochs, from 0, over which the rate of what a stage unfreezes rises to its full one; None: 2 where
            `advance` is `"plateau"`, else 0 (the cosine has its own warm-up). Defaults to None.
        timetable: the stages with their lengths, `(("head", 3), ("stage4", Plateau(patience=1)))`, in place of
            `head_epochs`, `stages`, `epochs_per_stage` and `advance`; the first one learns at `learning_rate`, the
            others at `trunk_learning_rate`. `with_schedule` reads it from a file. Defaults to None.
        monitor: name in the log by which an epoch is the best (`keep`), and by which stages end where `advance` is
            `"plateau"`: `"val_loss"`, `"val_accuracy"`, `"val_auc"`, `"val_f1"`, `"val_mAP"`, `"val_mae"`, or that of a
            metric of one's own. Another than the loss makes `keep` `"best"` where that is left out. Defaults to
            `"val_loss"`.
        momentum: of an optimizer that has one (sgd, rmsprop), 0 <= momentum < 1; None for its own default. Defaults to
            None.

    Raises:
        ValueError: for a value out of its range.

    Example:
        >>> import kresnets
        >>> recipe = kresnets.Recipe(head_epochs=2, stages=("stage4",), epochs_per_stage=3)
        >>> recipe.plan(("stem", "stage1", "stage2", "stage3", "stage4", "head")), recipe.learning_rate
        ({0: 'head', 2: 'stage4'}, 'auto')
    """

    head_epochs: int | str = AUTO
    stages: tuple[str, ...] | str | None = AUTO
    epochs_per_stage: int | str = AUTO
    learning_rate: float | str = AUTO
    trunk_learning_rate: float | str = AUTO
    ratio: float | str = AUTO
    batchnorm: str = AUTO
    optimizer: str = AUTO
    weight_decay: float | str | None = AUTO
    schedule: str = AUTO
    warmup: float | str = AUTO
    augment: str | dict[str, dict[str, Any]] | Callable = AUTO
    views: int | str = AUTO
    label_smoothing: float | str = AUTO
    mixup: float | str = AUTO
    ema: float | str | None = AUTO
    seed: int = 0
    advance: str = "epochs"
    patience: int = 2
    max_epochs_per_stage: int = 10
    restore_best: bool | None = None
    ramp: float | None = None
    timetable: tuple[tuple[str, int | Plateau], ...] | None = None
    keep: str = AUTO
    head: str = AUTO
    momentum: float | None = None
    monitor: str = "val_loss"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # numpy's numbers are as good as Python's
                object.__setattr__(self, field.name, value.item())
        if self.stages is not None and not self.is_auto("stages"):
            if isinstance(self.stages, str) or not hasattr(self.stages, "__iter__"):
                raise ValueError(
                    "Recipe: `stages` must be a sequence of groups such as ('stage4',). Received: "
                    f"stages={self.stages!r}"
                )
            object.__setattr__(self, "stages", tuple(self.stages))
        number = (int, float)
        rules = (
            ("head_epochs", is_whole(self.head_epochs, 0), "a whole number from 0"),
            (
                "stages",
                self.stages is None or self.is_auto("stages") or all(isinstance(s, str) for s in self.stages),
                "a sequence of groups, or None",
            ),
            ("epochs_per_stage", is_whole(self.epochs_per_stage, 1), "a whole number from 1"),
            ("learning_rate", is_number(self.learning_rate) and self.learning_rate > 0, "a number above 0"),
            (
                "trunk_learning_rate",
                is_number(self.trunk_learning_rate) and self.trunk_learning_rate > 0,
                "a number above 0",
            ),
            ("ratio", is_number(self.ratio) and self.ratio >= 0, "a number from 0"),
            ("batchnorm", _one_of(self.batchnorm, BATCHNORM), f"one of {BATCHNORM}"),
            (
                "optimizer",
                optimizer_class(self.optimizer) is not None,
                "the name of a Keras optimizer such as 'adamw' or 'sgd'",
            ),
            (
                "weight_decay",
                self.weight_decay is None or is_number(self.weight_decay) and self.weight_decay >= 0,
                "a number from 0, or None",
            ),
            ("schedule", _one_of(self.schedule, SCHEDULES), f"one of {SCHEDULES}"),
            ("warmup", is_number(self.warmup) and 0 <= self.warmup <= 1, "a share from 0 to 1"),
            (
                "augment",
                callable(self.augment) or isinstance(self.augment, dict) or _one_of(self.augment, AUGMENT),
                f"one of {AUGMENT}, a dict of Keras's layers with their arguments, a Keras layer, or a function of "
                "images",
            ),
            ("views", is_whole(self.views, 1), "a whole number from 1"),
            ("label_smoothing", is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("mixup", is_number(self.mixup) and 0 <= self.mixup <= 1, "from 0 to 1"),
            ("ema", self.ema is None or isinstance(self.ema, number) and 0 < self.ema < 1, "between 0 and 1, or None"),
            ("seed", is_whole(self.seed, 0) and self.seed < 2**32, "a whole number from 0 to 4294967295"),
            ("advance", _one_of(self.advance, ADVANCE), f"one of {ADVANCE}"),
            ("patience", is_whole(self.patience, 0), "a whole number from 0"),
            ("max_epochs_per_stage", is_whole(self.max_epochs_per_stage, 1), "a whole number from 1"),
            ("restore_best", self.restore_best is None or isinstance(self.restore_best, bool), "True, False or None"),
            ("keep", _one_of(self.keep, KEEP), f"one of {KEEP}"),
            ("head", _one_of(self.head, HEAD), f"one of {HEAD}"),
            ("monitor", isinstance(self.monitor, str) and self.monitor != "", "the name of a column of the log"),
            (
                "momentum",
                self.momentum is None or is_number(self.momentum) and 0 <= self.momentum < 1,
                "from 0 to below 1, or None",
            ),
            ("ramp", self.ramp is None or is_number(self.ramp) and self.ramp >= 0, "a number from 0, or None"),
        )
        for field, fits, allowed in rules:
            if not fits and not self.is_auto(field):
                also = ", or 'auto'" if field in RESOLVED else ""
                raise ValueError(
                    f"Recipe: `{field}` must be {allowed}{also}. Received: {field}={getattr(self, field)!r}"
                )
        if self.momentum is not None and not (not self.is_auto("optimizer") and _has_momentum(self.optimizer)):
            raise ValueError(
                f"Recipe: momentum={self.momentum} is for an optimizer that has one: give optimizer='sgd' or 'rmsprop' "
                f"with it. Received: optimizer={self.optimizer!r}"
            )
        if isinstance(self.augment, dict):
            augmentations.layers_of(self.augment)
        Plateau(self.monitor)  # whose name has to tell its direction
        if self.timetable is not None:
            object.__setattr__(self, "timetable", self._checked_timetable())
        elif self.head_epochs == 0 and self.stages == ():
            raise ValueError("Recipe: with head_epochs=0 and stages=() nothing would ever learn; give one of them.")

    def as_data(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; a layer of one's own as its class and config, a function by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for later, default in _LATER.items():  # as in the files of before there was one
            if fields[later] == default:
                del fields[later]
        if not isinstance(self.augment, (str, dict)):
            fields["augment"] = _as_text(self.augment)
        if self.timetable is not None:
            fields["timetable"] = [
                [name, dataclasses.asdict(length) if isinstance(length, Plateau) else length]
                for name, length in self.timetable
            ]
        return fields | {
            "stages": None if self.stages is None else self.stages if self.is_auto("stages") else list(self.stages)
        }

    @property
    def augment_told(self) -> str:
        """What `augment` is, in words."""
        return augmentations.told(self.augment) if isinstance(self.augment, dict) else str(self.as_data()["augment"])

    def is_auto(self, field: str) -> bool:
        """Whether a field is left to the rule."""
        value = getattr(self, field)
        return field in RESOLVED and isinstance(value, str) and value == AUTO

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Names of the fields that are left to the rule."""
        return tuple(field for field in RESOLVED if self.is_auto(field))

    def needs(self, *fields: str) -> None:
        """Raise a ValueError where one of these fields is left to the rule."""
        if missing := [field for field in fields if self.is_auto(field)]:
            raise ValueError(
                f"This Recipe leaves {', '.join(missing)} to be resolved, which takes the images to learn from: "
                "kresnets.plan(model, train, validation, recipe) does it; or give these fields, or take "
                "Recipe.textbook()."
            )

    @classmethod
    def textbook(cls, **fields: Any) -> "Recipe":
        """Return the recipe with the numbers of the papers: the head 3 epochs at 1e-3, then the last stage down to
        stage2, 3 epochs each at 1e-4, each group at half the rate of the one above.

        Args:
            **fields: fields that are to be otherwise.

        Example:
            >>> import kresnets
            >>> kresnets.Recipe.textbook(head_epochs=1).epochs(("stem", "stage1", "stage2", "stage3", "head"))
            7
        """
        return cls(**_TEXTBOOK | fields)

    @classmethod
    def from_scratch(cls, epochs: int = 20, learning_rate: float = 3e-3, seed: int = 0) -> "Recipe":
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
        return cls.textbook(
            head_epochs=0, stages=("stem",), epochs_per_stage=epochs, batchnorm="train", seed=seed, **rates
        )

    @classmethod
    def for_images(cls, images: int, batch_size: int = 32, **fields: Any) -> "Recipe":
        """Return the textbook's recipe with stages as long as so many images need, at ten times its rates.

        A stage of 3 epochs is 9 steps where there are 75 images, in which next to nothing is learned; so it takes the
        epochs that make 45 steps, and 3 at least. What `Recipe()` resolves to is better (docs/default.md); this stays
        for comparing.

        Args:
            images: number of images to learn from, from 1.
            batch_size: images in a step. Defaults to 32.
            **fields: fields of `Recipe` that are to be otherwise.

        Raises:
            ValueError: for a number that is not whole or below 1, or a field out of its range.

        Example:
            >>> import kresnets
            >>> [kresnets.Recipe.for_images(n).head_epochs for n in (75, 250, 2000)]
            [15, 6, 3]
        """
        _check_counts("for_images", images=images, batch_size=batch_size)
        epochs = max(3, -(-_STEPS // -(-int(images) // int(batch_size))))
        measured = {
            "head_epochs": epochs,
            "epochs_per_stage": epochs,
            "learning_rate": 1e-2,
            "trunk_learning_rate": 1e-3,
        }
        return cls.textbook(**measured | fields)

    @classmethod
    def bit(cls, images: int, batch_size: int = 32, **fields: Any) -> "Recipe":
        """Return BiT's rule for so many images (arXiv 1912.11370, section 3.3, "BiT-HyperRule").

        SGD of momentum 0.9 and peak rate 0.003 for a batch of 512 (in proportion for others, and no less than for 32),
        over the whole network from the first step on, without weight decay: 500 steps below 20,000 images, 10,000 below
        500,000, else 20,000; mixup of 0.1 from 20,000 on. Where the authors divide the rate by 10 three times after
        a warm-up, it falls along a cosine here. Their images are 128 of 160 pixels a side where they come smaller than
        96, else 384 of 448: give `load_data` and the network such a size.

        Args:
            images: number of images to learn from, from 1.
            batch_size: images in a step. Defaults to 32.
            **fields: fields of `Recipe` that are to be otherwise.

        Raises:
            ValueError: for a number that is not whole or below 1, or a field out of its range.

        Example:
            >>> import kresnets
            >>> recipe = kresnets.Recipe.bit(2000)
            >>> recipe.epochs_per_stage, recipe.momentum, recipe.mixup
            (8, 0.9, 0.0)
        """
        _check_counts("bit", images=images, batch_size=batch_size)
        few = images < 20_000
        steps, warmup = (500, 0.2) if few else (10_000, 0.05) if images < 500_000 else (20_000, 0.025)
        rate = 0.003 * max(32, batch_size) / 512
        rule = dict(
            head_epochs=0, stages=("stem",), epochs_per_stage=max(1, round(steps / -(-images // batch_size))),
            learning_rate=rate, trunk_learning_rate=rate, ratio=1.0, batchnorm="train", optimizer="sgd", momentum=0.9,
            weight_decay=None, warmup=warmup, mixup=0.0 if few else 0.1, keep="last",
        )  # fmt: skip
        return cls.textbook(**rule | fields)

    def with_schedule(self, path: PathLike) -> "Recipe":
        """Return this recipe with the stages of a TOML file in place of its own.

        Args:
            path: of a file such as each run writes, see `StagedUnfreezing.write_schedule`.

        Raises:
            ValueError: for a file that is absent, no schedule, or leaves its last stage without an end.

        Example:
            >>> import kresnets
            >>> from kresnets.callbacks import Schedule
            >>> Schedule((("head", 3), ("stage4", 2))).write("/tmp/schedule.toml")
            >>> kresnets.Recipe.textbook().with_schedule("/tmp/schedule.toml").epochs(("stem", "stage4", "head"))
            5
        """
        read = Schedule.from_file(path)
        try:
            timetable: Any = read.stages
            return dataclasses.replace(
                self, timetable=timetable, restore_best=read.restore_best, ramp=read.ramp, advance="epochs"
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _checked_timetable(self):
        # A list of lists too: that is what JSON makes of it.
        pairs = isinstance(self.timetable, (list, tuple)) and all(
            isinstance(stage, (list, tuple)) and len(stage) == 2 for stage in self.timetable
        )
        if not pairs:
            raise ValueError(
                "Recipe: `timetable` must be pairs of a group and its length such as (('head', 3),). Received: "
                f"{self.timetable!r}"
            )
        try:
            stages = tuple(
                (name, Plateau(**length) if isinstance(length, dict) else length) for name, length in self.timetable
            )
        except TypeError:
            raise ValueError(
                f"Recipe: `timetable` has a length that is no Plateau. Received: {self.timetable!r}"
            ) from None
        try:
            schedule = Schedule(stages)
        except ValueError as error:
            raise ValueError(f"Recipe: `timetable` is not one: {error}") from None
        for index, (name, _) in enumerate(stages):
            if schedule.most_epochs(index) is None:
                raise ValueError(f"Recipe: `timetable` gives {name!r} no end: give it epochs, or max_epochs.")
        return stages

    def staging(self, names: Sequence[str]) -> Schedule:
        """Return the `kresnets.callbacks.Schedule` for a model with these groups, the head last."""
        listening = self.advance == "plateau"
        stages: Any = self.timetable
        if stages is None:
            self.needs("head_epochs", "stages", "epochs_per_stage")
            trunk = tuple(reversed(names[2:-1])) if self.stages is None else self.stages
            first = ((names[-1], self.head_epochs),) if self.head_epochs else ()
            stages = (*first, *((group, self.epochs_per_stage) for group in trunk))
            if listening:
                plateau = Plateau(self.monitor, patience=self.patience, max_epochs=self.max_epochs_per_stage)
                stages = tuple((group, plateau) for group, _ in stages)
        restore = listening if self.restore_best is None else self.restore_best
        return Schedule(stages, restore, 2 * listening if self.ramp is None else self.ramp)

    def plan(self, names: Sequence[str]) -> dict[int, str]:
        """Return `{first epoch: group or block from which on layers learn}` for a model with these groups, the head
        last; where stages wait for a plateau, the latest first epochs that can be."""
        plan: dict[int, str] = {}
        epoch, schedule = 0, self.staging(names)
        for index, (group, _) in enumerate(schedule.stages):
            plan[epoch] = group
            epoch += schedule.most_epochs(index) or 0
        return plan

    def epochs(self, names: Sequence[str]) -> int:
        """Return the number of epochs in all, the most where stages wait for a plateau."""
        schedule = self.staging(names)
        return sum(schedule.most_epochs(index) or 0 for index in range(len(schedule.stages)))

    @property
    def rate(self) -> str:
        """The schedule of the learning rate that is used: constant where a cosine would not know its end."""
        if self.advance == "epochs" and self.timetable is None:
            self.needs("schedule")
        return "constant" if self.advance == "plateau" or self.timetable is not None else self.schedule

    def peaks(self, names: Sequence[str]) -> dict[str, Any]:
        """Return `{group or block: peak learning rate of the stage that it begins}`."""
        self.needs("learning_rate", "trunk_learning_rate", *(() if self.timetable else ("head_epochs",)))
        head_first = bool(self.head_epochs) or self.timetable is not None
        return {
            group: self.learning_rate if head_first and index == 0 else self.trunk_learning_rate
            for index, (group, _) in enumerate(self.staging(names).stages)
        }

    def peak_rates(self, names: Sequence[str]) -> dict[int, float]:
        """Return `{first epoch: peak learning rate}`, one entry a stage, see `plan`."""
        return dict(zip(self.plan(names), self.peaks(names).values()))


def optimizer_class(name: Any) -> type | None:
    """Return the Keras optimizer of this name in any case, or None. (`keras.optimizers.get` of 3.15 does not know
    Lamb.)"""
    classes = {key.lower(): value for key, value in vars(keras.optimizers).items() if isinstance(value, type)}
    found = classes.get(name.lower()) if isinstance(name, str) else None
    if found is None or not issubclass(found, keras.optimizers.Optimizer):
        return None
    return found if "learning_rate" in inspect.signature(found).parameters else None


def _check_counts(rule, **counts):
    for name, value in counts.items():
        if not is_whole(value, 1):
            raise ValueError(f"Recipe.{rule}: `{name}` must be a whole number from 1. Received: {value!r}")


def _has_momentum(optimizer):
    return "momentum" in inspect.signature(optimizer_class(optimizer)).parameters


def _without(config, names):
    """Return a config without the entries of these names, and those that are None, all the way down."""
    if isinstance(config, dict):
        return {key: _without(one, names) for key, one in config.items() if key not in names and one is not None}
    return [_without(one, names) for one in config] if isinstance(config, (list, tuple)) else config


def _as_text(augment):
    if isinstance(augment, keras.layers.Layer):
        settings = _without(augment.get_config(), ("name", "trainable", "dtype", "registered_name", "module"))
        return f"{type(augment).__name__}({', '.join(f'{key}={value}' for key, value in settings.items())})"
    if (kind := getattr(augment, "kind", None)) is not None:  # a `kresnets.data.Augmentation`
        return kind if isinstance(kind, str) else _as_text(kind)
    return f"{getattr(augment, '__module__', '')}.{getattr(augment, '__qualname__', type(augment).__name__)}"


def _one_of(value, allowed):
    return isinstance(value, str) and value in allowed
