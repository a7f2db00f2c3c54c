"""The one thread that runs models, and the queue before it, where requests are joined into batches."""

import collections
import concurrent.futures
import dataclasses
import threading
import time

import numpy as np

from _serve.refusal import Refusal


def batch_sizes(largest):
    """Return the sizes of batches: powers of two up to `largest`, and `largest` itself.

    Every size is computed once before a version answers (oneDNN prepares each anew). A batch takes the largest size
    that the queue fills, so nothing is padded.

    Example:
        >>> batch_sizes(12)
        [1, 2, 4, 8, 12]
    """
    sizes = [1 << power for power in range(largest.bit_length())]
    return sizes if sizes[-1] == largest else [*sizes, largest]


class _Answer(concurrent.futures.Future):
    """A future that can be given up also while it is computed: what is left of it is dropped then."""

    abandoned = False

    def cancel(self):
        self.abandoned = True
        return super().cancel()


@dataclasses.dataclass(eq=False)
class _Work:
    """A request in the queue, and the parts of its answer that there are."""

    servable: object
    signature: str
    inputs: dict
    rows: int
    key: tuple | None  # requests of one key may be joined; None: never
    future: _Answer = dataclasses.field(default_factory=_Answer)
    arrived: float = dataclasses.field(default_factory=time.monotonic)
    taken: int = 0
    parts: list = dataclasses.field(default_factory=list)

    @property
    def left(self):
        return self.rows - self.taken


class Batcher:
    """Runs requests in batches, to which those that wait contribute in turn: one of many rows holds up no other.

    Args:
        largest: rows in a batch at most; 0 to run each request by itself.
        wait: seconds that a request waits at most for others to join it.
        longest_queue: rows that may wait; with more, requests are refused.
        observe: called with the rows and the seconds of each batch.
    """

    def __init__(self, largest, wait, longest_queue, observe=lambda rows, seconds: None):
        self._sizes = batch_sizes(largest) if largest else []
        self._wait, self._longest, self._observe = wait, longest_queue, observe
        self._queue, self._changed, self._stopped = collections.deque(), threading.Condition(), False
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self):
        """Rows in the queue."""
        with self._changed:
            return sum(work.left for work in self._queue if not work.future.abandoned)

    def submit(self, servable, signature, inputs):
        """Queue a request.

        Args:
            servable: `Servable`, which must stay open until the answer is there.
            signature: name of one of its signatures.
            inputs: dict name -> array.

        Returns:
            concurrent.futures.Future of a dict name -> array. Once it is cancelled, rows whose turn has not come are
            not computed.

        Raises:
            Refusal: when the queue is full, or the inputs of a signature that can be batched have no common number
                of rows.
        """
        rows, key = 1, None
        if servable.signatures[signature].can_batch:
            counts = {len(array) for array in inputs.values()}
            if len(counts) > 1:
                raise Refusal("INVALID_ARGUMENT", f"The inputs have different numbers of rows: {sorted(counts)}.")
            [rows] = counts
            if self._sizes and rows:  # an empty batch goes by itself
                key = (servable, signature, *(array.shape[1:] for array in inputs.values()))
        work = _Work(servable, signature, inputs, rows, key)
        with self._changed:
            if self._queue and self.waiting + rows > self._longest:
                raise Refusal("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            self._queue.append(work)
            self._changed.notify()
        return work.future

    def stop(self):
        """End the thread once what it computes is done; what waits is cancelled."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _loop(self):
        while (batch := self._next()) is not None:
            self._run(batch)
            del batch  # else the last request, and its version, would stay until the next one comes

    def _next(self):
        """Wait for a batch: a list of (work, first row, end row); None when stopped."""
        with self._changed:
            while True:
                if self._stopped:
                    for work in self._queue:
                        work.future.cancel()
                self._drop_abandoned()
                if self._stopped:
                    return None
                if not self._queue:
                    self._changed.wait()
                    continue
                head = self._queue[0]
                if head.key is None:
                    return self._take([head], head.left)
                fellows = [work for work in self._queue if work.key == head.key]
                rows = sum(work.left for work in fellows)
                left = min(work.arrived for work in fellows) + self._wait - time.monotonic()
                if rows >= self._sizes[-1] or left <= 0:
                    return self._take(fellows, max(size for size in self._sizes if size <= rows))
                self._changed.wait(left)

    def _drop_abandoned(self):
        for work in [work for work in self._queue if work.future.abandoned]:
            self._queue.remove(work)
            if work.taken or work.future.set_running_or_notify_cancel():
                work.future.set_exception(concurrent.futures.CancelledError())

    def _take(self, works, rows):
        batch = []
        for work, share in zip(works, _shares([work.left for work in works], rows)):
            if work.left and not share:
                continue
            self._queue.remove(work)
            if work.taken == 0 and not work.future.set_running_or_notify_cancel():
                continue  # cancelled this very moment
            batch.append((work, work.taken, work.taken + share))
            work.taken += share
            if work.left:
                self._queue.append(work)  # behind those that had no turn yet
        return batch

    def _run(self, batch):
        if not batch:
            return
        try:
            answers = self._compute(batch)
        except Exception as error:  # whatever TensorFlow raises: it belongs to the request, not to this thread
            if len(batch) == 1:
                self._fail(batch[0][0], error)
            else:  # one bad request must not fail its neighbours
                for each in batch:
                    self._run([each])
            return
        for (work, _, _), answer in zip(batch, answers):
            work.parts.append(answer)
            if work.taken == work.rows and not work.future.done():
                work.future.set_result(_joined(work.parts))

    def _compute(self, batch):
        first, start = batch[0][0], time.monotonic()
        if len(batch) == 1 and batch[0][1:] == (0, first.rows):
            outputs = first.servable.run(first.signature, first.inputs)
            answers = [outputs]
        else:
            inputs = {
                name: np.concatenate([work.inputs[name][begin:end] for work, begin, end in batch])
                for name in first.inputs
            }
            outputs = first.servable.run(first.signature, inputs)
            edges = np.cumsum([end - begin for _, begin, end in batch])
            if any(len(array) != edges[-1] for array in outputs.values()):
                raise RuntimeError("The model does not give a row for each row that it takes.")
            split = {name: np.split(array, edges[:-1]) for name, array in outputs.items()}
            answers = [{name: parts[index] for name, parts in split.items()} for index in range(len(batch))]
        self._observe(sum(end - begin for _, begin, end in batch), time.monotonic() - start)
        return answers

    def _fail(self, work, error):
        with self._changed:
            if work in self._queue:
                self._queue.remove(work)
        if not work.future.done():
            work.future.set_exception(error)


def _shares(lefts, rows):
    """Deal out rows in turn to works that have so many left.

    Example:
        >>> _shares([5, 1, 3], 7)
        [3, 1, 3]
    """
    shares, rows = [0] * len(lefts), min(rows, sum(lefts))
    while rows:
        for index, left in enumerate(lefts):
            if rows and shares[index] < left:
                shares[index] += 1
                rows -= 1
    return shares


def _joined(parts):
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
