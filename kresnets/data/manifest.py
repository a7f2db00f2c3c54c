"""Which files were learned from, so that it can be said later what has changed among them."""

import csv
import hashlib
from typing import NamedTuple

from kresnets._util import files
from kresnets.data.content import read as read_content
from kresnets.data.content import stamp_of

_SHOWN = 3  # names of each kind of change


class Noted(NamedTuple):
    """A file as it was when it was looked at: its class, its SHA-256, and by what it is known to be the same still."""

    label: str
    sha256: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, label, digest, stamp):
        """Note what was found, with zeros of what is no file, or none any more."""
        return cls(label, digest.hex(), *((stamp.bytes, stamp.mtime_ns) if stamp else (0, 0)))


def write(path, noted):
    """Write a dict of ids to `Noted` as a CSV file, ids as the file system has them."""
    with (
        files.replacing(path) as beside,
        open(beside, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("file", *Noted._fields))
        lines.writerows((name, *each) for name, each in noted.items())


def read(path):
    """Return what `write` wrote.

    Raises:
        ValueError: where the file is damaged.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))[1:]
        return {name: Noted(label, sha256, int(size), int(time)) for name, label, sha256, size, time in rows}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error}).") from None


def changes(noted, listing):
    """Say how files differ from what was noted of them, or return nothing; those that look touched are hashed again.

    Args:
        noted: dict of ids to `Noted`.
        listing: the `kresnets.data.listing.Listing` of today.

    Returns:
        Such as `"2 added (cat/1.jpg, cat/2.jpg), 1 changed (dog/7.jpg)"`.
    """
    now = {item.id: item for items in listing.parts.values() for item in items}
    added, gone = [name for name in now if name not in noted], [name for name in noted if name not in now]
    # A label that is corrected in a folder of classes is a file that is moved.
    was, moved = {}, {}
    for name in gone:
        was.setdefault(noted[name].sha256, []).append(name)
    for name in added if gone else ():
        if before := was.get(_sha256(now[name].content)):
            moved[name] = before.pop()
    kinds = {
        "moved": [f"{before} to {name}" for name, before in moved.items()],
        "added": [name for name in added if name not in moved],
        "gone": [name for name in gone if name not in moved.values()],
        "of another class": [n for n in now if n in noted and listing.said(now[n]) != noted[n].label],
        "changed": [name for name in now if name in noted and _touched(now[name].content, noted[name])],
    }
    told = []
    for kind, names in kinds.items():
        shown = [name if name.isprintable() else ascii(name) for name in sorted(names)[:_SHOWN]]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        told += [f"{len(names)} {kind} ({', '.join(shown)}{more})"] if names else []
    return ", ".join(told)


def _touched(content, noted):
    stamp = stamp_of(content)
    if stamp is not None and (stamp.bytes, stamp.mtime_ns) == (noted.bytes, noted.mtime_ns):
        return False
    return _sha256(content) != noted.sha256


def _sha256(content):
    """Return the SHA-256 of an image, None where it cannot be read."""
    try:
        return hashlib.sha256(read_content(content)).hexdigest()
    except OSError:
        return None
