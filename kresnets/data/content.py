"""Where the bytes of an image are: a file of its own, a piece of a larger file (a record of a shard), or memory."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kresnets._util.types import Tensor


class Piece(NamedTuple):
    """Bytes within a file, such as an image in a shard of many: its path, and offset and length in bytes."""

    path: str
    offset: int
    length: int


class Stamp(NamedTuple):
    """By what bytes on a disk are known to be the same still; `ctime_ns` tells of what was written with its time set
    back too, but changes by a chmod as well. Offset and size in bytes, times in nanoseconds since 1970, as `os.stat`
    says.
    """

    device: int
    inode: int
    offset: int
    bytes: int
    mtime_ns: int
    ctime_ns: int


def stamp_of(content: str | bytes | Piece) -> Stamp | None:
    """Return the `Stamp` of a file or a piece; None for bytes in memory, and for a file that is not there."""
    if isinstance(content, bytes):
        return None
    piece = content if isinstance(content, Piece) else Piece(content, 0, -1)
    try:
        found = os.stat(piece.path)
    except (OSError, ValueError):
        return None
    size = found.st_size if piece.length < 0 else piece.length
    return Stamp(found.st_dev, found.st_ino, piece.offset, size, found.st_mtime_ns, found.st_ctime_ns)


def read(content: str | bytes | Piece) -> bytes:
    """Return the bytes of an image.

    Raises:
        OSError: where a file is not there, or ends before a piece of it.

    Example:
        >>> read(b"GIF89a")
        b'GIF89a'
    """
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        with open(content, "rb") as file:
            return file.read()
    with open(content.path, "rb", buffering=0) as file:
        found = os.pread(file.fileno(), content.length, content.offset)
    if len(found) < content.length:
        raise OSError(f"{content.path} ends before byte {content.offset + content.length}: it was cut off")
    return found


def packed(content: str | bytes | Piece) -> bytes:
    """Return what stands for a content in a tensor of strings; `unpacked` is the way back."""
    if isinstance(content, Piece):
        return b"%d %d " % content[1:] + os.fsencode(content.path)
    return content if isinstance(content, bytes) else os.fsencode(content)  # no valid text, perhaps


def unpacked(kind: type, told: bytes) -> Any:
    """Return the content, of a kind (`str`, `bytes` or `Piece`), for which `packed` gave this."""
    if kind is Piece:
        offset, length, path = told.split(b" ", 2)
        return Piece(os.fsdecode(path), int(offset), int(length))
    return told if kind is bytes else os.fsdecode(told)


def reader(kind: type) -> Callable[[Tensor], Tensor]:
    """Return the function that reads a packed content, both scalar string tensors, within `tf.data`."""
    if kind is str:
        return tf.io.read_file
    if kind is bytes:
        return lambda told: told

    def piece(told):
        return read(unpacked(Piece, told if isinstance(told, bytes) else told.item()))

    return lambda told: tf.ensure_shape(tf.numpy_function(piece, [told], tf.string, stateful=False), ())
