"""Requests joined into batches, over a model that doubles and records what it was asked."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest

from kresnets.serving.batching import Batcher
from kresnets.serving.errors import Refusal

pytestmark = pytest.mark.anyio


class Doubler:
    """Doubles, behind a batcher, while `free` is set."""

    can_batch = True

    def __init__(self, wait=0.0):
        self.asked, self.free, self.signatures = [], threading.Event(), {"double": self}
        self.batcher, self.held = Batcher(8, wait, 40, lambda rows, seconds: None, self.hold), 0
        self.free.set()

    @contextlib.contextmanager
    def hold(self, servable):
        servable.held += 1
        yield
        servable.held -= 1

    def run(self, signature, inputs):
        [x] = inputs.values()
        self.asked.append(len(x))
        self.free.wait(60)
        assert self.held == 1  # also where nobody waits for the answer any more
        return {"y": 2 * x}

    async def answer(self, *numbers):
        return (await self.batcher.compute(self, "double", {"x": np.array(numbers, float)}))["y"].tolist()

    async def asking(self, *requests):
        """Return tasks that wait: one computes already and keeps the model."""
        self.free.clear()
        self.head = asyncio.create_task(self.answer(0))
        while not self.asked:
            await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(self.answer(*numbers)) for numbers in requests]
        await asyncio.sleep(0.01)
        return tasks


async def test_what_waits_is_computed_together_and_each_gets_its_own():
    model, requests = Doubler(), [[10 * count + row for row in range(count)] for count in (1, 2, 3, 5, 12, 1, 1)]
    tasks = await model.asking(*requests)
    assert model.batcher.waiting == 26
    model.free.set()
    assert await asyncio.gather(*tasks) == [[2 * number for number in numbers] for numbers in requests]
    assert model.asked[:3] == [1, 8, 8] and sum(model.asked) == 26
    assert set(model.asked) <= {1, 2, 4, 8} and model.batcher.waiting == 0  # sizes that were warmed up


@pytest.mark.parametrize(("wait", "count", "least"), [(1.0, 4, 0.95), (600.0, 8, 0.0)])
async def test_a_batch_waits_for_others_until_it_is_full(wait, count, least):
    model, started = Doubler(wait), time.monotonic()
    assert await asyncio.gather(*map(model.answer, range(count))) == [[2 * number] for number in range(count)]
    assert model.asked == [count] and least < time.monotonic() - started < least + 60


async def test_what_cannot_be_joined_runs_alone():
    model = Doubler()
    await model.asking()
    shapes = [model.batcher.compute(model, "double", {"x": np.ones((2, side))}) for side in (3, 4, 3)]
    shapes = [asyncio.create_task(each) for each in shapes]
    await asyncio.sleep(0.01)
    model.can_batch = False
    alone = [asyncio.create_task(model.answer(*numbers)) for numbers in ((1, 2), (3,))]
    await asyncio.sleep(0.01)
    model.free.set()
    assert [(await each)["y"].shape for each in shapes] == [(2, 3), (2, 4), (2, 3)]
    assert [await each for each in alone] == [[2, 4], [6]] and model.asked == [1, 4, 2, 2, 1]


async def test_a_full_queue_refuses_and_what_was_given_up_is_not_computed():
    model = Doubler()
    tasks = await model.asking(range(10), range(29))
    with pytest.raises(Refusal, match="queue") as refusal:
        await model.answer(1)
    assert refusal.value.status == 503 and model.batcher.waiting == 40
    for task in tasks:
        task.cancel()
    await asyncio.sleep(0.01)
    model.free.set()
    assert await model.answer(1) == [2] and model.asked == [1, 1]


async def test_a_request_of_many_rows_holds_up_no_other_and_may_be_given_up_half_way():
    model = Doubler()
    many, one = await model.asking(range(38), [7])
    model.free.set()
    assert await one == [14] and not many.done() and sum(model.asked) <= 1 + 8 + 8
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    assert await model.answer(5) == [10] and sum(model.asked) < 30
