"""The versions of a model: found by looking into its folder again and again, loaded, changed over, dropped.

Everything but the reading and loading itself happens in the event loop, so nothing here needs a lock.
"""

import asyncio
import collections
import contextlib
import ctypes
import gc
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from kresnets.serving.errors import demand

LARGEST = 2**63 - 1  # versions are int64 in TF Serving


class Versions:
    """The versions of one model, as they come and go. Asked for one that is not there, it raises `Refusal`.

    Args:
        name, folder, newest, labels: As for `server.run`.
        load: Function from a version's folder to a `Servable`; it may raise ValueError.
        only: Numbers, to serve just these.
        tell: Called with a sentence about each change and each failure.
    """

    def __init__(
        self, name: str, folder: pathlib.Path, load: Callable, newest: int = 1, only: Collection[int] = (),
        labels: Mapping[str, int] | None = None, tell: Callable[[str], object] = print,
    ):  # fmt: skip
        self.name, self.folder, self.loading = name, folder, None  # the number that is being loaded
        self._load, self._newest, self._only, self._labels, self._tell = load, newest, only, labels or {}, tell
        self._served: dict[int, Any] = {}  # number -> servable
        self._ended: dict[int, Any] = {}  # number -> why it failed, or nothing
        self._seen: dict[int, Any] = {}  # number -> files, at the last look
        self._tried: dict[int, Any] = {}  # number -> files, when it was loaded, or failed
        self._users: collections.Counter = collections.Counter()
        self._closing: set[Any] = set()
        self._said: str | None = None

    @property
    def available(self) -> list[int]:
        """Numbers of the versions that answer, highest first."""
        return sorted(self._served, reverse=True)

    @contextlib.contextmanager
    def use(self, number: int | None = None, label: str | None = None) -> Iterator[Any]:
        """Hold the version of a number or a label open, or the highest; a context manager of its `Servable`."""
        number = self._number(number, label)
        wanted = f"Latest({self.name})" if number is None else f"Specific({self.name}, {number})"
        highest: Any = max(self._served, default=None)
        servable = self._served.get(highest if number is None else number)
        demand(servable, f"Servable not found for request: {wanted}", "NOT_FOUND")
        with self.hold(servable):
            yield servable

    @contextlib.contextmanager
    def hold(self, servable: Any) -> Iterator[Any]:
        """Hold a servable open that is in use already."""
        self._users[servable] += 1
        try:
            yield servable
        finally:
            self._users[servable] -= 1
            self._close_unused(servable)

    def status(self, number: int | None = None, label: str | None = None) -> list[dict]:
        """Return the states of all versions, or of one, highest first, as TF Serving tells them."""
        number = self._number(number, label)
        states = {each: ("END", "UNKNOWN" if reason else "OK", reason) for each, reason in self._ended.items()}
        states |= {self.loading: ("LOADING", "OK", "")} if self.loading is not None else {}
        states |= dict.fromkeys(self._served, ("AVAILABLE", "OK", ""))
        states = {each: state for each, state in states.items() if number in (None, each)}
        what = "any versions" if number is None else f"version {number}"
        demand(states, f"Could not find {what} of model {self.name}", "NOT_FOUND")
        return [
            {"version": str(each), "state": state, "status": {"error_code": code, "error_message": message}}
            for each, (state, code, message) in sorted(states.items(), reverse=True)
        ]

    async def poll(self, first: bool = False) -> None:
        """Look into the folder once and do what it asks for; at the `first` look, take it as it is.

        Later a version is loaded when two looks found the same files in it: one that is being copied is left alone.
        """
        try:
            found = await asyncio.to_thread(_scan, self.folder)
        except OSError as error:
            return self._tell_once(f"{self.folder} cannot be read ({error.strerror}); {self._what_stays()}")
        settled = {number for number, files in found.items() if first or self._seen.get(number) == files}
        self._seen = found
        while True:
            new = {number for number in settled if self._tried.get(number) != found[number]}
            wanted = self._wanted(found.keys() & (self._served.keys() | new))
            if not new & wanted:
                break
            await self._take_in(max(new & wanted), found[max(new & wanted)])
        if wanted:
            self._said = None
            for number in self._served.keys() - wanted:
                self._drop(number)
        elif not self._served or not found:  # the last one stays, whatever happens to its folder: better than no answer
            self._tell_once(f"{self.folder} holds no version that can be served; {self._what_stays()}")

    def _number(self, number, label):
        demand(label is None or label in self._labels, f"Unrecognized servable version label: {label}")
        return self._labels.get(label, number)

    def _wanted(self, numbers):
        """Return those of `numbers` that are to be served."""
        newest = sorted(numbers)[-self._newest :]
        return numbers & set(self._only or [*newest, *self._labels.values()])

    async def _take_in(self, number, files):
        self.loading = number
        try:
            servable = await asyncio.to_thread(self._load, self.folder / str(number))
        except ValueError as error:
            self._ended[number], self._tried[number] = str(error), files
            return self._tell(f"{self.name}: {error}; {self._what_stays()}")
        finally:
            self.loading = None
        if number in self._served:
            self._drop(number)
        self._served[number], self._tried[number] = servable, files
        self._tell(f"{self.name}: version {number} is served")

    def _drop(self, number):
        self._ended[number] = ""
        self._tried.pop(number)  # to load it again when it is wanted again
        self._close_unused(self._served.pop(number))

    def _close_unused(self, servable):
        if not self._users[servable] and servable not in self._served.values():
            del self._users[servable]
            closing = asyncio.ensure_future(asyncio.to_thread(_close, servable))
            self._closing.add(closing)  # the loop itself keeps no task alive
            closing.add_done_callback(self._closing.discard)

    def _what_stays(self):
        kept = ", ".join(map(str, self.available))
        return f"version {kept} goes on being served" if kept else "there is nothing to serve yet"

    def _tell_once(self, sentence):
        if sentence != self._said:
            self._said = sentence
            self._tell(sentence)


def _scan(folder):
    """Return a dict from the numbers of the versions in a folder to their files, so that every change shows."""
    found = {}
    for child in folder.iterdir():
        is_number = re.fullmatch("0|[1-9][0-9]{0,18}", child.name, re.ASCII) and int(child.name) <= LARGEST
        if is_number and any((child / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            files = found[int(child.name)] = set()
            for path in (os.path.join(root, name) for root, _, names in os.walk(child) for name in names):
                with contextlib.suppress(OSError):  # it may vanish meanwhile
                    status = os.stat(path)
                    files.add((path, status.st_size, status.st_mtime_ns, status.st_ino))
    return found


def _close(servable):
    servable.close()
    del servable
    gc.collect()  # graphs are full of cycles
    with contextlib.suppress(AttributeError):  # glibc keeps what is freed unless told; others have no such function
        ctypes.CDLL(None).malloc_trim(0)
