"""Where features are kept: in memory, or in memory-mapped `.npy` files that a later run can use again."""

import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import tokenize

import ml_dtypes
import numpy as np

MEMORY_SHARE = 0.25  # of the memory that is free, for all features of the moment
_FREE_LEFT = 1.02  # a disk is full before its last byte


def memory_limit():
    """Return how many bytes of features may stay in memory."""
    try:
        free = int(re.search(r"MemAvailable:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text())[1]) * 1024
    except OSError:  # no Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(min(free, _left_to_container()) * MEMORY_SHARE)


def _left_to_container():
    """Return the bytes that a container may still take: its machine may have far more free."""
    try:
        most, used = (pathlib.Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
    except OSError:
        return math.inf
    return math.inf if most.strip() == "max" else max(0, int(most) - int(used))


def as_text(count):
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


class Store:
    """Hand out arrays for features, or for something else that is computed once.

    Args:
        folder: where files go, made if needed; None for memory alone. Defaults to None.
        limit: bytes above which an array is a file; None for `memory_limit()`. Defaults to None.
        lasting: whether files stay when they are no longer needed. Defaults to True.
        what: what is kept, in the plural: for messages and the names of files. Defaults to `"features"`.
    """

    def __init__(self, folder=None, limit=None, lasting=True, what="features"):
        self._lasting, self._what = lasting, what
        self.folder = None if folder is None else pathlib.Path(folder)
        self.limit = memory_limit() if limit is None else limit

    def remember(self, data, what, make):
        """Return what `make()` gives for some data; a `SharedStore` asks once."""
        return make()

    def needs_file(self, size):
        """Whether an array of `size` bytes becomes a file; raise OSError where it cannot."""
        if size <= self.limit:
            return False
        if self.folder is None:
            raise OSError(
                f"The features take {as_text(size)}, above the {as_text(self.limit)} that may stay in memory: give a "
                "folder for them (`cache=` or `state_dir=` of fine_tune, `folder=` of FeatureCache)."
            )
        return True

    def may_have(self, size):
        """Whether there are files of features, or will be with one of `size` bytes."""
        return self.folder is not None and (size > self.limit or any(self.folder.glob(f"{self._what}-*.npy")))

    def find(self, key, shape, dtype):
        """Return the array that is kept under a key, or None."""
        path = self._path(key)
        if key is None or self.folder is None or not path.exists():
            return None
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # which knows no archive and no pickle, as np.load does
        except (ValueError, EOFError, SyntaxError, tokenize.TokenError):  # cut short, or no such file at all
            return None
        fits = array.shape == tuple(shape) and array.dtype == _stored(dtype)
        return array.view(dtype_of(dtype)) if fits else None

    def create(self, key, shape, dtype):
        """Return an array to be filled, and a function that keeps it under the key and returns it. Without a key it
        lasts as long as the process."""
        size = int(np.prod(shape, dtype="int64")) * dtype_of(dtype).itemsize
        if not self.needs_file(size):
            array = np.empty(shape, dtype_of(dtype))
            return array, lambda: array
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._check_room(size)
        beside, path = self.folder / f".tmp-{os.getpid()}-{key}.npy", self._path(key)
        file = np.lib.format.open_memmap(beside, "w+", dtype=_stored(dtype), shape=tuple(shape))
        self._reserve(beside, size)
        if key is None:
            beside.unlink()  # what is mapped stays until nobody uses it, and leaves nothing behind

        def keep():
            file.flush()
            if key is not None:
                os.replace(beside, path)
            return file.view(dtype_of(dtype))

        return file.view(dtype_of(dtype)), keep

    def clear(self):
        """Remove the files, unless they are to last."""
        if self.folder is not None and not self._lasting:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key):
        return None if self.folder is None else self.folder / f"{self._what}-{key}.npy"

    def _check_room(self, size):
        free = shutil.disk_usage(self.folder).free
        if free < size * _FREE_LEFT:
            raise OSError(
                f"The {self._what} take {as_text(size)}, but {self.folder} has {as_text(free)} left: make room, or "
                "give another folder."
            )

    def _reserve(self, path, size):
        # Else the file has holes, and the disk that another one has filled meanwhile ends the process by a signal.
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
                except OSError as error:
                    path.unlink()
                    raise OSError(
                        f"{self.folder} has no room for {as_text(size)} of {self._what} ({error.strerror})."
                    ) from error

    def _sweep(self):
        """Remove what killed processes left half written."""
        for litter in self.folder.glob(".tmp-*.npy"):
            process = re.match(r"\.tmp-(\d+)-", litter.name)
            if process and not _runs(int(process[1])):
                litter.unlink(missing_ok=True)


class SharedStore(Store):
    """Keep features for many trainings on the same data: files that all of them map, made by the first that needs them.

    What is asked of the data themselves (their name, their labels) is asked once in a process, so a data set must not
    change meanwhile.

    Args:
        folder: where the files go, made if needed.
        always: whether features are kept wherever a model can be cut, not only where one training gains by it. Defaults
            to True.
    """

    def __init__(self, folder, always=True):
        super().__init__(folder, limit=0, lasting=True)
        self.always, self._known = always, []

    def remember(self, data, what, make):
        for known, kind, value in self._known:
            if kind == what and _same(known, data):
                return value
        self._known.append((data, what, make()))
        return self._known[-1][2]


def _same(one, other):
    """Whether these are the same object, or tuples of the same arrays."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(a is b for a, b in zip(one, other))
    return one is other


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def dtype_of(name):
    """Return numpy's dtype of this name; of itself it knows no bfloat16."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _stored(name):
    # A .npy file knows no bfloat16: its bits are kept as whole numbers.
    return np.dtype("uint16") if name == "bfloat16" else np.dtype(name)


def digest(*parts):
    """Return a short name for arrays and for what JSON can say."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            for rows in np.array_split(part, max(1, part.nbytes >> 26)) if part.ndim else [part]:  # 64 MB at a time
                found.update(np.ascontiguousarray(rows).view("uint8").data if rows.size else b"")
        else:
            found.update(json.dumps(part, sort_keys=True, default=str).encode())
    return found.hexdigest()
