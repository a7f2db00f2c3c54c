"""The versions of a model: found by looking into its folder again and again, loaded, changed over, dropped.

Everything but the reading and loading itself happens in the event loop, so nothing here needs a lock.
"""

import asyncio
import contextlib
import os
import pathlib
import re

from _serve import memory
from _serve.refusal import Refusal

_LARGEST = 2**63 - 1  # versions are int64 in TF Serving


def scan(folder):
    """Find the versions in a folder.

    Returns:
        dict number -> fingerprint: the name, size and time of every file, so that a change shows. A folder without
        saved_model.pb is no version yet.

    Raises:
        OSError: when the folder cannot be read.
    """
    found = {}
    for child in pathlib.Path(folder).iterdir():
        if re.fullmatch("0|[1-9][0-9]{0,18}", child.name, re.ASCII) and int(child.name) <= _LARGEST:
            fingerprint = _fingerprint(child)
            if any(name in ("saved_model.pb", "saved_model.pbtxt") for name, *_ in fingerprint):
                found[int(child.name)] = fingerprint
    return found


def _fingerprint(folder):
    files = []
    for root, _, names in os.walk(folder):  # without following links, and in silence where one vanishes
        for name in names:
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                status = os.stat(path)
                files.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(sorted(files))


class Policy:
    """Which versions are to be served.

    Args:
        newest: how many, from the highest number down.
        only: numbers, to serve just these; takes the place of `newest`.
        labels: dict label -> number.
    """

    def __init__(self, newest=1, only=(), labels=None):
        self._newest, self._only, self.labels = newest, frozenset(only), dict(labels or {})

    def wanted(self, numbers):
        """Return those of `numbers` that are to be served, highest first."""
        numbers = sorted(numbers, reverse=True)
        if self._only:
            return [number for number in numbers if number in self._only]
        return [number for rank, number in enumerate(numbers) if rank < self._newest or number in self.labels.values()]


class _Held:
    """A loaded version, and how many requests use it."""

    def __init__(self, servable, fingerprint):
        self.servable, self.fingerprint = servable, fingerprint
        self.users, self.dropped = 0, False


class Versions:
    """The versions of one model, as they come and go.

    Args:
        name: of the model.
        folder: the parent of the versions.
        load: function from a version's folder to a `Servable`; it may take its time and raise ValueError.
        policy: `Policy`.
        tell: called with a sentence about each change and each failure.
    """

    def __init__(self, name, folder, load, policy, tell=print):
        self.name, self._folder, self._load, self._policy, self._tell = name, pathlib.Path(folder), load, policy, tell
        self._held = {}  # number -> _Held
        self._failed = {}  # number -> (fingerprint, reason)
        self._ended, self._loading, self._seen, self._told = set(), None, {}, None
        self._closing = set()

    @property
    def available(self):
        """Numbers of the versions that answer, highest first."""
        return sorted(self._held, reverse=True)

    @property
    def loading(self):
        """Whether a version is being loaded."""
        return self._loading is not None

    async def poll(self, first=False):
        """Look into the folder once and do what it asks for.

        Args:
            first: take the folder as it is. Else a version is loaded when two looks in a row found the same files in
                it: one that is being copied is left alone.
        """
        try:
            found = await asyncio.to_thread(scan, self._folder)
        except OSError as error:
            return self._tell_once(f"{self._folder} cannot be read ({error.strerror}); {self._what_stays()}")
        settled = {number for number, files in found.items() if first or self._seen.get(number) == files}
        self._seen = found
        self._failed = {number: each for number, each in self._failed.items() if found.get(number) == each[0]}
        while (number := self._missing(found, settled)) is not None:
            await self._take_in(number, found[number])
        wanted = self._policy.wanted([number for number in found if number in self._held])
        if not wanted:  # the last one stays, whatever happens to its folder: better than no answer
            if not self._held or not found:
                self._tell_once(f"{self._folder} holds no version that can be served; {self._what_stays()}")
            return
        self._told = None
        for number in set(self._held) - set(wanted):
            self._drop(number)

    def _missing(self, found, settled):
        """Return the highest version that is wanted and not yet held as it is now; one that failed counts for none."""
        usable = [number for number in found if number in self._held or number in settled - self._failed.keys()]
        for number in self._policy.wanted(usable):
            held = self._held.get(number)
            changed = not held or held.fingerprint != found[number]
            if changed and number in settled and number not in self._failed:
                return number
        return None

    async def _take_in(self, number, fingerprint):
        self._loading = number
        try:
            servable = await asyncio.to_thread(self._load, self._folder / str(number))
        except ValueError as error:
            self._failed[number] = fingerprint, str(error)
            self._tell(f"{self.name}: {error}; {self._what_stays()}")
            return
        finally:
            self._loading = None
        if number in self._held:
            self._drop(number)
        self._held[number] = _Held(servable, fingerprint)
        self._ended.discard(number)
        self._tell(f"{self.name}: version {number} is served")

    def _what_stays(self):
        kept = ", ".join(map(str, self.available))
        return f"version {kept} goes on being served" if kept else "there is nothing to serve yet"

    def _tell_once(self, sentence):
        if sentence != self._told:
            self._told = sentence
            self._tell(sentence)

    def _drop(self, number):
        held = self._held.pop(number)
        held.dropped = True
        self._ended.add(number)
        self._close_unused(held)

    def _close_unused(self, held):
        if held.dropped and not held.users:
            closing = asyncio.ensure_future(asyncio.to_thread(_close, held.servable))
            self._closing.add(closing)  # the loop itself keeps no task alive
            closing.add_done_callback(self._closing.discard)

    @contextlib.contextmanager
    def use(self, number=None, label=None):
        """Hold a version open: the one of this number or label, or the highest.

        Yields:
            its `Servable`.

        Raises:
            Refusal: when there is none.
        """
        if label is not None:
            number = self.number_of(label)
        if number is None:
            number = max(self._held, default=None)
            wanted = f"Latest({self.name})"
        else:
            wanted = f"Specific({self.name}, {number})"
        if number not in self._held:
            raise Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")
        held = self._held[number]
        held.users += 1
        try:
            yield held.servable
        finally:
            held.users -= 1
            self._close_unused(held)

    def number_of(self, label):
        """Return the number that a label stands for."""
        if label not in self._policy.labels:
            raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self._policy.labels[label]

    def status(self, number=None):
        """Return the states of all versions, or of one, highest first, as TF Serving tells them.

        Raises:
            Refusal: for a version that was never there.
        """
        states = {each: ("END", "OK", "") for each in self._ended}
        states |= {each: ("END", "UNKNOWN", reason) for each, (_, reason) in self._failed.items()}
        if self._loading is not None:
            states[self._loading] = "LOADING", "OK", ""
        states |= {each: ("AVAILABLE", "OK", "") for each in self._held}
        if number is not None:
            states = {number: states[number]} if number in states else {}
        if not states:
            what = "any versions" if number is None else f"version {number}"
            raise Refusal("NOT_FOUND", f"Could not find {what} of model {self.name}")
        return [
            {"version": str(each), "state": state, "status": {"error_code": code, "error_message": message}}
            for each, (state, code, message) in sorted(states.items(), reverse=True)
        ]

    async def close(self):
        """Drop all versions and wait until they are freed."""
        for number in list(self._held):
            self._drop(number)
        await asyncio.gather(*self._closing)


def _close(servable):
    servable.close()
    del servable
    memory.collect()
