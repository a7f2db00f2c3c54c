"""glibc's malloc, told to give back what a version has left; on other systems nothing is done.

A session and its graph are freed when a version is closed, and nothing keeps a reference: what grew with each
change-over was the allocator, which keeps freed pages, in up to eight arenas for each core.
"""

import contextlib
import ctypes
import gc

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_ARENAS = 2


def few_arenas():
    """Let threads share two arenas; to be called before there are threads, as an arena that is there stays."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)


def collect():
    """Free circles of objects, which graphs are full of, and hand free pages back to the system."""
    gc.collect()
    trim()


def trim():
    """Hand free pages back to the system: what large pictures and a version's loading have left."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
