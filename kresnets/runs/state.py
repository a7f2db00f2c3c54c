"""What a run keeps between epochs: the best weights, and enough to go on after any interruption."""

import csv
import json
import math
import pathlib
import re
import shutil
import time

import keras
import numpy as np

from kresnets._util import files
from kresnets._util.store import as_text
from kresnets.devices import agreed, apart, first_file, is_first


class RunState(keras.callbacks.Callback):
    """Write all that a run needs to go on after a kill at any moment, once an epoch.

    Keras's BackupAndRestore overwrites its weights and then its epoch number: a kill in between pairs them wrongly, a
    kill within leaves half a file. Here the epoch is part of the file's name, each file is written beside and
    renamed, and old ones go only when the new one is whole. Of several processes the first one alone reads and writes
    them.

    Args:
        folder: where the files lie; made if needed.
        stage_of: function from an epoch to the name of its stage, for the history.

    Files: `epoch-0003.weights.h5` (weights, optimizer) as the epoch of that number left them, `best-0002.npz`,
        `history.csv`; `stopped.txt`, why the training ended before its time, if `StopAtNaN` ended it.
    """

    def __init__(self, folder, stage_of):
        super().__init__()
        self.folder, self._stage_of = pathlib.Path(folder), stage_of
        self.initial_epoch, self.done, self.rows, self.stopped = agreed(self._read)

    def _read(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for litter in self.folder.glob(".tmp-*"):
            litter.unlink()
        done = [_epoch(path) for path in self.folder.glob("epoch-*.weights.h5")]
        initial_epoch = max(done) + 1 if done else 0
        rows = [row for row in _read_csv(self.folder / "history.csv") if row["epoch"] < initial_epoch]
        stopped = self.folder / "stopped.txt"
        stopped = stopped.read_text(encoding="utf-8") if stopped.exists() else ""
        return initial_epoch, (self.folder / "done").exists(), rows, stopped

    def on_train_begin(self, logs=None):
        if not self.initial_epoch:
            self._check_room()
        if self.initial_epoch:
            with first_file(self.folder / f"epoch-{self.initial_epoch - 1:04d}.weights.h5") as path:
                self.model.load_weights(path)

    def _check_room(self):
        """Raise an OSError where the disk is too full for the run, before it has trained for an hour."""
        _, most = disk_needed(self.model)
        total, _, free = agreed(lambda: tuple(shutil.disk_usage(self.folder)))  # all processes end, or none
        if total and free < 3 * _bytes(
            self.model
        ):  # an epoch's weights, the best one's and the model's: no run needs less
            raise OSError(
                f"{self.folder} lies on a disk with {as_text(free)} free, and the run takes up to {as_text(most)}: "
                "make room, or give another folder."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = round(time.perf_counter() - self._began, 3)
        logs = {key: float(value) for key, value in (logs or {}).items()}
        self.rows = [*self.rows, {"epoch": epoch, "stage": self._stage_of(epoch), "seconds": seconds, **logs}]
        self.write("history.csv", lambda path: _write_csv(path, self.rows))
        # This renaming is the moment from which the epoch is done: a kill before it repeats the epoch, and its row is
        # written anew.
        self.write(f"epoch-{epoch:04d}.weights.h5", self.model.save_weights)
        self.remove("epoch-*.weights.h5", keep=epoch)

    def on_train_end(self, logs=None):
        # Also where another callback stopped it early: the same call must not train on.
        self.write("done", lambda path: path.write_text(""))

    def write(self, name, save):
        """Have `save(path)` write a file beside, then give it its name."""
        if not is_first():
            return
        try:
            with apart(), files.replacing(self.folder / name) as beside:
                save(beside)
        except OSError as error:
            raise OSError(
                f"{self.folder / name} could not be written (is the disk full?); make room and give the same command "
                f"again. The reason was: {str(error).split('(')[0].strip()}"
            ) from error

    def remove(self, pattern, keep):
        """Remove the files of all epochs but one."""
        for path in self.folder.glob(pattern) if is_first() else ():
            if _epoch(path) != keep:
                path.unlink()


def disk_needed(model: keras.Model) -> tuple[int, int]:
    """Return how many bytes the files of a run take at most: its model with the optimizer when it is finished, and all
    of them while it trains: an epoch and the one before it, the best one, and the best and the first of a stage. Two
    slots a weight are reckoned with."""
    weights = _bytes(model)
    return 3 * weights, (2 * 3 + 2 + 2 * 3) * weights


def _bytes(model):
    return sum(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.weights)


class StopAtNaN(keras.callbacks.Callback):
    """End a training whose loss, validation loss or weights are no finite numbers any more.

    The model gets the weights of the last good epoch, and a FloatingPointError says since when. A run that ended so
    says it again when it is begun again.

    Args:
        stage_of: function from an epoch to the name of its stage.
        advice: what to try, a sentence.
        state: a `RunState` that stands after this one, which shall not write the epoch; None for none.
    """

    async_safe = True  # told of each batch in a thread of its own, where Keras would otherwise wait for the device

    def __init__(self, stage_of, advice, state=None):
        super().__init__()
        self._stage_of, self._advice, self._state = stage_of, advice, state
        self._since, self._good, self._epoch = None, None, 0

    def on_epoch_begin(self, epoch, logs=None):
        # Not at the end of the epoch before: by then SwapEMAWeights has put the averages there.
        self._good, self._epoch = self.model.get_weights(), epoch
        if self._state is not None and self._state.stopped:
            raise FloatingPointError(self._state.stopped)

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))  # the mean of the epoch so far, which never recovers
        if self._since is None and not math.isfinite(loss):
            self._since = f"The loss was {loss} from step {batch} of epoch {self._epoch} on"
            self.model.stop_training = True

    def on_test_begin(self, logs=None):
        self._end()

    def on_epoch_end(self, epoch, logs=None):
        validation = float((logs or {}).get("val_loss", 0.0))
        weights = [weight for weight in self.model.weights if keras.backend.is_float_dtype(weight.dtype)]
        if self._since is None and (bad := [weight.path for weight in weights if not _is_finite(weight)]):
            self._since = f"Weights were no numbers after the last step of epoch {epoch}, though its loss was one"
            self._since += f" ({len(bad)} of {len(weights)}, first {bad[0]})"
        elif self._since is None and not math.isfinite(validation):
            self._since = f"The validation loss was {validation} in epoch {epoch}, though loss and weights were numbers"
        self._end()

    def _end(self):
        if self._since is None:
            return
        self.model.set_weights(self._good)
        kept = f"those of epoch {self._epoch - 1}" if self._epoch else "those that it began with: no epoch was good"
        sentence = (
            f"{self._since} (both counted from 0), in the stage {self._stage_of(self._epoch)!r}: training has stopped, "
            f"and the model's weights are {kept}. {self._advice}"
        )
        if self._state is not None:
            self._state.write("stopped.txt", lambda path: path.write_text(sentence, encoding="utf-8"))
        raise FloatingPointError(sentence)


def _is_finite(weight):
    # By the sum: one number a weight to wait for. In float32, where float16 would overflow.
    return math.isfinite(float(keras.ops.convert_to_numpy(keras.ops.sum(keras.ops.cast(weight, "float32") * 1e-6))))


class BestWeights(keras.callbacks.Callback):
    """Keep the weights of the best epoch, and put them back when training ends.

    Keras's ModelCheckpoint forgets its best score when a run is resumed, and EarlyStopping keeps its weights in memory
    alone.

    Args:
        state: a `RunState` that stands before this one and has the files, or None to keep the weights in memory.
        averages: the `SwapEMAWeights` in use, or None.
        monitor: name in the logs by which an epoch is the best. Defaults to `"val_loss"`.
        rises: whether higher is better. Defaults to False.

    Raises:
        ValueError: where the logs do not have it.
    """

    def __init__(self, state=None, averages=None, monitor="val_loss", rises=False):
        super().__init__()
        self._state, self._averages = state, averages
        self._monitor, self._sign = monitor, -1 if rises else 1
        self._forget()

    def _forget(self):
        self.epoch, self._loss, self._weights = None, math.inf, None

    def on_train_begin(self, logs=None):
        self._forget()
        for row in self._state.rows if self._state else ():
            self._is_best(row["epoch"], row)
        if self.epoch is not None and not agreed(self._file().exists):
            # Killed after the epoch was done and before its weights were kept: they are those just restored.
            if self._averages:
                self._averages.on_test_begin()
            self._keep()
            if self._averages:
                self._averages.on_test_end()

    def on_epoch_end(self, epoch, logs=None):
        if self._is_best(epoch, logs or {}):
            self._keep()

    def on_train_end(self, logs=None):
        if self.epoch is None:
            return
        if self._state is not None:
            with first_file(self._file()) as path:
                self._weights = _read_arrays(path)
        self.model.set_weights(self._weights)

    def _is_best(self, epoch, logs):
        if self._monitor not in logs and self._monitor != "val_loss":
            known = ", ".join(sorted(name for name in logs if not name.startswith("learning_rate")))
            raise ValueError(f"`monitor` must be a name of the log. Received: {self._monitor!r}; there are {known}")
        loss = self._sign * logs.get(self._monitor, math.inf)
        best = loss < self._loss
        if best:
            self.epoch, self._loss = epoch, loss
        return best

    def _keep(self):
        weights = self.model.get_weights()
        if self._state is None:
            self._weights = weights
        else:
            self._state.write(self._file().name, lambda path: _write_arrays(path, weights))
            self._state.remove("best-*.npz", keep=self.epoch)

    def _file(self):
        return self._state.folder / f"best-{self.epoch:04d}.npz"


def _epoch(path):
    return int(re.search(r"-(\d+)\.", path.name)[1])


def _write_arrays(path, arrays):
    np.savez(path, *arrays)


def _read_arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]


def _read_csv(path):
    """Read rows of numbers (and the stage's name); an empty cell is left out."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: _value(key, cell) for key, cell in row.items() if cell not in ("", None)} for row in rows]


def _value(column, cell):
    return cell if column == "stage" else int(cell) if column == "epoch" else float(cell)


def _write_csv(path, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def noted(folder, name):
    """Return what the run in a folder noted down under a name, or None."""

    def read():
        try:
            return json.loads((pathlib.Path(folder) / "run.json").read_text()).get(name)
        except (OSError, ValueError, AttributeError):
            return None

    return agreed(read)


def note_down(folder, name, value):
    """Note something more about the run in a folder, for `noted`."""
    if is_first():
        path = pathlib.Path(folder) / "run.json"
        files.write_json(path, json.loads(path.read_text()) | {name: value}, indent=1)


def check_same_run(folder, description):
    """Raise a ValueError where the folder holds the state of a run with another description; note this one in a new
    folder."""
    if not is_first():
        return
    path = pathlib.Path(folder) / "run.json"
    text = json.dumps(description, sort_keys=True, indent=1)
    if path.exists():
        earlier = json.loads(path.read_text())
        # What only one of them says is a note, or of another version.
        differing = sorted(key for key in earlier.keys() & description if earlier[key] != json.loads(text)[key])
        if differing:
            raise ValueError(
                f"{folder} holds the state of another run ({', '.join(differing)} differ): give another folder, or "
                "remove it."
            )
        return
    files.write_json(path, description, indent=1)
