"""What processes that train one model must agree on: the first one says it, and the others hear it.

Only the first one reads and writes the state of a run, so that the others need no access to its folder, and none reads
a file that another one is about to replace.
"""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_PIECE = 1 << 26  # bytes


def is_first() -> bool:
    """Whether this process writes: it is alone, or the first of those that `connect` joined."""
    return not _several() or _jax().process_index() == 0


def agreed(tell: Callable[[], Any]) -> Any:
    """Return, on every process, what `tell()`, called on the first one alone, returns there: what JSON can say.

    Example:
        >>> from kresnets.devices import agreed
        >>> agreed(lambda: {"epoch": 3})
        {'epoch': 3}
    """
    if not _several():
        return tell()
    return json.loads(_broadcast(json.dumps(tell()).encode() if is_first() else b""))


@contextlib.contextmanager
def first_file(path):
    """Yield the path of a file with the content that the first process's file at `path` has; only that one needs it."""
    if not _several():
        yield path
        return
    content = _broadcast(path.read_bytes() if is_first() else b"")
    if is_first():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        copy.write_bytes(content)
        yield copy


@contextlib.contextmanager
def apart():
    """Do what this process alone does, such as saving a model: Keras makes variables in passing, which all processes of
    a distribution would have to make."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _several():
    return keras.config.backend() == "jax" and _jax().process_count() > 1


def _broadcast(content):
    from jax.experimental.multihost_utils import broadcast_one_to_all

    # JAX counts in 32 bits, and a device need not have room for all of it at once.
    whole, rest = (int(part) for part in broadcast_one_to_all(np.array(divmod(len(content), _PIECE), np.int32)))
    pieces = []
    for index, size in enumerate([_PIECE] * whole + [rest]):
        piece = content[index * _PIECE : index * _PIECE + size].ljust(size, b"\0")  # the others have none
        pieces.append(np.asarray(broadcast_one_to_all(np.frombuffer(piece, np.uint8)), np.uint8).tobytes())
    return b"".join(pieces)


def _jax():
    import jax

    return jax
