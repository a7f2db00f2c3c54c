"""Joins requests into batches, and computes these one after the other in a thread of their own."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kresnets.serving.errors import demand


def batch_sizes(largest: int) -> list[int]:
    """Return the sizes that are warmed up, as oneDNN prepares each anew: powers of two, and `largest` itself."""
    sizes = [1 << power for power in range(largest.bit_length())]
    return sizes if sizes[-1] == largest else [*sizes, largest]


@dataclasses.dataclass(eq=False)
class _Entry:
    """A row of a request, or a whole request that cannot be batched."""

    servable: Any
    signature: str
    rows: int
    key: tuple | None  # rows of one key may be joined; None: never
    inputs: Mapping[str, np.ndarray]
    arrived: float
    answer: asyncio.Future


class Batcher:
    """Computes requests in batches. Everything but that happens in the event loop, so nothing here needs a lock.

    Args:
        largest: Rows in a batch at most; 0 to compute each request by itself.
        wait: Seconds that a row waits at most for others to join it.
        longest_queue: Rows that may be here; with more, requests are refused.
        observe: Called with the rows and the seconds of each batch.
        hold: Function from a servable to a context manager that keeps it open.
    """

    def __init__(self, largest: int, wait: float, longest_queue: int, observe: Callable, hold: Callable):
        self.waiting = 0  # rows that have no answer yet
        self._sizes = batch_sizes(largest) if largest else []
        self._wait, self._longest, self._observe, self._hold = wait, longest_queue, observe, hold
        self._queue: list[Any] = []
        self._arrived, self._worker = asyncio.Event(), None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")

    async def compute(self, servable: Any, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a request, or raise a `Refusal` where the queue is full or the numbers of rows differ.

        One of many rows holds up no other: it queues as many as a batch has, and goes to the end for more. Once this
        is cancelled, rows whose turn has not come are not computed.
        """
        rows, key = 1, None
        if servable.signatures[signature].can_batch:
            counts = {len(array) for array in inputs.values()}
            demand(len(counts) == 1, f"The inputs have different numbers of rows: {sorted(counts)}.")
            [rows] = counts
            if self._sizes and rows:  # an empty batch goes by itself
                key = (servable, signature, *(array.shape[1:] for array in inputs.values()))
        room = not self.waiting or self.waiting + rows <= self._longest
        demand(room, "The batch scheduling queue to which this task was submitted is full", "UNAVAILABLE")
        parts = [_part(inputs, row) for row in range(rows)] if key else [inputs]
        answers: list[Any] = []
        request = (servable, signature, rows // len(parts), key)
        self.waiting += rows
        try:
            while few := parts[len(answers) :][: self._sizes[-1] if key else 1]:
                answers += await self._answers(request, few)
            return _joined(answers)
        finally:
            self.waiting -= rows

    async def _answers(self, request, parts):
        loop = asyncio.get_running_loop()
        entries = [_Entry(*request, part, loop.time(), loop.create_future()) for part in parts]
        self._queue += entries
        self._arrived.set()
        if not self._worker or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await asyncio.gather(*(each.answer for each in entries))
        finally:
            for each in entries:
                each.answer.cancel()

    async def _work(self):
        """Compute until the queue is empty."""
        while batch := await self._next():
            with self._hold(batch[0].servable):  # also where nobody waits for the answer any more
                await self._compute(batch)
            for _ in range(3):  # so that who has an answer and more rows is in the queue before the next batch
                await asyncio.sleep(0)

    async def _next(self):
        """Wait for entries that fill a batch, and take them out of the queue; return none when it is empty."""
        while True:
            self._queue = [each for each in self._queue if not each.answer.done()]  # some were given up
            batch = [each for each in self._queue if each.key == self._queue[0].key]
            if batch and batch[0].key is None:
                batch = batch[:1]
            elif batch:
                left = batch[0].arrived + self._wait - asyncio.get_running_loop().time()
                if len(batch) < self._sizes[-1] and left > 0:
                    self._arrived.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._arrived.wait(), left)
                    continue
                batch = batch[: max(size for size in self._sizes if size <= len(batch))]
            self._queue = [each for each in self._queue if each not in batch]
            return batch

    async def _compute(self, batch):
        loop, started = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        try:
            answers = await loop.run_in_executor(self._thread, _run, batch)
            self._observe(sum(each.rows for each in batch), loop.time() - started)
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
        except Exception as error:  # whatever TensorFlow raises
            if len(batch) == 1 and not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            for each in batch if len(batch) > 1 else ():  # one bad row must not fail its neighbours
                if not each.answer.done():
                    await self._compute([each])


def _run(batch):
    outputs = batch[0].servable.run(batch[0].signature, _joined([each.inputs for each in batch]))
    if batch[0].key is None:
        return [outputs]
    if any(len(array) != len(batch) for array in outputs.values()):
        raise RuntimeError("The model does not give a row for each row that it takes: it needs --no-batching.")
    return [_part(outputs, row) for row in range(len(batch))]


def _part(arrays, row):
    return {name: array[row : row + 1] for name, array in arrays.items()}


def _joined(parts):
    return parts[0] if len(parts) == 1 else {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
