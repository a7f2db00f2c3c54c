"""Handing a version over: written beside, renamed in one step, never two of a number."""

import contextlib
import errno
import os
import re
import shutil
import socket
import time
import uuid

import tensorflow as tf

_TEMPORARY = re.compile(r"\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+")
_ABANDONED_AFTER = 24 * 3600  # seconds; no export takes that long


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
    except PermissionError:  # alive, but another user's
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
        version = max(taken, default=0) + 1
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
