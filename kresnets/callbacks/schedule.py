"""When a stage of unfreezing ends, as data: schedules and their files. (Learning rates: transfer/lr_schedule.py.)"""

import dataclasses
import json
import math
import numbers
import re
import tomllib
from typing import Any

from kresnets._util import files
from kresnets._util.checks import asks_what_is_meant, is_number, is_whole
from kresnets._util.types import PathLike

_RISING = re.compile(
    r"acc|accuracy|auc|precision|recall|sensitivity|specificity|f\d|fbeta|score|iou|dice|r2|similarity|correlation|"
    r"kappa|map"
)
_FALLING = re.compile(r"loss|error|mse|mae|mape|msle|rmse|crossentropy|divergence|kld|hinge|poisson|logcosh|cosh")


@asks_what_is_meant
@dataclasses.dataclass(frozen=True)
class Plateau:
    """Say that a stage lasts until what is measured stops improving, as `keras.callbacks.EarlyStopping` judges it.

    Each stage counts anew: its first epoch is its best so far.

    Args:
        monitor: name in the logs of every epoch. Defaults to `"val_loss"`.
        patience: epochs in a row without improvement after which the stage ends, from 0; None never ends it before
            `max_epochs`. Defaults to 2.
        min_delta: least change that counts as an improvement, from 0. Defaults to 0.
        max_epochs: most epochs, from 1, or None for no bound. Defaults to 10.
        mode: `"min"`, `"max"`, or `"auto"` to tell by the name: losses and errors fall, accuracies, areas and scores
            rise. Defaults to `"auto"`.

    Raises:
        ValueError: for a value out of its range, or a name that does not tell its direction.

    Example:
        >>> import kresnets
        >>> kresnets.Plateau("val_accuracy", patience=1).improves(0.9, 0.8)
        True
    """

    monitor: str = "val_loss"
    patience: int | None = 2
    min_delta: float = 0.0
    max_epochs: int | None = 10
    mode: str = "auto"

    def __post_init__(self):
        rules = (
            ("monitor", isinstance(self.monitor, str) and self.monitor != "", "the name of a column of the logs"),
            ("patience", self.patience is None or is_whole(self.patience, 0), "a whole number from 0, or None"),
            ("min_delta", is_number(self.min_delta) and self.min_delta >= 0, "a number from 0"),
            ("max_epochs", self.max_epochs is None or is_whole(self.max_epochs, 1), "a whole number from 1, or None"),
            ("mode", self.mode in ("auto", "min", "max"), "'auto', 'min' or 'max'"),
        )
        for field, fits, allowed in rules:
            if not fits:
                raise ValueError(f"Plateau: `{field}` must be {allowed}. Received: {field}={getattr(self, field)!r}")
        self.rises()

    def rises(self) -> bool:
        """Return whether higher is better."""
        if self.mode != "auto":
            return self.mode == "max"
        words = self.monitor.lower().split("_")
        for pattern, rising in ((_FALLING, False), (_RISING, True)):
            if any(pattern.fullmatch(word) for word in words):
                return rising
        raise ValueError(
            f"Plateau: the name {self.monitor!r} does not tell whether higher or lower is better: give mode='max' or "
            "'min'."
        )

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far, None where there is none; NaN never is."""
        if math.isnan(value):
            return False
        if best is None:
            return True
        return value - self.min_delta > best if self.rises() else value + self.min_delta < best


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Say what is unfrozen in which order, and how long each stage takes.

    Args:
        stages: tuple of `(group or block, length)`; a length is a whole number of epochs, a `Plateau`, or, for the
            last one, None: until the fit ends. `Schedule.of` reads shorter forms.
        restore_best: whether the best weights of a stage come back at its end. Defaults to False.
        ramp: epochs over which a newly unfrozen group's rate rises. Defaults to 0.
        undo: whether a stage that ends with a higher training loss than it began with is undone. Defaults to False.
        enters: a training loss that the first stage has to stay below, where one is known; None for that of its own
            first epoch. Defaults to None.

    Raises:
        ValueError: for anything else.

    Example:
        >>> from kresnets.callbacks import Plateau, Schedule
        >>> Schedule.of([("head", 3), "stage4"], advance=Plateau(patience=1)).stages[0]
        ('head', 3)
    """

    stages: tuple[tuple[str, int | Plateau | None], ...]
    restore_best: bool = False
    ramp: float = 0
    undo: bool = False
    enters: float | None = None

    def __post_init__(self):
        for name, length in self.stages:
            if not isinstance(name, str) or not (length is None or isinstance(length, Plateau) or is_whole(length, 1)):
                raise ValueError(
                    "A stage must be a group, or a pair of a group and a whole number of epochs from 1 or a "
                    f"kresnets.Plateau. Received: {(name, length)!r}"
                )
        if not self.stages:
            raise ValueError("`stages` is empty: name at least one group, such as 'head'.")
        open_end = [
            name
            for index, (name, length) in enumerate(self.stages[:-1])
            if self.most_epochs(index) is None and getattr(length, "patience", None) is None
        ]
        if open_end:
            raise ValueError(
                f"`stages` leaves open how long {open_end[0]!r} takes: give `advance` (a kresnets.Plateau, or "
                "epochs), or a pair such as "
                f"({open_end[0]!r}, 3)."
            )
        if not isinstance(self.restore_best, bool):
            raise ValueError(f"`restore_best` must be True or False. Received: restore_best={self.restore_best!r}")
        if not is_number(self.ramp) or self.ramp < 0:
            raise ValueError(f"`ramp` must be a number of epochs from 0. Received: ramp={self.ramp!r}")

    @classmethod
    def of(cls, stages: Any, advance: Any = None, restore_best: bool = False, ramp: float = 0) -> "Schedule":
        """Read the forms that `StagedUnfreezing` takes; see there."""
        if advance is not None and not isinstance(advance, Plateau) and not is_whole(advance, 1):
            raise ValueError(
                "`advance` must be a kresnets.Plateau, a whole number of epochs from 1, or None. Received: "
                f"advance={advance!r}"
            )
        if isinstance(stages, dict):
            if advance is not None:
                raise ValueError(
                    "`advance` goes with a list of stages: a dict {epoch: group} says already when each begins."
                )
            return cls(_from_epochs(stages), restore_best, ramp)
        if not isinstance(stages, (list, tuple)):
            raise ValueError(
                f"`stages` must be a dict {{epoch: group}} such as {{0: 'head', 3: 'stage4'}}, or a list such as "
                f"['head', 'stage4']. Received: {stages!r}"
            )
        pairs = [stage if isinstance(stage, (list, tuple)) else (stage, advance) for stage in stages]
        wrong = [pair for pair in pairs if len(pair) != 2]
        if wrong:
            raise ValueError(
                f"A stage in a list must be a group, or a pair of a group and its length. Received: {wrong[0]!r}"
            )
        return cls(tuple(map(tuple, pairs)), restore_best, ramp)

    def watch(self, stage: int) -> Plateau | None:
        """Return the `Plateau` that the stage of this index is measured by, or None where nothing is measured."""
        length = self.stages[stage][1]
        if isinstance(length, Plateau):
            return length if self.restore_best or length.patience is not None else None
        return Plateau(patience=None, max_epochs=length) if self.restore_best else None

    @property
    def listens(self) -> bool:
        """Whether anything depends on what is measured."""
        return any(self.watch(stage) for stage in range(len(self.stages)))

    def diverged(self, before: float | None, after: float | None) -> bool:
        """Whether a stage is to be undone whose training loss was `before` where it began, and `after` at its end."""
        if not self.undo or before is None or after is None:
            return False
        # A tenth, and a hundredth where there is next to no loss left: less is the draw of the augmentation.
        return not after <= before + max(0.1 * abs(before), 0.01)

    @property
    def waits(self) -> bool:
        """Whether any stage waits for its plateau."""
        return any(getattr(length, "patience", None) is not None for _, length in self.stages)

    def most_epochs(self, stage: int) -> int | None:
        """Return the most epochs that the stage of this index takes, None where it has no bound."""
        length = self.stages[stage][1]
        return length.max_epochs if isinstance(length, Plateau) else length

    @classmethod
    def from_file(cls, path: PathLike) -> "Schedule":
        """Read a TOML file as `write` writes it.

        Args:
            path: of the file.

        Raises:
            ValueError: for a file that is absent or no schedule.

        Example:
            >>> from kresnets.callbacks import Schedule
            >>> Schedule((("head", 3), ("stage4", None))).write("/tmp/schedule.toml")
            >>> Schedule.from_file("/tmp/schedule.toml").stages
            (('head', 3), ('stage4', None))
        """
        try:
            with open(path, "rb") as file:
                fields = tomllib.load(file)
            entries = fields.pop("stage", [])
            if not isinstance(entries, list):
                raise ValueError("its stages must be tables [[stage]]")
            stages = tuple(_from_table(entry) for entry in entries)
            unknown = sorted(set(fields) - {"restore_best", "ramp"})
            if unknown:
                raise ValueError(f"there is no setting {unknown[0]!r}; known are restore_best, ramp and [[stage]]")
            return cls(stages, **fields)
        except (OSError, ValueError) as error:  # no TOML is a ValueError too
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"{path} is no schedule of stages: {(reason or '').rstrip('.')}.") from None

    def write(self, path: PathLike) -> None:
        """Write the schedule as a TOML file, which a person can edit and `from_file` reads."""
        lines = [f"restore_best = {_toml(self.restore_best)}", f"ramp = {_toml(self.ramp)}  # epochs"]
        for name, length in self.stages:
            lines += ["", "[[stage]]", f"group = {_toml(name)}", *_table_lines(length)]
        files.write_text(path, "\n".join(lines) + "\n")


def _from_epochs(stages):
    whole = all(is_whole(epoch, 0) for epoch in stages)
    if not whole or not all(isinstance(name, str) for name in stages.values()):
        raise ValueError(
            f"`stages` must be a dict {{epoch: group}} such as {{0: 'head', 3: 'stage4'}}. Received: {stages!r}"
        )
    if 0 not in stages:
        raise ValueError(f"The first stage must start at epoch 0, for example {{0: 'head', ...}}. Received: {stages!r}")
    starts = sorted(stages)
    lengths = [int(later - start) for start, later in zip(starts, starts[1:])]
    return tuple((stages[start], length) for start, length in zip(starts, [*lengths, None]))


def _from_table(table):
    table = dict(table)
    known = {"group", "epochs", *(field.name for field in dataclasses.fields(Plateau))}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"a [[stage]] has no {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if "group" not in table:
        raise ValueError("each [[stage]] needs a group")
    group = table.pop("group")
    if "epochs" not in table:
        return group, Plateau(**{"max_epochs": None, **table}) if table else None
    both = sorted({"patience", "max_epochs"} & set(table))
    if both:
        raise ValueError(f"the [[stage]] {group!r} gives epochs and {both[0]}: keep one of them")
    epochs = table.pop("epochs")
    if not is_whole(epochs, 1):
        raise ValueError(f"the epochs of {group!r} must be a whole number from 1, not {epochs!r}")
    return group, Plateau(patience=None, max_epochs=epochs, **table) if table else epochs


def _table_lines(length):
    if length is None:
        return []
    if not isinstance(length, Plateau):
        return [f"epochs = {length}"]
    values = {name: value for name, value in dataclasses.asdict(length).items() if value is not None}
    if length.patience is None and length.max_epochs is not None:
        values["epochs"] = values.pop("max_epochs")
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value):
    if isinstance(value, str):  # JSON's strings are TOML's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))
