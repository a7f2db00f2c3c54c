"""Files that nobody meets half written, and folders in which one process writes at a time."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np


def keras_home() -> str:
    """Return Keras's own folder, in which what can be had again is kept; with "~" where nobody has set it."""
    return os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Give a path beside `path` to write to, and rename it when that went well: a reader meets a whole file or none.

    Args:
        path: of the file; its folder is made if needed.

    Example:
        >>> with replacing("/tmp/kresnets-example.txt") as beside:
        ...     _ = beside.write_text("whole")
        >>> pathlib.Path("/tmp/kresnets-example.txt").read_text()
        'whole'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The end of the name stays: Keras and numpy tell the kind of a file by it.
    beside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(beside)):
            raise
        # A full disk does not say of which file, and the other name is none that anybody gave.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file of bytes whole."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any, indent: int | None = None) -> None:
    """Write what `json.dumps` takes as a file, whole."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Return what a JSON file holds, or None where it is missing, or is not JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return None


def write_arrays(path: str | os.PathLike, *arrays: np.ndarray, **named: Any) -> None:
    """Write an `.npz` file whole."""
    with replacing(path) as beside:
        np.savez(beside, *arrays, **named)


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike, busy: str, seconds: float = 10.0) -> Iterator[None]:
    """Hold a lock on a folder that is there, so that no second process writes into it.

    Args:
        folder: path.
        busy: sentence for when another process holds it.
        seconds: how long to wait: a killed process may hold it while the system takes its memory back.

    Raises:
        ValueError: `busy`.
    """
    import fcntl

    lock = os.open(folder, os.O_RDONLY)  # the folder itself: there is no file to leave behind or to remove too early
    end = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise ValueError(busy) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path) -> Iterator[None]:
    """Make a folder that `--out` names, keep other processes out of it, and remove it if nothing came about in it.

    Raises:
        ValueError: where the path is a file, or another process works on the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give a folder.")
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, f"Another process is working on {folder}: wait for it, or give another --out."):
        try:
            yield
        finally:
            if not any(folder.iterdir()):
                with contextlib.suppress(OSError):  # somebody else has put something there
                    for one in (folder, *missing):
                        one.rmdir()
