"""What was found of images, kept between runs: whoever trains on a million files again does not open them again.

An SQLite file in Keras's folder (`$KERAS_HOME/kresnets/images-1.sqlite`), which any tool reads and anybody may delete.
What `check_image` says is a function of an image's bytes, and kept by their hash (table `looked`); which bytes a file
has is kept by its device, inode, size and times (table `files`). So a folder that was moved on its disk is known at
once, one that was copied is hashed but not decoded, and a file that was changed is another one.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import tensorflow as tf

from kresnets._util.files import keras_home
from kresnets.data.check import Verdict
from kresnets.data.content import Stamp, packed
from kresnets.decoding import Decoding
from kresnets.version import __version__

Use = Literal["auto", "rehash", "off"]
USES = get_args(Use)
_FORMAT = 1  # of the tables; another one is another file
_RULES = 1  # another number where `check_image` says something else of the same bytes, or a listing of the same files
LEAST = 1000  # images from which it is worth while: fewer are looked at within seconds
# The times of files have steps: one that was written this short a time ago may be written once more within the same.
_SETTLED_NS = 2_000_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    device INTEGER, inode INTEGER, offset INTEGER, bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    sha256 BLOB, path BLOB, PRIMARY KEY (device, inode, offset, bytes, mtime_ns, ctime_ns)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ways (way TEXT PRIMARY KEY, said TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looked (sha256 BLOB, way TEXT, found TEXT, PRIMARY KEY (sha256, way)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listed (key TEXT PRIMARY KEY, rows TEXT) WITHOUT ROWID;
"""
_PLAIN = Verdict(None)
_LOG = logging.getLogger("kresnets")


def index_path() -> pathlib.Path:
    """Return where the index is."""
    return pathlib.Path(os.path.expanduser(keras_home()), "kresnets", f"images-{_FORMAT}.sqlite")


class Index:
    """Look images up, and note them; it must be made before their stamps are taken. Where its file cannot be used this
    is said in the log, and nothing is known.

    Args:
        decoding: the `kresnets.Decoding` with which images are looked at. Defaults to `Decoding()`.
        use: `"auto"`; `"rehash"`: which bytes files have is not taken from here, but read; or `"off"`.
            Defaults to `"auto"`.
    """

    def __init__(self, decoding: Decoding = Decoding(), use: Use = "auto") -> None:
        self._use, self._lock, self._began = use, threading.Lock(), time.time_ns()
        # How what was decoded is resized plays no part.
        self._said = f"{_versions()}, {dataclasses.replace(decoding, resize='crop', padding=None)}"
        self._way = hashlib.sha256(self._said.encode()).hexdigest()[:12]  # short, as each image has it
        self._open: sqlite3.Connection | None = None
        if use != "off":
            with self._unharmed():
                index_path().parent.mkdir(parents=True, exist_ok=True)
                self._open = sqlite3.connect(index_path(), timeout=30, check_same_thread=False)
                self._open.executescript(_SCHEMA)

    def of_files(self, stamps: Sequence[Stamp | None]) -> list[Verdict | None]:
        """Return what is known of files, and pieces of them; None of what is not known."""
        found: list[Verdict | None] = [None] * len(stamps)
        if self._open is None or self._use == "rehash":
            return found
        ask = (
            "SELECT sha256, found FROM files JOIN looked USING (sha256) "
            "WHERE device = ? AND inode = ? AND offset = ? AND bytes = ? AND mtime_ns = ? AND ctime_ns = ? AND way = ?"
        )
        with self._unharmed():
            for place, stamp in enumerate(stamps):
                row = stamp and self._open.execute(ask, (*_key(stamp), self._way)).fetchone()
                found[place] = _verdict(*row) if row else None
        return found

    def of_bytes(self, digest: bytes) -> Verdict | None:
        """Return what is known of an image by the SHA-256 of its bytes."""
        row = None
        with self._lock, self._unharmed():
            if self._open is not None:
                ask = "SELECT sha256, found FROM looked WHERE sha256 = ? AND way = ?"
                row = self._open.execute(ask, (digest, self._way)).fetchone()
        return _verdict(*row) if row else None

    def note(self, contents: Sequence[Any], stamps: Sequence[Stamp | None], verdicts: Sequence[Verdict]) -> None:
        """Note what was found of images. Bad ones are looked at again, as what was lacking may be installed by then."""
        settled = self._began - _SETTLED_NS  # the stamps were taken since
        good = [row for row in zip(contents, stamps, verdicts) if row[2].reason is None]
        files = ((*_key(s), v.digest, packed(c)) for c, s, v in good if s is not None and s.ctime_ns < settled)
        looked = ((verdict.digest, self._way, _said(verdict)) for _, _, verdict in good)
        with self._lock, self._unharmed():  # threads go on asking meanwhile
            if self._open is not None:
                with self._open as once:
                    once.execute("INSERT OR IGNORE INTO ways VALUES (?, ?)", (self._way, self._said))
                    once.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", files)
                    once.executemany("INSERT OR IGNORE INTO looked VALUES (?, ?, ?)", looked)

    def listed(self, key: object, make: Callable[[], Any]) -> Any:
        """Return the listing of a key; what `make()` gives, as JSON has it, where there is none."""
        name = hashlib.sha256(repr((_versions(), key)).encode()).hexdigest()
        if self._open is not None and self._use != "rehash":
            with self._unharmed():
                row = self._open.execute("SELECT rows FROM listed WHERE key = ?", (name,)).fetchone()
                if row:
                    return json.loads(row[0])
        rows = make()
        told = json.dumps(rows)
        if self._open is not None and len(rows) >= LEAST:
            with self._unharmed(), self._open as once:
                once.execute("INSERT OR REPLACE INTO listed VALUES (?, ?)", (name, told))
        return json.loads(told)

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._open.close()

    @contextlib.contextmanager
    def _unharmed(self):
        """Go on without the index where it fails: it is only there to save time."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.__exit__()
            self._open = None
            damaged = not isinstance(error, (sqlite3.OperationalError, OSError))
            if damaged:
                index_path().unlink(missing_ok=True)
            told = "is damaged, and begun anew next time" if damaged else "cannot be used"
            _LOG.info("The index of images %s %s (%s).", index_path(), told, error)


def remembered(key: object, make: Callable[[], Any], use: Use = "auto") -> Any:
    """Return what an `Index` has listed by a key, else what `make()` gives, which it then has where it is long."""
    with Index(use=use) as index:
        return index.listed(key, make)


def _key(stamp):
    """Return the numbers of a `Stamp` as SQLite has them, of 64 bits with a sign."""
    return [(number + (1 << 63)) % (1 << 64) - (1 << 63) for number in stamp]


@functools.cache
def _versions():
    """Return what else decides on what is found of an image: other versions refuse what these read, and look at other
    things."""
    told = [f"rules {_RULES}", f"kresnets {__version__}", f"tensorflow {tf.__version__}"]
    for name in ("pillow", "pillow-heif", "tifffile"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(told)


def _said(verdict):
    """Return a `Verdict` as JSON, its digest apart; of most images there is nothing to say."""
    values = ((field.name, getattr(verdict, field.name)) for field in dataclasses.fields(verdict))
    return json.dumps({k: v for k, v in values if k != "digest" and v != getattr(_PLAIN, k)})


def _verdict(digest, found):
    return Verdict(**{"reason": None, "digest": digest} | json.loads(found))
