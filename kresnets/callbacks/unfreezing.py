"""Unfreezing in stages, by the epoch or by what validation says."""

from collections.abc import Sequence
from typing import Any

import h5py
import keras

from kresnets._util.types import Logs, PathLike, Patterns
from kresnets.callbacks.group import GroupCallback
from kresnets.callbacks.progress import Progress
from kresnets.callbacks.schedule import Schedule
from kresnets.callbacks.stage_checkpoint import StageCheckpoint
from kresnets.freezing import check_batchnorm, set_trainable
from kresnets.groups import Layout
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.keras_hooks.model import before_load_weights, forget_load_weights, watch_start


class StagedUnfreezing(GroupCallback):
    """Train the head alone first, then unfreeze the trunk from its end (gradually, arXiv 1801.06146 section 3.3).

    What is never listed stays frozen for good. The optimizer always holds exactly the trainable variables; the state
    of those that already trained (slots, iterations, averages, loss scale, accumulated gradients) survives each
    unfreezing. No recompile; the step is traced once more at each stage. After `fit`, flags and optimizer stay as the
    last stage left them; another `fit` starts afresh.

    A stage takes a fixed number of epochs or lasts until what is measured stops improving (a `Plateau`). When the
    last stage of a list is over, training stops.

    Args:
        stages: dict `{epoch: group or block}`: from that epoch (counted from 0) on, this one and all above it train;
            the first epoch must be 0, and the last stage lasts until the fit ends. Or a list of groups or blocks,
            each alone, to take as long as `advance` says, or in a pair with its own length: `[("head", 3),
            ("stage4", Plateau(patience=1)), "stage3"]`. Or a `kresnets.callbacks.Schedule`. Later ones must go
            deeper.
        batchnorm: `"frozen"` keeps the trunk's batch norms (statistics, gamma, beta) as they are in unfrozen groups
            too; `"train"` unfreezes them with their group. Defaults to `"frozen"`.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.
        advance: how long a stage of the list takes that does not say so itself: a `Plateau` or a whole number of
            epochs from 1; None lets the last one last until the fit ends. Defaults to None.
        restore_best: whether, before the next one begins and when training ends, the weights of the stage's best epoch
            come back with their optimizer state (the step count too, unless the learning rate is a schedule of it;
            never the rate). The best is that of the stage's `Plateau`, of `val_loss` in one of a fixed number of
            epochs. Defaults to False.
        ramp: epochs, from 0, over which the rate of what a stage unfreezes rises linearly, step by step, to its full
            one; the first stage unfreezes nothing. An unfrozen variable joins with empty slots while Adam's step count
            goes on, so that its first step would be 3.2 times the rate, not once; with a ramp of n steps it is 3.2 / n
            times. Defaults to 0.
        folder: where to keep what a resume after a kill needs: `stages.json` (what each epoch measured) and, with
            `restore_best`, `stage-best-*.npz`. Only a `Plateau` and `restore_best` need it. Defaults to None, in
            memory. Put this callback before BackupAndRestore then.

    Logs: `learning_rate/<group>` (that of the epoch's middle step; 0 where nothing trains) and `trainable_parameters`.

    Raises:
        ValueError: for stages that are none of these, name a group that the model lacks, wait for what the logs lack,
            or cannot be resumed by what is known.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20(input_shape=(16, 16, 3))
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> x, y = np.zeros((4, 16, 16, 3)), np.zeros(4)
        >>> unfreezing = kresnets.StagedUnfreezing({0: "head", 1: "stage3"})
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[unfreezing])
        >>> history.history["trainable_parameters"]
        [650, 203402]
    """

    kind = "StagedUnfreezing"

    def __init__(
        self,
        stages: Any,
        batchnorm: str = "frozen",
        groups: Patterns = None,
        *,
        advance: Any = None,
        restore_best: bool = False,
        ramp: float = 0,
        folder: PathLike | None = None,
    ) -> None:
        super().__init__(groups)
        check_batchnorm(batchnorm)
        if isinstance(stages, Schedule):
            if advance is not None or restore_best or ramp:
                raise ValueError(
                    "A Schedule says already what `advance`, `restore_best` and `ramp` would: leave them out."
                )
            self.schedule = stages
        else:
            self.schedule = Schedule.of(stages, advance, restore_best, ramp)
        self.stages = dict(sorted(stages.items())) if isinstance(stages, dict) else self.schedule.stages
        self.batchnorm, self.folder = batchnorm, folder
        self._rows: list = []
        self._recalled: Any = None
        self._checkpoint: Any = None
        self._forget()

    @classmethod
    def from_file(
        cls, path: PathLike, batchnorm: str = "frozen", groups: Patterns = None, *, folder: PathLike | None = None
    ) -> "StagedUnfreezing":
        """Read the stages from a TOML file, such as `write_schedule` writes; see `StagedUnfreezing` for the arguments.

        Example:
            >>> from kresnets import StagedUnfreezing
            >>> from kresnets.callbacks import Schedule
            >>> Schedule((("head", 3), ("stage4", 2))).write("/tmp/schedule.toml")
            >>> StagedUnfreezing.from_file("/tmp/schedule.toml").stages
            (('head', 3), ('stage4', 2))
        """
        return cls(Schedule.from_file(path), batchnorm, groups, folder=folder)

    @property
    def history_as_stages(self) -> Schedule:
        """The schedule as it happened in the last fit, each stage at the length that it had, as a `Schedule`."""
        if self.progress is None or not self.progress.epoch:
            raise ValueError("No epoch has been trained yet: fit first.")
        return self.progress.happened()

    def write_schedule(self, path: PathLike) -> None:
        """Write the schedule as it happened as a TOML file, which `from_file` repeats with fixed epochs."""
        self.history_as_stages.write(path)

    def recall(self, rows: Sequence[Any]) -> None:
        """Take the measurements of an interrupted run's epochs from its history, in place of the folder's.

        Args:
            rows: list of dicts with `epoch` and the logs of that epoch; only those before the first epoch of the next
                fit count.
        """
        self._recalled = list(rows)

    def check(self, model_layout: Layout) -> None:
        """Raise a ValueError unless the stages are those of a model with this `kresnets.groups.Layout`."""
        for _, layer in model_layout.places:
            if isinstance(layer, keras.layers.SpectralNormalization):
                raise ValueError(
                    f"{layer.name!r} is a SpectralNormalization, which rewrites its weights even when frozen: it "
                    "cannot be staged."
                )
        starts = [model_layout.first(name) for name, _ in self.schedule.stages]
        if any(later >= earlier for earlier, later in zip(starts, starts[1:])):
            raise ValueError(
                f"Each stage must go deeper than the one before it ({' > '.join(model_layout.names[::-1])}). Received: "
                f"{self.stages}"
            )

    def stage_of(self, epoch: int) -> str:
        """Return the group or block from which on layers train in this epoch; for epochs to come, where a plateau
        will decide, the one that it is at the latest."""
        return (self.progress or Progress(self.schedule)).group_of(epoch)

    def set_model(self, model: keras.Model) -> None:
        if self.model is not model:
            self._rows, self._checkpoint = [], None
        super().set_model(model)
        self.check(self._layout)
        optimizer_hooks.check_scales(model.optimizer, [self.schedule.ramp and 0.5])
        self._forget()
        self._watch_restore(model)

    def _forget(self):
        self.progress = self._current = self._past_end = self._steps = None

    def on_train_begin(self, logs: Logs = None) -> None:
        if self.schedule.ramp:
            watch_start(self.model)  # should this fit be interrupted, the next one takes the ramps back

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        forget_load_weights(self.model)
        self._anew = self.progress is None
        if self._anew:
            self._resume(epoch)
        self._anew |= self._enter(self.stage_of(epoch))

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if not self._began:
            # Not in on_epoch_begin: only by now has SwapEMAWeights put the weights that learn back into the model.
            self._begin_stage()
        super().on_train_batch_begin(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._began:
            self._steps = optimizer_hooks.steps(self.model.optimizer) - optimizer_hooks.marked(self.model.optimizer)[0]
        super().on_epoch_end(epoch, logs)
        if self._past_end is not None:
            return
        watch = self.schedule.watch(self.progress.stage)
        wanted = {watch.monitor} if watch else set()
        wanted |= {"loss"} if self.schedule.undo else set()
        measured = {key: float(value) for key, value in (logs or {}).items() if key in wanted}
        self.progress = self.progress.after(logs if watch and watch.monitor not in measured else measured)
        self._rows.append({"epoch": epoch, **measured})
        if self.schedule.listens or self.schedule.undo:
            self._checkpoint.write_rows(self._rows)
        if self.progress.finished:
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        arrays, progress = self._past_end, self.progress
        if progress is None and self._recalled:  # a finished run that is asked for again: no epoch began
            self._checkpoint = self._checkpoint or StageCheckpoint(self.folder, self.schedule, self.model)
            progress = Progress.replay(self.schedule, self._recalled)
        if progress is not None and progress.finished and progress.undoes:
            arrays = self._checkpoint.read(progress.starts[-1], "begin")
        elif (
            progress is not None
            and self.schedule.restore_best
            and progress.best_epoch not in (None, progress.epoch - 1)
        ):
            arrays = self._checkpoint.read(progress.best_epoch)
        if arrays is not None:
            optimizer_hooks.put_back(self.model, arrays)
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)  # once more, as fit does
        super().on_train_end(logs)
        if self.schedule.ramp:
            optimizer_hooks.unscale_updates(self.model.optimizer)
            self.model.train_function = None  # what is traced still ramps; the next fit traces anew
        self._recalled = self._past_end = None

    def _resume(self, epoch):
        """Find the stage of the first epoch of a fit by what the epochs before it measured."""
        self._checkpoint = self._checkpoint or StageCheckpoint(self.folder, self.schedule, self.model)
        if epoch == 0:
            self._checkpoint.clear()
            self._rows = []
        rows = self._recalled if self._recalled is not None else self._checkpoint.read_rows(epoch) or self._rows
        self._rows = [row for row in rows if row["epoch"] < epoch]
        self.progress = Progress.replay(self.schedule, self._rows, epoch)
        if self.progress.unknown is not None:
            raise ValueError(
                f"The stages cannot go on at epoch {epoch + 1} and restore the best weights: what epoch "
                f"{self.progress.unknown + 1} measured is not known here; give StagedUnfreezing the `folder` of the "
                "interrupted run, or start anew (initial_epoch=0)."
            )
        if self.progress.finished:
            # Cut off between its last epoch and its end. Keras trains at least one batch: it will be undone.
            self.model.stop_training = True

    def _begin_stage(self):
        progress = self.progress
        if progress.finished and self._past_end is None:
            self._past_end = optimizer_hooks.capture(self.model)
        begins = progress.epoch == progress.starts[-1]
        if begins and progress.undoes and not progress.finished:
            optimizer_hooks.put_back(self.model, self._checkpoint.read(progress.starts[-2], "begin"))
        elif begins and progress.came_from is not None:
            optimizer_hooks.put_back(self.model, self._checkpoint.read(progress.came_from))
        elif self.schedule.restore_best and progress.best_epoch == progress.epoch - 1:
            self._checkpoint.write(progress.best_epoch, optimizer_hooks.capture(self.model))
        if begins and self.schedule.undo:
            self._checkpoint.write(progress.epoch, optimizer_hooks.capture(self.model), "begin")
        if self._anew and self.schedule.ramp:
            optimizer_hooks.ramp_updates(self.model.optimizer, self._ramps())

    def _ramps(self):
        """Give what was unfrozen less than `ramp` epochs ago its `optimizer_hooks.Ramp`."""
        ramps, optimizer = [], self.model.optimizer
        for index, first in enumerate(self.progress.starts[1:], start=1):
            since = self.progress.epoch - first
            if since >= self.schedule.ramp:
                continue
            steps = self._steps or self.params.get("steps")
            if not steps:
                raise ValueError(
                    "`ramp` needs the number of steps of an epoch, which this dataset does not tell: give fit "
                    "`steps_per_epoch`, or the "
                    "dataset its length (tf.data.experimental.assert_cardinality)."
                )
            ramp = optimizer_hooks.Ramp(
                optimizer_hooks.steps(optimizer) - since * steps, max(1, round(self.schedule.ramp * steps))
            )
            low, high = (self._layout.first(self.schedule.stages[i][0]) for i in (index, index - 1))
            layers = [layer for place, layer in self._layout.places if low <= place < high]
            ramps += [(variable, ramp) for layer in layers for variable in layer.variables]
        return ramps

    def _enter(self, name):
        if name == self._current:
            return False
        start = self._layout.first(name)
        set_trainable(self.model, self._layout, lambda place: place >= start, self.batchnorm)
        optimizer_hooks.rebuild(self.model)
        # fit() fetches the function anew for each step; the flags are read when it is traced.
        self.model.make_train_function(force=True)
        if keras.distribution.distribution() is not None:
            self.model.test_function = None  # it knows how the variables lie, in lists by what trains
        self._current = name
        return True

    def _watch_restore(self, model):
        # BackupAndRestore reads its file in on_train_begin, before anyone knows the epoch, and Keras skips (with a
        # warning) the state of an optimizer built on other variables than the file's. So until the first epoch
        # begins, whoever loads weights into the model finds it in the stage that the file was written in: the one
        # whose optimizer has as many variables.
        def prepare(filepath):
            count = _saved_optimizer_variables(filepath)
            for name, _ in self.schedule.stages if count else ():
                self._enter(name)
                if len(model.optimizer.variables) == count:
                    break

        before_load_weights(model, prepare)


def _saved_optimizer_variables(filepath):
    """Count the optimizer's variables in a `.weights.h5` file; 0 where there are none."""
    if not str(filepath).endswith(".h5"):
        return 0
    with h5py.File(filepath, "r") as file:
        return len(file["optimizer/vars"]) if "optimizer/vars" in file else 0
