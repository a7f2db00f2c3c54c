"""Where a run stands in its schedule of stages."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kresnets.callbacks.schedule import Plateau, Schedule


@dataclasses.dataclass(frozen=True)
class Progress:
    """Say where a run stands in its schedule: a pure function of what the epochs before measured.

    Args:
        schedule: a `Schedule`.
        epoch: the next epoch.
        starts: first epoch of each stage begun.
        best: best value in the stage, None where there is none yet.
        best_epoch: the epoch that had it.
        waited: epochs since.
        came_from: epoch whose weights this stage starts from where they are to come back; None for those at hand.
        entered: training loss where the stage began: of the last epoch before it, else what the schedule says, or that
            of its own first epoch.
        undone: `(index, loss where it began, loss at its end)` of each stage that was undone.
        undoes: whether this stage starts from the weights with which the one before it began, which was undone; once
            `finished`, whether the last stage is to be undone.
        unknown: an epoch of this stage, or, where it is about to begin, of the one before, whose measurement is
            missing although `restore_best` needs it; None for none.
        finished: whether the last stage is over.

    Example:
        >>> from kresnets.callbacks import Plateau, Progress, Schedule
        >>> schedule = Schedule.of(["head", "stage4"], advance=Plateau(patience=1))
        >>> rows = [{"epoch": epoch, "val_loss": loss} for epoch, loss in enumerate((0.9, 0.5, 0.6))]
        >>> Progress.replay(schedule, rows).starts
        (0, 3)
    """

    schedule: Schedule
    epoch: int = 0
    starts: tuple[int, ...] = (0,)
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    came_from: int | None = None
    entered: float | None = None
    undone: tuple[tuple[int, float, float], ...] = ()
    undoes: bool = False
    unknown: int | None = None
    finished: bool = False

    @classmethod
    def replay(cls, schedule: Schedule, rows: Sequence[Mapping[str, Any]], epoch: int | None = None) -> "Progress":
        """Return the progress before an epoch.

        Args:
            schedule: a `Schedule`.
            rows: dicts with `epoch` and the logs of that epoch, such as those of a run's history.csv; only those
                before `epoch` count.
            epoch: the next epoch. Defaults to None, the one after the last row.

        Raises:
            ValueError: where a stage waits for a plateau and an epoch's measurement is missing.
        """
        known = {row["epoch"]: row for row in rows}
        progress = cls(schedule)
        for past in range(max(known, default=-1) + 1 if epoch is None else epoch):
            progress = progress.after(known.get(past))
        return progress

    @property
    def stage(self) -> int:
        """Index of the stage that the next epoch belongs to."""
        return len(self.starts) - 1

    def after(self, row: Mapping[str, Any] | None) -> "Progress":
        """Return the progress after one more epoch with these logs, None where they are unknown."""
        if self.finished:
            return self
        watch: Any = self.schedule.watch(self.stage)
        value = None if watch is None or row is None else row.get(watch.monitor)
        loss = None if row is None else row.get("loss")
        if watch is not None and value is None and (watch.patience is not None or row is not None):
            raise ValueError(_missing(watch, self.epoch, row))
        better = value is not None and watch.improves(value, self.best)
        unknown = self.unknown if self.epoch > self.starts[-1] else None
        now = dataclasses.replace(
            self,
            epoch=self.epoch + 1,
            best=value if better else self.best,
            best_epoch=self.epoch if better else self.best_epoch,
            waited=0 if better else self.waited + 1,
            entered=self._entered(loss),
            unknown=self.epoch if watch is not None and value is None else unknown,
        )
        return now._advanced(loss) if now._is_over(watch) else now

    def _entered(self, loss):
        if self.entered is not None:
            return self.entered
        return loss if self.schedule.enters is None else self.schedule.enters

    def _is_over(self, watch):
        most = self.schedule.most_epochs(self.stage)
        tired = watch is not None and watch.patience is not None and self.waited >= max(watch.patience, 1)
        return tired or most is not None and self.epoch - self.starts[-1] >= most

    def _advanced(self, loss):
        undoes = self.schedule.diverged(self.entered, loss)
        undone = (*self.undone, (self.stage, self.entered, loss)) if undoes else self.undone
        if self.stage + 1 == len(self.schedule.stages):
            return dataclasses.replace(self, finished=True, undone=undone, undoes=undoes)
        back = self.schedule.restore_best and self.best_epoch not in (None, self.epoch - 1)
        return Progress(
            self.schedule,
            self.epoch,
            (*self.starts, self.epoch),
            came_from=self.best_epoch if back and not undoes else None,
            entered=self.entered if undoes else loss,
            undone=undone,
            undoes=undoes,
            unknown=self.unknown,
        )

    def group_of(self, epoch: int) -> str:
        """Return the group or block from which on layers train in an epoch; where a plateau will decide, the one that
        it is at the latest."""
        starts = list(self.starts)
        while len(starts) < len(self.schedule.stages) and starts[-1] <= epoch:
            most = self.schedule.most_epochs(len(starts) - 1)
            if most is None:
                break
            starts.append(starts[-1] + most)
        return self.schedule.stages[sum(start <= epoch for start in starts) - 1][0]

    def happened(self) -> Schedule:
        """Return the schedule with each stage that began at the length that it had, so that it can be repeated."""
        ends = (*self.starts[1:], self.epoch)
        stages = []
        for index, (start, end) in enumerate(zip(self.starts, ends)):
            if start == end:  # about to begin
                continue
            watch: Any = self.schedule.watch(index) if self.schedule.restore_best else None
            plain = watch is None or watch == Plateau(patience=watch.patience, max_epochs=watch.max_epochs)
            length = end - start if plain else dataclasses.replace(watch, patience=None, max_epochs=end - start)
            stages.append((self.schedule.stages[index][0], length))
        return dataclasses.replace(self.schedule, stages=tuple(stages))


def _missing(watch, epoch, row):
    if row is None:
        return (
            f"The stages cannot go on: {watch.monitor!r} of epoch {epoch + 1} is not known here, and a stage waits for "
            "its plateau; give "
            "StagedUnfreezing the `folder` of the interrupted run and put it before BackupAndRestore, or start "
            "anew (initial_epoch=0)."
        )
    return (
        f"The stages wait for {watch.monitor!r}, which the logs of epoch {epoch + 1} lack (they have "
        f"{', '.join(row)}): give fit validation data for every epoch, or another `monitor`."
    )
