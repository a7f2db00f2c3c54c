"""What `StagedUnfreezing` keeps of a run: what each epoch measured, and the best weights of the stage."""

import dataclasses
import json
import pathlib
import re

import numpy as np

from kresnets._util import files
from kresnets.devices import agreed, first_file, is_first


class StageCheckpoint:
    """Keep rows and arrays in a folder, each file written beside and renamed, or in memory.

    Of several processes the first one alone reads and writes the folder, and tells the others.

    Args:
        folder: path, made if needed; None for memory.
        schedule: the `Schedule` of the run; a folder of another one is refused.
        model: the model of the run, likewise.
    """

    def __init__(self, folder, schedule, model):
        self._folder = None if folder is None else pathlib.Path(folder)
        self._arrays = {}
        shapes = [list(weight.shape) for weight in model.weights]
        self._run = json.loads(json.dumps({"schedule": dataclasses.asdict(schedule), "weights": shapes}, default=float))

    def clear(self):
        """Forget an earlier run."""
        self._arrays = {}
        if self._folder is not None and is_first():
            for path in (self._folder / "stages.json", *self._folder.glob("stage-*-*.npz")):
                path.unlink(missing_ok=True)

    def write_rows(self, rows):
        """Write what the epochs measured, into the folder if there is one."""
        if self._folder is None or not is_first():
            return
        text = json.dumps({**self._run, "epochs": rows}, indent=1)
        self._write("stages.json", lambda path: path.write_text(text, encoding="utf-8"))

    def read_rows(self, epoch):
        """Return what the epochs measured, nothing where that was not kept or `epoch` is the first."""
        return agreed(lambda: self._read_rows(epoch))

    def _read_rows(self, epoch):
        path = None if self._folder is None else self._folder / "stages.json"
        if path is None or not epoch or not path.exists():
            return []
        try:
            saved = dict(json.loads(path.read_text(encoding="utf-8")))
            rows = saved.pop("epochs")
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged: remove it and start anew (initial_epoch=0).") from None
        saved["schedule"] = {"undo": False} | saved.get("schedule", {})  # of before there was such a field
        if saved != self._run:
            raise ValueError(
                f"{path} is of a run with other stages or another network: give another `folder`, or start anew "
                "(initial_epoch=0)."
            )
        return rows

    def write(self, epoch, arrays, kind="best"):
        """Keep the arrays of an epoch, and those of the one of that kind kept before.

        Args:
            epoch: whole number from 0.
            arrays: dict of name -> array.
            kind: `"best"`, those that the best epoch of a stage ended with, or `"begin"`, those that a stage began
                with.
        """
        if self._folder is None:
            others = {key: kept for key, kept in self._arrays.items() if key[0] != kind}
            same = [(key, kept) for key, kept in self._arrays.items() if key[0] == kind]
            self._arrays = others | dict(same[-1:]) | {(kind, epoch): arrays}
            return
        if not is_first():
            return
        self._write(_name(kind, epoch), lambda path: np.savez(path, **arrays))
        earlier = sorted(int(re.search(r"(\d+)", path.name)[1]) for path in self._folder.glob(f"stage-{kind}-*.npz"))
        # A backup between epochs resumes at the next one, one in the midst of an epoch a while earlier.
        for old in earlier[:-2]:
            (self._folder / _name(kind, old)).unlink()

    def read(self, epoch, kind="best"):
        """Return the arrays of an epoch, see `write`."""
        if (kind, epoch) in self._arrays:
            return self._arrays[kind, epoch]
        path = self._folder and self._folder / _name(kind, epoch)
        if not path or not agreed(path.exists):
            what = "the best of its stage" if kind == "best" else "with which its stage began"
            raise ValueError(
                f"The weights of epoch {epoch + 1}, {what}, were not kept: give StagedUnfreezing the `folder` of the "
                "interrupted run, or start anew (initial_epoch=0)."
            )
        with first_file(path) as read, np.load(read, allow_pickle=False) as file:
            return dict(file)

    def _write(self, name, save):
        try:
            with files.replacing(self._folder / name) as beside:
                save(beside)
        except OSError as error:
            raise OSError(
                f"{self._folder / name} could not be written (is the disk full?); make room and start again: "
                f"{error.strerror or error}"
            ) from error


def _name(kind, epoch):
    return f"stage-{kind}-{epoch:04d}.npz"
