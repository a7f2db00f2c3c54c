"""Handing a version over: written beside, renamed in one step, never two of a number."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import socket
import time
import uuid

import tensorflow as tf

_TEMPORARY = re.compile(r"\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+")
_ABANDONED_AFTER = 24 * 3600  # seconds; no export takes that long


def local(path, what="folder"):
    """Return a path that a user gave as a pathlib.Path.

    Raises:
        ValueError: for what is no path, or one of another file system than this machine's.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise ValueError(f"`path` must be the path of a {what}, a str or a pathlib.Path. Received: path={path!r}")
    if re.match("[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE):  # pathlib would make local folders of it
        raise ValueError(
            f"`path` must be on this machine's file systems: export to a local {what} and copy it there. Received: "
            f"path={text!r}"
        )
    return pathlib.Path(text)


def folder_of_versions(path):
    """Return a path that a user gave as a pathlib.Path of a folder that may hold versions.

    Raises:
        ValueError: as `local`, and for a version, or a folder within one: a server would never look there.
    """
    path = local(path)
    for folder in (path.resolve(), path.resolve().parent):
        if os.path.exists(folder / "saved_model.pb"):
            raise ValueError(
                f"{folder} is a version itself (it holds a saved_model.pb), and versions are made beside it: give the "
                f"folder of the model. Received: path={str(path)!r}"
            )
    return path


@contextlib.contextmanager
def writing(path, what="SavedModel"):
    """Tell what goes wrong with the disk in one sentence."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = (getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)).splitlines()[0]
        raise OSError(
            f"The {what} could not be written to {path} ({reason}): choose a folder that can be written and has "
            "room for it; nothing was left there."
        ) from error


@contextlib.contextmanager
def folder_beside(path, what="SavedModel"):
    """Make a folder in `path` that no server takes for a version; remove it, if it was not renamed, when done."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    folder = path / f".tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        with writing(path, what):
            folder.mkdir(parents=True)
            _clear_litter(path)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: this export, or another at the same time, succeeded
            for parent in missing:
                parent.rmdir()


def _clear_litter(path):
    """Remove what killed exporters left: on this host by their process number, from other hosts by age."""
    for folder in path.glob(".tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # its owner was faster
            owner = _TEMPORARY.fullmatch(folder.name)
            if owner and (_is_dead(owner) or time.time() - folder.stat().st_mtime > _ABANDONED_AFTER):
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(owner):
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return owner["host"] == socket.gethostname()
    except (PermissionError, OverflowError):  # alive, but another user's; or a number that no process has
        pass
    return False


def publish(folder, path):
    """Rename `folder` to the next free version.

    Exporters come one after the other, under a lock, so that versions appear in the order of their numbers. Where the
    file system has no locks the rename alone is the claim on the number: it fails where a version already is.
    """
    flush(folder)
    with _lock(path):
        taken = [int(child.name) for child in path.iterdir() if re.fullmatch("[0-9]+", child.name)]
        # Servers hold a version in an int64, and see no folder of a larger number.
        version = max((number for number in taken if number < tf.int64.max), default=0) + 1
        while True:
            try:
                os.rename(folder, path / str(version))
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                version += 1
    _sync(path)
    return path / str(version)


@contextlib.contextmanager
def _lock(path):
    """Wait for the other exporters of this model; the system lets go of a killed one's lock."""
    lock = os.open(path, os.O_RDONLY)  # the folder itself: there is no file to leave behind
    try:
        with contextlib.suppress(ImportError, OSError):  # no such system, or a file system without locks
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def flush(folder):
    """Have all of a folder on the disk before a name promises that it is whole: power may fail."""
    for parent, _, files in os.walk(folder):
        for file in files:
            _sync(os.path.join(parent, file))
        _sync(parent)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
