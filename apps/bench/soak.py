"""Whether apps/serve.py keeps its promises for a long time: saturated, with change-overs and hostile requests."""

import asyncio
import collections
import contextlib
import pathlib
import random
import tempfile
import time

import numpy as np

from bench import hostile
from bench.asking import Server, answers, body, classifiers, pictures
from bench.rounds import write

_CLIENTS, _TOLERANCE, _GROWTH = 16, 1e-4, 50e6
_PATIENCE = 120  # seconds for a change-over


def bench_soak(options):
    """Ask at saturation for minutes; count wrong answers, failed good requests, and bytes of memory."""
    import kresnets

    images = pictures(24)
    with tempfile.TemporaryDirectory() as folder:
        ready, live = pathlib.Path(folder) / "ready", pathlib.Path(folder) / "net"
        live.mkdir()
        expected = {}
        for model in classifiers(options.model, options.size, options.changes + 1, images):
            version = kresnets.export_saved_model(model, ready)
            expected[int(version.name)] = answers(version, images)
        _check_distinct(expected)
        (ready / "1").rename(live / "1")
        with Server(live, "--poll", "0.2", "--timeout", "20") as server:
            soak = Soak(server, images, expected, options)
            asyncio.run(soak.run(ready, live))
            code = server.stop()
    return write(options, [*soak.rows(), _limited("exit code after SIGTERM", code, 0)])


def _check_distinct(expected):
    """Make sure that a wrong answer would be seen: no two versions and no two pictures get nearly the same one."""
    every = [answer for version in expected.values() for answer in version]
    labels = sorted({label for answer in every for label in answer})
    table = np.array([[answer.get(label, 0.0) for label in labels] for answer in every])
    distances = np.abs(table[:, None] - table[None]).max(axis=-1) + np.eye(len(table))
    if distances.min() < 5 * _TOLERANCE:
        raise RuntimeError(f"Two answers differ by {distances.min():.1e} only: give another --model.")


def _limited(what, value, limit):
    value, kept = float(value), bool(value <= limit)
    print(f"{what}: {value:g}, at most {limit:g}: {'kept' if kept else 'MISSED'}", flush=True)
    return {"what": what, "value": value, "limit": limit, "kept": kept}


class Soak:
    """One run.

    Args:
        server: `asking.Server`, which serves version 1.
        images: bytes of the pictures.
        expected: dict version -> answer for each picture.
        options: the bench's: `minutes`, `changes`, `hostile`.
    """

    def __init__(self, server, images, expected, options):
        self._server, self._images, self._expected, self._options = server, images, expected, options
        self._seconds = 60 * options.minutes
        self._published, self._seen, self._baseline = 1, 1, 0
        self._times, self._wrong, self._failed = [], [], []
        self._memory = []  # (seconds since the start of the measured time, bytes)
        self._hostile, self._unmoved, self._slow = collections.Counter(), [], set()
        self._random = random.Random(0)

    async def run(self, ready, live):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            self._session = session
            await self._warm_up()
            self._began = time.monotonic()
            self._end = self._began + self._seconds
            self._publishing = asyncio.ensure_future(self._publish(ready, live))
            clients = [self._client() for _ in range(_CLIENTS)]
            await asyncio.gather(*clients, self._watch(), self._publishing)
            self._took = time.monotonic() - self._began
            for task in self._slow:
                task.cancel()

    async def _warm_up(self):
        """Send good requests at saturation and each hostile one once, so that memory is compared with a busy server's.

        Their answers are judged as all others.
        """
        self._publishing = asyncio.get_running_loop().create_future()
        self._publishing.set_result(None)
        self._end = time.monotonic() + min(60, max(2, self._seconds / 10))
        await asyncio.gather(*(self._client(share=0) for _ in range(_CLIENTS)))
        for name in sorted(hostile.WAYS.keys() - set(hostile.SLOW)):
            await self._be_hostile(name)
        self._end = time.monotonic() + 1
        await asyncio.gather(*(self._client(share=0) for _ in range(_CLIENTS)))
        self._baseline = self._server.memory
        self._times.clear()
        print(f"warmed up; {self._baseline / 1e6:.0f} MB", flush=True)

    async def _client(self, share=None):
        share = self._options.hostile if share is None else share
        while self._goes_on():
            if self._random.random() < share:
                await self._be_hostile(self._random.choice(sorted(hostile.WAYS)))
            else:
                await self._ask()

    async def _ask(self):
        chosen = self._random.choices(range(len(self._images)), k=self._random.choice((1, 1, 1, 2, 5)))
        by_row, lowest, began = self._random.random() < 0.5, self._seen, time.perf_counter()
        data = body([self._images[index] for index in chosen], by_row)
        try:
            async with self._session.post(f"{self._server.url}/v1/models/net:predict", data=data) as response:
                answer = await response.json()
            if response.status != 200:
                raise RuntimeError(answer.get("error"))
        except Exception as error:
            self._failed.append(f"{type(error).__name__}: {error}")
            return
        self._times.append(time.perf_counter() - began)
        # One version for the whole request, and none older than an answer that came before it was sent.
        for version in range(lowest, self._published + 1):
            if self._is(answer, by_row, chosen, version):
                self._seen = max(self._seen, version)
                return
        self._wrong.append(answer)

    def _is(self, answer, by_row, chosen, version):
        if by_row:
            rows = [(row["labels"], row["scores"], row["valid"]) for row in answer["predictions"]]
        else:
            rows = list(zip(*(answer["outputs"][name] for name in ("labels", "scores", "valid"))))
        return len(rows) == len(chosen) and all(
            valid
            and set(labels) == self._expected[version][index].keys()
            and all(
                abs(self._expected[version][index][label] - score) < _TOLERANCE for label, score in zip(labels, scores)
            )
            for index, (labels, scores, valid) in zip(chosen, rows)
        )

    async def _be_hostile(self, name):
        attack = hostile.WAYS[name](self._session, self._server.url, self._images[0])
        if name in hostile.SLOW:  # beside the others, who must not wait for it
            task = asyncio.ensure_future(attack)
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
            self._hostile[name] += 1
            return
        problem = await attack
        self._hostile[name] += 1
        if problem:
            self._unmoved.append(f"{name}: {problem}")

    def _goes_on(self):
        """Say whether clients ask on: a busy machine takes its time for the last change-over."""
        return time.monotonic() < self._end or not self._publishing.done()

    async def _publish(self, ready, live):
        """Rename the next version into place now and then, as export does, and wait for the first answer of it."""
        for version in sorted(self._expected)[1:]:
            await asyncio.sleep(self._seconds / (self._options.changes + 1))
            self._published = version
            (ready / str(version)).rename(live / str(version))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while self._seen < version:
                        await asyncio.sleep(0.05)

    async def _watch(self):
        """Note the memory each second, and print how it goes twenty times."""
        told = 0
        while self._goes_on():
            seconds = time.monotonic() - self._began
            with contextlib.suppress(OSError):
                self._memory.append((round(seconds, 1), self._server.memory))
                if seconds >= told:
                    told += self._seconds / 20
                    print(
                        f"{seconds:.0f} of {self._seconds:.0f} s: version {self._seen}, {len(self._times)} good "
                        "requests, "
                        f"{len(self._wrong)} wrong, {len(self._failed)} failed, {self._memory[-1][1] / 1e6:.0f} MB",
                        flush=True,
                    )
            await asyncio.sleep(min(1, self._seconds / 60))

    def rows(self):
        """Print what was found, and return it."""
        for problems in (self._wrong, self._failed, self._unmoved):
            for problem in problems[:3]:
                print(f"  {str(problem)[:300]}")
        p50, p95, p99 = (1000 * value for value in np.percentile(self._times, (50, 95, 99)))
        hostile_ones = dict(sorted(self._hostile.items()))
        print(
            f"{len(self._times)} good requests, {len(self._times) / self._took:.1f} a second; p50 {p50:.1f} ms, "
            f"p95 {p95:.1f}, p99 {p99:.1f}; {sum(self._hostile.values())} hostile: {hostile_ones}",
            flush=True,
        )
        bytes_held = [held for _, held in self._memory]
        late, most = float(np.median(bytes_held[-max(1, len(bytes_held) // 10) :])), max(bytes_held)
        print(f"memory {self._baseline / 1e6:.0f} MB warmed up, {late / 1e6:.0f} late, {most / 1e6:.0f} at most")
        return [
            {
                "what": "good requests",
                "value": len(self._times),
                "seconds": self._took,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
            },
            {"what": "memory", "warm": self._baseline, "late": late, "most": most, "samples": self._memory},
            _limited("wrong answers", len(self._wrong), 0),
            _limited("failed good requests", len(self._failed), 0),
            _limited("hostile requests with another answer than a refusal", len(self._unmoved), 0),
            _limited("change-overs that did not come", max(self._expected) - self._seen, 0),
            _limited("memory that grew, bytes", late - self._baseline, _GROWTH),
        ]
