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
    """Doubles while `free` is set; a negative number is an error."""

    can_batch = True

    def __init__(self):
        self.asked, self.free, self.signatures = [], threading.Event(), {"double": self}
        self.free.set()

    def run(self, signature, inputs):
        [x] = inputs.values()
        self.asked.append(len(x))
        self.free.wait(60)
        if (x < 0).any():
            raise RuntimeError("a negative number")
        return {"y": 2 * x}


@pytest.fixture
def model():
    return Doubler()


@pytest.fixture
async def ask(model, batcher):
    """Function that asks, in a task of its own."""

    async def answer(*numbers):
        return (await batcher.compute(model, "double", {"x": np.array(numbers, float)}))["y"].tolist()

    yield lambda *numbers: asyncio.create_task(answer(*numbers))
    assert batcher.waiting == 0


@pytest.fixture
async def batcher(request):
    yield Batcher(8, getattr(request, "param", 0.0), 40, lambda rows, seconds: None, contextlib.nullcontext)


@pytest.fixture
async def busy(model, ask):
    """A model that computes a request already, so that the others wait for it."""
    model.free.clear()
    head = ask(0)
    while not model.asked:
        await asyncio.sleep(0.001)
    yield
    assert await head == [0]


async def test_what_waits_is_computed_together_and_each_gets_its_own(batcher, model, ask, busy):
    counts = (1, 2, 3, 5, 12, 1, 1)
    asked = [ask(*(10 * count + row for row in range(count))) for count in counts]
    await asyncio.sleep(0.01)
    assert batcher.waiting == 26
    model.free.set()
    wanted = [[2 * (10 * count + row) for row in range(count)] for count in counts]
    assert await asyncio.gather(*asked) == wanted
    assert sum(model.asked) == 26 and set(model.asked) <= {1, 2, 4, 8}  # sizes that were warmed up
    assert model.asked[:3] == [1, 8, 8]


@pytest.mark.parametrize("batcher", [1.0], indirect=True)
async def test_a_batch_waits_for_others(batcher, model, ask):
    started = time.monotonic()
    assert await asyncio.gather(*map(ask, range(4))) == [[0], [2], [4], [6]]
    assert model.asked == [4] and time.monotonic() - started > 0.95


@pytest.mark.parametrize("batcher", [600.0], indirect=True)
async def test_a_full_batch_does_not_wait(batcher, model, ask):
    await asyncio.gather(*map(ask, range(8)))
    assert model.asked == [8]


async def test_one_that_fails_does_not_fail_its_neighbours(batcher, model, ask, busy):
    asked = ask(1), ask(-1), ask(2, 3)
    await asyncio.sleep(0.01)
    model.free.set()
    assert [await asked[0], await asked[2]] == [[2], [4, 6]]
    with pytest.raises(RuntimeError, match="negative"):
        await asked[1]


async def test_what_cannot_be_joined_runs_alone(batcher, model, ask, busy):
    shapes = [asyncio.create_task(batcher.compute(model, "double", {"x": np.ones((2, side))})) for side in (3, 4, 3)]
    await asyncio.sleep(0.01)
    model.can_batch = False
    alone = ask(1, 2), ask(3)
    await asyncio.sleep(0.01)
    model.free.set()
    assert [(await each)["y"].shape for each in shapes] == [(2, 3), (2, 4), (2, 3)]
    assert [await each for each in alone] == [[2, 4], [6]] and model.asked == [1, 4, 2, 2, 1]


async def test_rows_without_partners_and_models_that_lose_rows_are_refused(batcher, model, ask):
    with pytest.raises(Refusal, match="different numbers of rows"):
        await batcher.compute(model, "double", {"a": np.ones(2), "b": np.ones(3)})
    model.run = lambda signature, inputs: {"y": np.ones(7)}
    with pytest.raises(RuntimeError, match="a row for each row"):
        await ask(1, 2)


async def test_a_full_queue_refuses_and_what_was_given_up_is_not_computed(batcher, model, ask, busy):
    asked = [ask(*range(10)), ask(*range(29))]
    await asyncio.sleep(0.01)
    with pytest.raises(Refusal, match="queue") as refusal:
        await ask(1)
    assert refusal.value.status == 503 and batcher.waiting == 40
    for each in asked:
        each.cancel()
    await asyncio.sleep(0.01)
    model.free.set()
    assert await ask(1) == [2] and model.asked == [1, 1]


async def test_a_request_of_many_rows_holds_up_no_other_and_may_be_given_up_half_way(batcher, model, ask, busy):
    many, one = ask(*range(38)), ask(7)
    await asyncio.sleep(0.01)
    model.free.set()
    assert await one == [14] and not many.done() and sum(model.asked) <= 1 + 8 + 8
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    assert await ask(5) == [10] and sum(model.asked) < 30


@pytest.mark.parametrize("batcher", [0.001], indirect=True)
async def test_clients_that_ask_at_once_get_what_is_theirs(batcher, model, ask):
    async def client(seed):
        random = np.random.default_rng(seed)
        for _ in range(100):
            numbers = random.integers(0, 1000, random.integers(0, 3)).astype(float)
            assert await ask(*numbers) == (2 * numbers).tolist()

    await asyncio.gather(*map(client, range(12)))
    assert max(model.asked) == 8 and np.mean([size for size in model.asked if size]) > 3
