"""What a run keeps between epochs: the best weights, and enough to go on after any interruption."""

import csv
import json
import math
import pathlib
import re
import time

import keras
import numpy as np

from kresnets._util import files
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
        `history.csv`.
    """

    def __init__(self, folder, stage_of):
        super().__init__()
        self.folder, self._stage_of = pathlib.Path(folder), stage_of
        self.initial_epoch, self.done, self.rows = agreed(self._read)

    def _read(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for litter in self.folder.glob(".tmp-*"):
            litter.unlink()
        done = [_epoch(path) for path in self.folder.glob("epoch-*.weights.h5")]
        initial_epoch = max(done) + 1 if done else 0
        rows = [row for row in _read_csv(self.folder / "history.csv") if row["epoch"] < initial_epoch]
        return initial_epoch, (self.folder / "done").exists(), rows

    def on_train_begin(self, logs=None):
        if self.initial_epoch:
            with first_file(self.folder / f"epoch-{self.initial_epoch - 1:04d}.weights.h5") as path:
                self.model.load_weights(path)

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


class BestWeights(keras.callbacks.Callback):
    """Keep the weights of the epoch with the lowest validation loss, and put them back when training ends.

    Keras's ModelCheckpoint forgets its best score when a run is resumed, and EarlyStopping keeps its weights in memory
    alone.

    Args:
        state: a `RunState` that stands before this one and has the files, or None to keep the weights in memory.
        averages: the `SwapEMAWeights` in use, or None.
    """

    def __init__(self, state=None, averages=None):
        super().__init__()
        self._state, self._averages = state, averages
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
        best = logs.get("val_loss", math.inf) < self._loss
        if best:
            self.epoch, self._loss = epoch, logs["val_loss"]
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
