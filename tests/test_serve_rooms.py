"""The rooms of apps/serve.py by themselves: JSON as TF Serving documents it, batches, versions that come and go."""

import asyncio
import base64
import concurrent.futures
import errno
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

APPS = pathlib.Path(__file__).resolve().parents[1] / "apps"
sys.path.insert(0, str(APPS))

import serve
from _serve import batching, tensors, versions
from _serve.refusal import Refusal
from _serve.tensors import Tensor

# --- JSON: the examples of tensorflow_serving/g3doc/api_rest.md ---

TAG = Tensor("tag:0", np.dtype(object), (None,))
SIGNAL = Tensor("signal:0", np.dtype("int64"), (None, 5))
SENSOR = Tensor("sensor:0", np.dtype("float32"), (None, 2, 2))
THREE = {"tag": TAG, "signal": SIGNAL, "sensor": SENSOR}
ROWS = b"""{"instances": [
   {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
   {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}]}"""
COLUMNS = b"""{"inputs": {"tag": ["foo", "bar"],
   "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]], "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}}"""
STRINGS = {"text": TAG}
FLOATS = {"x": Tensor("x:0", np.dtype("float32"), (None,))}


def read(body, inputs):
    signature, arrays = tensors.parse(body if isinstance(body, bytes) else json.dumps(body).encode())
    return signature, *arrays(inputs)


@pytest.mark.parametrize(("body", "by_row"), [(ROWS, True), (COLUMNS, False)])
def test_rows_and_columns_of_the_documentation(body, by_row):
    signature, arrays, asked_by_row = read(body, THREE)
    assert (signature, asked_by_row) == ("serving_default", by_row)
    assert arrays["tag"].tolist() == [b"foo", b"bar"]
    assert arrays["signal"].tolist() == [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]] and arrays["signal"].dtype == "int64"
    assert arrays["sensor"].tolist() == [[[1, 2], [3, 4]], [[4, 5], [6, 8]]] and arrays["sensor"].dtype == "float32"


def test_one_input_needs_no_name():
    assert read({"instances": ["foo", "bar", "baz"]}, STRINGS)[1]["text"].tolist() == [b"foo", b"bar", b"baz"]
    assert read({"inputs": ["foo"]}, STRINGS)[1]["text"].tolist() == [b"foo"]
    two = {"x": Tensor("x:0", np.dtype("float32"), (None, 1, 2))}
    assert read({"instances": [[[1, 2]], [[3, 4]]]}, two)[1]["x"].shape == (2, 1, 2)
    assert read({"signature_name": "other", "instances": ["a"]}, STRINGS)[0] == "other"


@pytest.mark.parametrize("content", [b"", b"\0\xff\n\0", bytes(range(256)) * 50])
def test_bytes_come_in_base64(content):
    text = base64.b64encode(content).decode()
    wrapped = base64.encodebytes(content).decode()
    for given in (text, wrapped, text.rstrip("=")):
        arrays = read({"instances": [{"b64": given}, "plain"]}, STRINGS)[1]
        assert arrays["text"].tolist() == [content, b"plain"]
    assert read({"instances": [{"text": {"b64": text}}]}, STRINGS)[1]["text"].tolist() == [content]
    assert read({"inputs": {"text": [{"b64": text}]}}, STRINGS)[1]["text"].tolist() == [content]


def test_numbers_that_json_has_no_word_for():
    """The documentation: bare NaN, Infinity and -Infinity are taken and given."""
    array = read(b'{"instances": [1.0, -3.14, NaN, Infinity, -Infinity, 1e-3]}', FLOATS)[1]["x"]
    np.testing.assert_array_equal(array, np.array([1, -3.14, np.nan, np.inf, -np.inf, 1e-3], "float32"))
    assert tensors.dump({"x": array[2:5]}, True) == b'{"predictions": [NaN, Infinity, -Infinity]}'


def test_answers_by_row_and_by_column():
    """The documentation: objects of all outputs, or the only one without its name; names in _bytes are base64."""
    scores, labels = (
        np.array([[0.97, 0.03], [1, 0]], "float32"),
        np.array([["größe".encode(), b"b"], [b"", b"x"]], object),
    )
    assert json.loads(tensors.dump({"scores": scores, "labels": labels}, True)) == {
        "predictions": [{"scores": [0.97, 0.03], "labels": ["größe", "b"]}, {"scores": [1, 0], "labels": ["", "x"]}]
    }
    assert json.loads(tensors.dump({"scores": scores, "labels": labels}, False)) == {
        "outputs": {"scores": [[0.97, 0.03], [1, 0]], "labels": [["größe", "b"], ["", "x"]]}
    }
    assert json.loads(tensors.dump({"scores": scores}, True)) == {"predictions": [[0.97, 0.03], [1, 0]]}
    raw = np.array([b"\0\xff"], object)
    assert json.loads(tensors.dump({"raw_bytes": raw}, True)) == {"predictions": [{"b64": "AP8="}]}


def test_numbers_survive_the_way_to_json_to_the_bit():
    random = np.random.default_rng(0)
    array = random.integers(0, 2**32, 20000, dtype="uint32").view("float32")
    array = array[np.isfinite(array)]
    back = np.array(json.loads(tensors.dump({"x": array}, True))["predictions"], "float32")
    assert (back == array).all()


@pytest.mark.parametrize(
    ("body", "inputs", "sentence"),
    [
        (b"", STRINGS, "JSON Parse error"),
        (b"\xff\xfe\x00", STRINGS, "JSON Parse error"),
        (b'{"instances": ["a"', STRINGS, "JSON Parse error"),
        (b'{"instances": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", FLOATS, "JSON Parse error: nested too deep"),
        (b'{"inputs": ' + b"[" * 60 + b"]" * 60 + b"}", FLOATS, "lists at one level|expecting shape"),
        (b'{"instances": [' + b"9" * 5000 + b"]}", FLOATS, "JSON Parse error"),
        ([1], STRINGS, "Is not object"),
        ("text", STRINGS, "Is not object"),
        ({}, STRINGS, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, FLOATS, "expecting only one of"),
        ({"signature_name": 100, "instances": [1]}, FLOATS, "'signature_name' key must be a string"),
        ({"instances": []}, STRINGS, "No values in 'instances' array"),
        ({"instances": {"b64": "AA=="}}, STRINGS, "'instances' to be an list"),
        ({"instances": "AA=="}, STRINGS, "'instances' to be an list"),
        ({"instances": ["a"]}, THREE, "expecting list of objects as multiple"),
        ({"inputs": ["a"]}, THREE, "expecting an object as multiple"),
        ({"instances": [{"tag": "a"}]}, THREE, "keys must be equal to: sensor,signal,tag"),
        ({"instances": [{"text": "a"}, "b"]}, STRINGS, "element: 1 of 'instances'"),
        ({"inputs": {"tag": ["a"]}}, THREE, "Missing named input"),
        ({"instances": [{"b64": "*"}]}, STRINGS, "Unable to base64 decode"),
        ({"instances": [{"b64": "größe"}]}, STRINGS, "Unable to base64 decode"),
        ({"instances": [{"b64": 5}]}, STRINGS, "not formatted correctly for base64 data"),
        ({"instances": [5]}, STRINGS, "not of expected type: string"),
        ({"instances": [None]}, STRINGS, "not of expected type: string"),
        (b'{"instances": ["\\ud800"]}', STRINGS, "no Unicode text"),
        ({"instances": ["a"]}, FLOATS, "not of expected type: float32"),
        ({"instances": [True]}, FLOATS, "not of expected type: float32"),
        ({"instances": [{"b64": "AA=="}]}, FLOATS, "not of expected type: float32"),
        ({"instances": [1e39]}, FLOATS, "out of the range of float32"),
        (b'{"instances": [1' + b"0" * 400 + b"]}", FLOATS, "out of the range of float32"),
        ({"instances": [1.5]}, {"x": Tensor("x", np.dtype("int32"), (None,))}, "not of expected type: int32"),
        ({"instances": [256]}, {"x": Tensor("x", np.dtype("uint8"), (None,))}, "out of the range of uint8"),
        ({"instances": [1]}, {"x": Tensor("x", np.dtype(bool), (None,))}, "not of expected type: bool"),
        ({"instances": [[1], [2, 3]]}, {"x": Tensor("x", np.dtype("float32"), None)}, "must be of one length"),
        ({"instances": [[1], 2]}, {"x": Tensor("x", np.dtype("float32"), None)}, "must be of one length"),
        ({"instances": [1, [2]]}, {"x": Tensor("x", np.dtype("float32"), None)}, "not of expected type"),
        ({"instances": [[1, 2]]}, FLOATS, r"expecting shape \[-1\] but got: \[1, 2\]"),
        ({"inputs": 5}, FLOATS, r"expecting shape \[-1\] but got: \[\]"),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_a_sentence(body, inputs, sentence):
    with pytest.raises(Refusal, match=sentence) as refusal:
        read(body, inputs)
    assert refusal.value.status == 400 and len(str(refusal.value)) < 500


def test_long_texts_take_no_more_room_than_they_have():
    """As an array of numpy's own strings the short ones would take as much as the longest: 10 GB here."""
    body = {"instances": ["x" * 10_000_000, *["y"] * 250]}
    with pytest.raises(Refusal):
        read(body, FLOATS)
    assert len(read(body, STRINGS)[1]["text"][0]) == 10_000_000


# --- batches ---


class Doubler:
    """A model that doubles, and records what it was asked; `stuck` holds it up."""

    can_batch = True

    def __init__(self):
        self.asked, self.stuck = [], threading.Event()
        self.stuck.set()
        self.signatures = {"serving_default": self}

    def run(self, signature, inputs):
        self.stuck.wait(60)
        [x] = inputs.values()
        self.asked.append(len(x))
        if (x < 0).any():
            raise RuntimeError("a negative number")
        return {"y": 2 * x}


def submit(batcher, model, *numbers):
    return batcher.submit(model, "serving_default", {"x": np.array(numbers, float)})


@pytest.fixture
def model():
    return Doubler()


@pytest.fixture
def batcher(model):
    model.stuck.clear()
    batcher = batching.Batcher(largest=8, wait=0.0, longest_queue=40)
    head = submit(batcher, model, 0)  # keeps the thread busy while the test fills the queue
    while not head.running():
        time.sleep(0.001)
    yield batcher
    model.stuck.set()
    batcher.stop()


def answers(futures):
    return [future.result(60)["y"].tolist() for future in futures]


def test_what_waits_is_computed_together_and_each_gets_its_own(model, batcher):
    futures = [submit(batcher, model, *(10 * each + row for row in range(each))) for each in (1, 2, 3, 5, 12, 1, 1)]
    model.stuck.set()
    assert answers(futures) == [[2 * (10 * each + row) for row in range(each)] for each in (1, 2, 3, 5, 12, 1, 1)]
    assert model.asked == [1, 8, 8, 8, 1]  # 25 rows in sizes that were warmed up, cut where a batch is full


def test_a_batch_waits_for_others():
    model, batcher = Doubler(), batching.Batcher(largest=8, wait=1.0, longest_queue=40)
    started = time.monotonic()
    futures = [submit(batcher, model, number) for number in range(4)]
    assert answers(futures) == [[0], [2], [4], [6]]
    assert model.asked == [4] and time.monotonic() - started > 0.95
    batcher.stop()


def test_a_full_batch_does_not_wait():
    model, batcher = Doubler(), batching.Batcher(largest=8, wait=600.0, longest_queue=40)
    answers([submit(batcher, model, number) for number in range(8)])
    assert model.asked == [8]
    batcher.stop()


def test_one_that_fails_does_not_fail_its_neighbours(model, batcher):
    futures = [submit(batcher, model, *numbers) for numbers in ((1,), (-1,), (2, 3))]
    model.stuck.set()
    assert answers([futures[0], futures[2]]) == [[2], [4, 6]]
    with pytest.raises(RuntimeError, match="negative"):
        futures[1].result(60)


def test_different_shapes_are_not_joined(model, batcher):
    futures = [batcher.submit(model, "serving_default", {"x": np.ones((2, side))}) for side in (3, 4, 3)]
    model.stuck.set()
    assert [len(rows[0]) for rows in answers(futures)] == [3, 4, 3] and model.asked == [1, 4, 2]


def test_what_cannot_be_joined_runs_alone(model, batcher):
    model.can_batch = False
    futures = [submit(batcher, model, 1, 2), submit(batcher, model, 3)]
    model.stuck.set()
    assert answers(futures) == [[2, 4], [6]] and model.asked == [1, 2, 1]


def test_rows_without_partners_are_refused(model, batcher):
    with pytest.raises(Refusal, match="different numbers of rows"):
        batcher.submit(model, "serving_default", {"a": np.ones(2), "b": np.ones(3)})


def test_a_full_queue_refuses_and_a_cancelled_request_makes_room(model, batcher):
    futures = [submit(batcher, model, *[0] * 10) for _ in range(4)]
    with pytest.raises(Refusal, match="queue") as refusal:
        submit(batcher, model, 1)
    assert refusal.value.status == 503 and batcher.waiting == 40
    for future in futures:
        assert future.cancel()
    model.stuck.set()
    time.sleep(0.05)
    assert answers([submit(batcher, model, 1)]) == [[2]] and model.asked == [1, 1]


def test_a_request_of_many_rows_holds_up_no_other(model, batcher):
    done = []
    many, one = submit(batcher, model, *range(30)), submit(batcher, model, 7)
    many.add_done_callback(lambda _: done.append("many"))
    one.add_done_callback(lambda _: done.append(("one", list(model.asked))))
    model.stuck.set()
    assert answers([many, one]) == [[2 * number for number in range(30)], [14]]
    assert done == [("one", [1, 8]), "many"] and sum(model.asked) == 32


def test_what_is_left_of_a_request_that_was_given_up_is_not_computed(model, batcher):
    run, many = model.run, submit(batcher, model, *range(30))

    def run_while_the_client_leaves(signature, inputs):
        if len(inputs["x"]) == 8:
            assert not many.cancel()  # it has begun
        return run(signature, inputs)

    model.run = run_while_the_client_leaves
    model.stuck.set()
    with pytest.raises(concurrent.futures.CancelledError):
        many.result(60)
    assert answers([submit(batcher, model, 5)]) == [[10]] and model.asked == [1, 8, 1] and batcher.waiting == 0


def test_stopping_cancels_what_waits():
    model, batcher = Doubler(), batching.Batcher(8, 0.0, 40)
    model.stuck.clear()
    first = submit(batcher, model, 1)
    while not first.running():
        time.sleep(0.001)
    second = submit(batcher, model, 2)
    threading.Timer(0.05, model.stuck.set).start()
    batcher.stop()
    assert first.result()["y"].tolist() == [2] and second.cancelled()


def test_threads_that_ask_at_once_get_what_is_theirs():
    model, batcher = Doubler(), batching.Batcher(16, 0.001, 10_000)
    wrong = []

    def ask(seed):
        random = np.random.default_rng(seed)
        for _ in range(100):
            numbers = random.integers(0, 1000, random.integers(0, 20)).astype(float)
            if (
                batcher.submit(model, "serving_default", {"x": numbers}).result(60)["y"].tolist()
                != (2 * numbers).tolist()
            ):
                wrong.append(numbers)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.stop()
    assert not wrong and max(model.asked) <= 19 and np.mean([size for size in model.asked if size]) > 5


# --- versions ---


class Loaded:
    """What stands for a loaded version: the text of its file."""

    def __init__(self, folder):
        self.number, self.text = int(folder.name), (folder / "saved_model.pb").read_text()
        self.closed = False
        if "bad" in self.text:
            raise ValueError(f"version {self.number} cannot be served ({self.text})")

    def close(self):
        self.closed = True


class Watch:
    """`Versions` over a folder, with a list of all that it said."""

    def __init__(self, folder, load=Loaded, **policy):
        self.said = []
        self.versions = versions.Versions("net", folder, load, versions.Policy(**policy), self.said.append)

    async def settle(self, looks=2):
        for _ in range(looks):
            await self.versions.poll()

    def current(self, **which):
        with self.versions.use(**which) as servable:
            return servable.text

    def states(self):
        return {each["version"]: each["state"] for each in self.versions.status()}


def write(folder, number, text=None):
    path = folder / str(number)
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_text(text or f"version {number}")
    return path


def run(test):
    return lambda tmp_path: asyncio.run(test(tmp_path))


@run
async def test_the_highest_version_is_served_and_numbers_are_numbers(folder):
    for name in ("9", "10", ".tmp-x", "010", "1e3", "-3", "backup", "٣", str(2**64)):
        write(folder, name)
    write(folder, 11).joinpath("saved_model.pb").rename(folder / "11" / "saved_model.pb.part")  # no version yet
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    assert watch.versions.available == [10] and watch.current() == "version 10"
    assert watch.said == ["net: version 10 is served"]


@run
async def test_a_new_version_takes_over_and_the_old_stays_for_those_who_use_it(folder):
    write(folder, 1)
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    with watch.versions.use() as old:
        write(folder, 2)
        await watch.settle()
        assert watch.current() == "version 2" and not old.closed
        with pytest.raises(Refusal, match=r"Specific\(net, 1\)"):
            watch.current(number=1)
    for _ in range(3000):
        if old.closed:
            break
        await asyncio.sleep(0.01)
    assert old.closed and watch.states() == {"2": "AVAILABLE", "1": "END"}
    await watch.versions.close()


@run
async def test_a_version_that_grows_is_left_alone_until_it_rests(folder):
    write(folder, 1)
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    path = write(folder, 2, "half")
    for part in range(3):  # as `cp -r` would, too slowly for the looks
        await watch.versions.poll()
        assert watch.current() == "version 1"
        (path / f"variables-{part}").write_text("...")
    await watch.settle()
    assert watch.current() == "half" and len(watch.said) == 2


@run
async def test_a_version_that_fails_is_told_once_and_tried_again_when_it_changes(folder):
    write(folder, 1)
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    write(folder, 2, "bad")
    await watch.settle(6)
    assert watch.current() == "version 1"
    assert watch.said[1:] == ["net: version 2 cannot be served (bad); version 1 goes on being served"]
    assert watch.versions.status(2)[0]["status"]["error_message"] == "version 2 cannot be served (bad)"
    write(folder, 2, "mended")
    await watch.settle()
    assert watch.current() == "mended"


@run
async def test_when_the_highest_fails_at_the_start_the_next_is_served(folder):
    for number, text in ((1, None), (2, None), (3, "bad"), (4, "bad")):
        write(folder, number, text)
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    assert watch.versions.available == [2] and watch.states() == {"4": "END", "3": "END", "2": "AVAILABLE"}


@run
async def test_the_last_version_outlives_its_folder(folder):
    path = write(folder / "net", 1)
    watch = Watch(folder / "net")
    await watch.versions.poll(first=True)
    (path / "saved_model.pb").unlink()
    await watch.settle(3)
    assert watch.current() == "version 1"
    path.rmdir()
    (folder / "net").rmdir()
    await watch.settle(3)
    assert watch.current() == "version 1" and len(watch.said) == 3
    assert all("version 1 goes on being served" in sentence for sentence in watch.said[1:])
    write(folder / "net", 1, "again")
    await watch.settle()
    assert watch.current() == "again"


@run
async def test_taking_the_highest_away_rolls_back(folder):
    for number in (1, 2):
        write(folder, number)
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    (folder / "2" / "saved_model.pb").unlink()
    await watch.settle()
    assert watch.current() == "version 1" and watch.versions.available == [1]


@run
async def test_several_versions_and_labels(folder):
    for number in range(1, 6):
        write(folder, number)
    watch = Watch(folder, newest=2, labels={"stable": 2, "lost": 9})
    await watch.versions.poll(first=True)
    assert watch.versions.available == [5, 4, 2]
    assert (watch.current(), watch.current(number=4), watch.current(label="stable")) == (
        "version 5", "version 4", "version 2"
    )  # fmt: skip
    for which, status in (({"label": "other"}, 400), ({"label": "lost"}, 404), ({"number": 3}, 404)):
        with pytest.raises(Refusal) as refusal:
            watch.current(**which)
        assert refusal.value.status == status
    watch = Watch(folder, only=[3])
    await watch.versions.poll(first=True)
    write(folder, 7)
    await watch.settle()
    assert watch.versions.available == [3]


@run
async def test_an_empty_folder_is_told_and_waited_for(folder):
    watch = Watch(folder)
    await watch.versions.poll(first=True)
    await watch.settle(3)
    assert watch.said == [f"{folder} holds no version that can be served; there is nothing to serve yet"]
    with pytest.raises(Refusal, match=r"Latest\(net\)"):
        watch.current()
    with pytest.raises(Refusal, match="Could not find any versions of model net"):
        watch.versions.status()
    write(folder, 1)
    await watch.settle()
    assert watch.current() == "version 1"


# --- the web, over a model that does as it is told ---


class Puppet:
    """A model of one input and one output, `(n,)` to `(n, width)`, that runs only while `free` is set."""

    can_batch, names_photographs, width = True, False, 1

    def __init__(self, folder):
        self.number, self.closed, self.ran = int(folder.name), False, 0
        self.inputs, self.metadata = FLOATS, {}
        self.signatures = {"serving_default": self}
        self.free = threading.Event()
        self.free.set()

    def run(self, signature, inputs):
        assert not self.closed
        self.free.wait(60)
        assert not self.closed  # nothing may be taken away while it computes
        self.ran += 1
        return {"y": np.repeat(inputs["x"][:, np.newaxis], self.width, axis=1)}

    def close(self):
        self.closed = True


def web_test(**limits):
    """Run a coroutine function of (aiohttp session, URL, `Versions`, aiohttp's server) over version 1 of a `Puppet`."""

    def decorate(test):
        async def around(folder):
            aiohttp = pytest.importorskip("aiohttp")
            from _serve.metrics import Metrics
            from _serve.web import Limits, Server

            write(folder, 1)
            watch = Watch(folder, Puppet)
            await watch.versions.poll(first=True)
            batcher = batching.Batcher(8, 0.0, 100)
            metrics = Metrics("net", lambda: watch.versions.available, lambda: batcher.waiting)
            app_limits = Limits(**limits)
            app = Server(watch.versions, batcher, metrics, app_limits).application()
            given = types.SimpleNamespace(host="127.0.0.1", port=0, timeout=app_limits.seconds)
            try:
                async with (
                    serve.listening(app, given) as runner,
                    aiohttp.ClientSession("http://{}:{}".format(*runner.addresses[0])) as session,
                ):
                    await test(session, watch, runner)
                    assert metrics.body_bytes == 0
            finally:
                batcher.stop()

        return run(around)

    return decorate


async def ask(session, *numbers, path="/v1/models/net:predict"):
    async with session.post(path, json={"instances": list(numbers)}) as response:
        return response.status, await response.json()


async def soon(found, seconds=60):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@web_test()
async def test_a_version_is_kept_while_it_computes_though_its_client_has_gone(session, watch, runner):
    with watch.versions.use() as old:
        old.free.clear()
        asking = asyncio.create_task(ask(session, 1))
        await soon(lambda: watch.versions._held[1].users == 2)
    write(watch.versions._folder, 2)
    await watch.settle()
    await asyncio.sleep(0.1)
    asking.cancel()
    await soon(lambda: len(runner.server.connections) <= 1)
    await asyncio.sleep(0.1)
    assert not old.closed
    old.free.set()
    await soon(lambda: old.closed)
    assert old.ran == 1 and await ask(session, 3) == (200, {"predictions": [[3.0]]})


@web_test(seconds=0.3)
async def test_an_answer_that_does_not_come_is_told(session, watch, runner):
    with watch.versions.use() as servable:
        servable.free.clear()
    started = time.monotonic()
    status, answer = await ask(session, 1)
    assert status == 504 and "No answer within 0.3 seconds" in answer["error"] and time.monotonic() - started < 9
    servable.free.set()
    assert await ask(session, 2) == (200, {"predictions": [[2.0]]})


@web_test(seconds=0.3)
async def test_who_does_not_take_the_answer_is_cut_off(session, watch, runner):
    with watch.versions.use() as servable:
        servable.width = 2_000_000  # 10 MB of JSON: more than sockets hold
    _, writer = await asyncio.open_connection(*runner.addresses[0], limit=1000)
    writer.transport.pause_reading()
    body = b'{"instances": [1.5]}'
    writer.write(b"POST /v1/models/net:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await soon(lambda: servable.ran == 1 and len(runner.server.connections) == 0)
    writer.transport.abort()


@web_test(bodies=1000, seconds=2.0)
async def test_what_is_sent_at_once_is_bounded(session, watch, runner):
    head = b"POST /v1/models/net:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    _, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(head + b" " * 990)
    await asyncio.sleep(0.1)
    status, answer = await ask(session, 1)
    assert status == 503 and "Too much is being sent at once" in answer["error"]
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (await ask(session, 1))[0] == 200


@web_test(seconds=1.0)
async def test_slow_clients_are_timed_out_and_others_do_not_wait(session, watch, runner):
    """However late it is: a busy machine must not fail this, only a connection that stays open."""
    head = b"POST /v1/models/net:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    starts = {"body": head + b"{", "head": b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: ", "silent": b""}
    streams = {name: await asyncio.open_connection(*runner.addresses[0]) for name in starts}
    for name, start in starts.items():
        streams[name][1].write(start)

    async def trickle(writer):  # a byte now and then keeps nothing open
        while True:
            await asyncio.sleep(0.2)
            writer.write(b"y")

    trickling = asyncio.create_task(trickle(streams["head"][1]))
    assert await ask(session, 1) == (200, {"predictions": [[1.0]]})

    async def end(reader):
        try:
            return await reader.read()
        except ConnectionError:  # cut off while we talk
            return b""

    async with asyncio.timeout(60):
        ends = {name: await end(reader) for name, (reader, _) in streams.items()}
    trickling.cancel()
    assert b" 408 " in ends["body"] and b"not sent within 1 seconds" in ends["body"]
    for _, writer in streams.values():
        writer.transport.abort()


@web_test()
async def test_a_defect_is_told_without_its_inside(session, watch, runner):
    with watch.versions.use() as servable:
        servable.signatures["serving_default"].inputs = None  # what no model has
    assert await ask(session, 1) == (500, {"error": "Internal error."})


@web_test(seconds=0.3)
async def test_nothing_more_is_computed_of_a_request_whose_time_is_over(session, watch, runner):
    with watch.versions.use() as servable:
        servable.free.clear()
    assert (await ask(session, *range(50)))[0] == 504
    servable.free.set()
    assert await ask(session, 2) == (200, {"predictions": [[2.0]]})
    assert servable.ran == 2  # the 8 rows that had begun, and the new one


@web_test(instances=256)
async def test_too_many_rows_are_refused_before_arrays_are_made_of_them(session, watch, runner):
    status, answer = await ask(session, *[[]] * 257)
    assert status == 400 and answer["error"].startswith("257 instances are more than 256")
    async with session.post("/v1/models/net:predict", json={"inputs": {"x": [[]] * 257}}) as response:
        assert response.status == 400 and "257 instances" in await response.text()


@web_test()
async def test_a_version_is_written_in_ascii(session, watch, runner):
    for number, status in (("1", 200), ("%D9%A1", 400)):  # ARABIC-INDIC DIGIT ONE
        async with session.get(f"/v1/models/net/versions/{number}") as response:
            assert response.status == status


def test_requests_that_make_no_sense_leave_nothing_in_the_log(tmp_path, caplog):
    @web_test()
    async def send(session, watch, runner):
        for head in (b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(head)
            assert b" 400 " in await reader.readline()
            writer.close()
        gzip = {"Content-Encoding": "gzip"}
        async with session.post("/v1/models/net:predict", data=b"no gzip", headers=gzip) as response:
            error = (await response.json())["error"]
            assert response.status == 400 and "cannot be read" in error and "\n" not in error

    send(tmp_path)
    assert caplog.records == []


# --- its owner ---


def test_versions_are_looked_for_also_where_nobody_reads_what_is_said(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    closed = io.StringIO()
    closed.close()
    read, write_end = os.pipe()
    os.close(read)
    polls = []

    async def poll(first=False):
        polls.append(first)
        raise RuntimeError("a defect")

    async def look():
        options = types.SimpleNamespace(host="0.0.0.0", poll=0.001)
        looking = asyncio.create_task(serve._look(types.SimpleNamespace(name="net", poll=poll), options, "http://x"))
        await soon(lambda: len(polls) >= 3 or looking.done())
        looking.cancel()

    with open(write_end, "w") as unread:
        for stdout in (Full(), closed, None, unread):
            polls.clear()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", stdout)
                asyncio.run(look())
            assert polls[:3] == [True, False, False]


def test_an_app_runs_with_its_streams_closed():
    code = "import _common; _common.run(lambda: print('said') or 7)"
    process = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'], cwd=APPS)
    assert process.returncode == 7


def run_out_of_files():
    context = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "Too many")}
    asyncio.get_running_loop().call_exception_handler(context)


def test_where_files_run_out_idle_connections_give_way_and_it_is_told_once(tmp_path, capsys, caplog):
    @web_test()
    async def press(session, watch, runner):
        with watch.versions.use() as servable:
            servable.free.clear()
            asking = asyncio.create_task(ask(session, 1))
            await soon(lambda: watch.versions._held[1].users == 2)
        idle = [await asyncio.open_connection(*runner.addresses[0]) for _ in range(10)]
        await soon(lambda: len(runner.server.connections) == 11)
        for _ in range(1000):
            run_out_of_files()
        for reader, _ in idle[:5]:
            assert await asyncio.wait_for(reader.read(), 60) == b""
        await soon(lambda: len(runner.server.connections) == 6)
        servable.free.set()
        assert await asking == (200, {"predictions": [[1.0]]})
        for _, writer in idle:
            writer.close()
        asyncio.get_running_loop().call_exception_handler({"message": "something else"})

    press(tmp_path)
    assert capsys.readouterr().out.count("Too many connections") == 1
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_as_many_files_as_may_be_opened():
    resource = pytest.importorskip("resource")
    connections = pytest.importorskip("_serve.connections")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        connections.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (65536 if hard < 0 else min(hard, 65536), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Of RFC 5737, for documentation; an empty label; of RFC 2606, which nobody has.
@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "nosuch.invalid"])
def test_an_address_that_is_not_ours_is_named(host, monkeypatch):
    pytest.importorskip("aiohttp")
    from aiohttp import web

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def listen():
        given = types.SimpleNamespace(host=host, port=0, timeout=1)
        async with serve.listening(web.Application(), given):
            pass

    if host.endswith(".invalid"):
        monkeypatch.setattr(socket, "getaddrinfo", unknown)  # without asking the network
    with pytest.raises(OSError, match=rf"Cannot listen on {re.escape(host)}, port 0 .*choose another --host"):
        asyncio.run(listen())


def test_the_rows_of_a_batch_are_bounded(capsys):
    with pytest.raises(SystemExit):
        serve._parser().parse_args(["net", "--max-batch", "100000000000"])
    assert "must be a number from 1 to 1024" in capsys.readouterr().err


HANGING = """
import sys, threading, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
hang = lambda *_, **__: print("loading", flush=True) or threading.Event().wait()
sys.modules["_serve.servable"] = types.SimpleNamespace(Servable=hang)
import _common, serve
_common.import_tensorflow = lambda: None
_common.run(lambda: serve.main([sys.argv[1], "--port", "0"]))
"""


def test_one_signal_ends_a_server_whose_version_never_loads(tmp_path):
    pytest.importorskip("aiohttp")
    write(tmp_path / "net", 1)
    command = [sys.executable, "-c", HANGING, tmp_path / "net"]
    with subprocess.Popen(command, cwd=APPS, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any(line == "loading\n" for line in process.stdout)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
