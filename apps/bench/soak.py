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
from bench.rounds import tell, write
from bench.serving import percentiles

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
    return tell({"what": what, "value": float(value), "limit": limit, "kept": bool(value <= limit)})


class Soak:
    """One run against a `Server` of version 1; `expected` has the answer for each of the pictures by version."""

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
            clients = [self._client(self._options.hostile) for _ in range(_CLIENTS)]
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

    async def _client(self, share):
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
        wanted = [self._expected[version][index] for index in chosen]
        return len(rows) == len(chosen) and all(
            valid
            and set(labels) == one.keys()
            and all(abs(one[label] - score) < _TOLERANCE for label, score in zip(labels, scores))
            for one, (labels, scores, valid) in zip(wanted, rows)
        )

    async def _be_hostile(self, name):
        attack = hostile.WAYS[name](self._session, self._server.url, self._images[0])
        self._hostile[name] += 1
        if name in hostile.SLOW:  # beside the others, who must not wait for it
            task = asyncio.ensure_future(attack)
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
        elif problem := await attack:
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
        """Note the memory each second, and tell how it goes twenty times."""
        told = 0
        while self._goes_on():
            seconds = time.monotonic() - self._began
            with contextlib.suppress(OSError):
                self._memory.append((round(seconds, 1), self._server.memory))
                if seconds >= told:
                    told += self._seconds / 20
                    tell({"what": "so far"} | self._counts(seconds))
            await asyncio.sleep(min(1, self._seconds / 60))

    def _counts(self, seconds):
        found = {"value": len(self._times), "seconds": seconds, "version": self._seen, "MB": self._memory[-1][1] / 1e6}
        return found | {"wrong": len(self._wrong), "failed": len(self._failed)}

    def rows(self):
        """Tell what was found, and return it."""
        for problem in (*self._wrong[:3], *self._failed[:3], *self._unmoved[:3]):
            print(f"  {str(problem)[:300]}")
        tell({"what": "hostile requests"} | dict(sorted(self._hostile.items())))
        held = [held for _, held in self._memory]
        late, most = float(np.median(held[-max(1, len(held) // 10) :])), max(held)
        return [
            tell({"what": "good requests"} | self._counts(self._took) | percentiles(self._times)),
            tell({"what": "memory", "warm": self._baseline, "late": late, "most": most, "samples": self._memory}),
            _limited("wrong answers", len(self._wrong), 0),
            _limited("failed good requests", len(self._failed), 0),
            _limited("hostile requests with another answer than a refusal", len(self._unmoved), 0),
            _limited("change-overs that did not come", max(self._expected) - self._seen, 0),
            _limited("memory that grew, bytes", late - self._baseline, _GROWTH),
        ]
