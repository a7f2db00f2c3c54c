"""The server as its clients and its owner meet it: a process, HTTP, folders that change, signals."""

import base64
import concurrent.futures
import contextlib
import gzip
import json
import re
import signal
import socket
import sys
import time
import types
import urllib.parse

import colours
import numpy as np
import pytest
import requests
import tensorflow as tf
from bench.asking import Server
from browsing import eventually
from prometheus_client.parser import text_string_to_metric_families

from kresnets.serving import server as serving

MODEL = "/v1/models/net"
PREDICT, CLASSIFY = MODEL + ":predict", MODEL + ":classify"
RED, BLUE = ({"b64": base64.b64encode(colours.picture(colour)).decode()} for colour in ("red", "blue"))


class Client(Server):
    """A server, and how a test asks it."""

    def ask(self, method, path, body=None, **headers):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        response = requests.request(method, self.url + path, data=data, headers=headers, timeout=60)
        is_json = response.headers["Content-Type"].startswith("application/json")
        return response.status_code, response.json() if is_json else response.text

    def predict(self, signature="serving_default", **request):
        return self.ask("POST", PREDICT, {"signature_name": signature, **request})

    def metric(self, name, **labels):
        families = text_string_to_metric_families(self.ask("GET", "/metrics")[1])
        samples = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())

    def raw(self, content):
        connection = socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(self.url).port), timeout=60)
        connection.sendall(content)
        return connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "net"
    colours.export(path)
    return path


@pytest.fixture(scope="module")
def server(folder):
    limits = ("--max-mb", "1", "--max-instances", "40", "--timeout", "60", "--poll", "0.1", "--label", "stable=1")
    with Client(folder, *limits) as server:
        yield server


@pytest.mark.everything
def test_rows_and_columns_named_and_not(server):
    for rows in ([RED, BLUE], [{"image_bytes": RED}, {"image_bytes": BLUE}]):
        status, answer = server.predict(instances=rows)
        assert status == 200 and answer.keys() == {"predictions"}
        assert all(map(colours.agrees, answer["predictions"], ("red", "blue")))
    for columns in ([RED, BLUE], {"image_bytes": [RED, BLUE]}):
        outputs = server.predict(inputs=columns)[1]["outputs"]
        assert outputs.keys() == {"labels", "scores", "valid"} and outputs["valid"] == [True, True]
        assert outputs["labels"] == [list(colours.expected(colour)) for colour in ("red", "blue")]
        assert np.shape(outputs["scores"]) == (2, 3)
    assert server.predict(inputs=[]) == (200, {"outputs": {"labels": [], "scores": [], "valid": []}})


@pytest.mark.always("predict_tensor")
@pytest.mark.parametrize("name", ["predict_tensor", "features"])
def test_other_signatures_answer_as_tensorflows_loader(server, folder, name):
    pixels = np.full((8, 8, 3), colours.COLOURS["red"], "float32")
    [wanted] = tf.saved_model.load(str(folder / "1")).signatures[name](images=tf.constant(pixels[None])).values()
    answer = server.predict(name, instances=[pixels.tolist()] * 2)[1]
    np.testing.assert_allclose(answer["predictions"], np.repeat(wanted, 2, axis=0), atol=1e-5)


def test_classify_takes_examples_and_gives_classes_with_scores(server):
    """The form is that of TF Serving's json_tensor_test.cc."""
    request = {"signature_name": "classify", "examples": [{"image/encoded": RED}, {"image/encoded": [BLUE]}]}
    answer = server.ask("POST", CLASSIFY, request)[1]
    assert answer.keys() == {"results"}
    for row, colour in zip(answer["results"], ("red", "blue"), strict=True):
        labels, scores = zip(*row, strict=True)
        assert colours.agrees({"labels": list(labels), "scores": scores, "valid": True}, colour)
    request = {"signature_name": "classify", "context": {"image/encoded": RED}, "examples": [{"image/height": 20}]}
    assert server.ask("POST", CLASSIFY, request)[1]["results"] == answer["results"][:1]


def test_status_and_metadata_have_the_form_of_the_documentation(server):
    wanted = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (MODEL, MODEL + "/versions/1", MODEL + "/labels/stable"):
        assert server.ask("GET", path) == (200, {"model_version_status": [wanted]})
    status, metadata = server.ask("GET", MODEL + "/metadata")
    assert status == 200 and metadata["model_spec"] == {"name": "net", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    [given] = signature["inputs"].values()
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert (given["dtype"], given["tensor_shape"]) == ("DT_STRING", shape)
    assert signature["outputs"].keys() == {"labels", "scores", "valid"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/v1/models/other:predict", {}, 404, "Servable not found for request: Latest(other)"),
        ("POST", MODEL + "/versions/7:predict", {"instances": ["a"]}, 404, "not found for request: Specific(net, 7)"),
        ("POST", MODEL + f"/versions/{'9' * 30}:predict", {}, 400, "Failed to convert version"),
        ("GET", MODEL + "/versions/%D9%A1", None, 400, "Malformed request"),  # ARABIC-INDIC DIGIT ONE
        ("POST", MODEL + "/labels/other:predict", {"instances": ["a"]}, 400, "Unrecognized servable version label"),
        ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
        ("GET", MODEL + "/versions/7", None, 404, "Could not find version 7 of model net"),
        ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/net:predict"),
        ("POST", MODEL + ":regress", {}, 400, "Malformed request: POST /v1/models/net:regress"),
        ("POST", "/", {}, 405, "Malformed request"),
        ("POST", CLASSIFY, {"examples": [{}]}, 400, "Was: tensorflow/serving/predict"),
        ("POST", PREDICT, {"instances": [[[[0.5]]]], "signature_name": "features"}, 400, "shape [-1, 8, 8, 3]"),
        ("POST", PREDICT, {"instances": [[]] * 41}, 400, "41 instances are more than 40"),
        ("POST", PREDICT, {"instances": ["a" * 1_000_000]}, 413, "larger than 1000000 bytes"),
    ],
)  # fmt: skip
def test_refusals_are_json_with_a_sentence(server, method, path, body, status, sentence):
    answer = server.ask(method, path, body)
    assert answer[0] == status and sentence in answer[1]["error"], answer


def test_health_and_metrics(server):
    count, latency = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
    assert server.ask("GET", "/healthz") == (200, "ok\n")
    counts = {"OK": 3, "INVALID_ARGUMENT": 2, "NOT_FOUND": 1}
    before = {status: server.metric(count, model_name="net", status=status) for status in counts}
    rows, spent, began = server.metric("serve_batch_rows_sum"), server.metric(latency + "_sum"), time.monotonic()
    for _ in range(3):
        server.predict(instances=[RED] * 5)
    assert 300 < server.metric(latency + "_sum") - spent < 1e6 * (time.monotonic() - began)  # microseconds
    for path, body in ((PREDICT, b"{"), (PREDICT, {}), ("/v1/models/x:predict", {})):
        server.ask("POST", path, body)
    assert {status: server.metric(count, status=status) - before[status] for status in counts} == counts
    assert server.metric("serve_batch_rows_sum") - rows == 15
    assert server.metric(latency + "_count", entrypoint="REST") == server.metric(count, status="OK")
    assert server.metric("serve_version", version="1") == 1 and server.metric("process_resident_memory_bytes") > 1e7
    assert server.ask("GET", "/monitoring/prometheus/metrics")[0] == 200


def head(length):
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_body_that_is_too_long_is_cut_off_however_it_comes(server):
    data = gzip.compress(json.dumps({"instances": ["no image"]}).encode())
    for content, status in ((data, 200), (b"no gzip", 400), (gzip.compress(b" " * 100_000_000), 413)):
        assert server.ask("POST", PREDICT, content, **{"Content-Encoding": "gzip"})[0] == status
    connection = server.raw(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    with contextlib.suppress(OSError):  # cut off while we talk
        for _ in range(40):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert b" 413 " in connection.recv(200)
    connection.close()
    assert server.memory < 2e9 and server.predict(instances=[RED])[0] == 200


def test_who_hangs_up_or_makes_no_sense_leaves_nothing_behind(server):
    body = json.dumps({"instances": [RED] * 40}).encode()
    whole = head(len(body)) + body
    starts = whole, whole[:-50], b"GET /", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\r\n"
    for start in starts * 20:
        server.raw(start).close()
    assert colours.agrees(*server.predict(instances=[RED])[1]["predictions"], "red")
    assert eventually(lambda: server.metric("serve_queue_rows") == 0, 60)
    assert not [line for line in server.lines if "Traceback" in line or "Error" in line]


class Module(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), name="a"), tf.TensorSpec((None,), name="b")])
    def add(self, a, b):
        return {"sum": a + b, "raw_bytes": tf.as_string(a)}

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64, name="rounds")])
    def spin(self, rounds):
        return {"rounds": tf.while_loop(lambda i: i < rounds, lambda i: (i + 1,), (0 * rounds,))[0]}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def strict(self, text):
        return {"number": tf.strings.to_number(text)}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    path, module = tmp_path_factory.mktemp("modules") / "net", Module()
    signatures = {name: getattr(module, name).get_concrete_function() for name in ("add", "spin", "strict")}
    tf.saved_model.save(module, str(path / "1"), {**signatures, "serving_default": signatures["add"]})
    return path


@pytest.mark.everything
def test_models_of_other_origin_and_an_end_that_loses_nothing(modules):
    with Client(modules, "--wait-ms", "200", "--timeout", "120") as server:
        ask = server.predict
        rows = [{"sum": 3.5, "raw_bytes": {"b64": base64.b64encode(b"1.000000").decode()}}]
        assert ask("add", instances=[{"a": 1, "b": 2.5}]) == (200, {"predictions": rows})
        assert ask("add", inputs={"a": [1, 2], "b": [1]})[0] == 400
        # Joined in a batch that fails, the good one is answered and the bad one told why.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda text: ask("strict", instances=[text]), ["1.5", "no number", "2", "3"]))
        assert [answers[index] for index in (0, 2, 3)] == [(200, {"predictions": [n]}) for n in (1.5, 2.0, 3.0)]
        assert answers[1] == (400, {"error": "StringToNumberOp could not correctly convert string: no number"})
        rounds, took = 1 << 14, 0.0
        while took < 0.6:
            rounds, began = 2 * rounds, time.monotonic()
            assert ask("spin", inputs=rounds) == (200, {"outputs": rounds})
            took = time.monotonic() - began
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            last = [pool.submit(ask, "spin", inputs=rounds) for _ in range(2)]
            while server.metric("serve_queue_rows") < 2 and not all(each.done() for each in last):
                time.sleep(0.01)  # until both are here
            server.process.send_signal(signal.SIGTERM)
            server.said("Stopping")
            time.sleep(0.1)
            with pytest.raises(OSError):
                server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [each.result()[1] for each in last] == [{"outputs": rounds}] * 2
        assert server.process.wait(120) == 0
        assert not [line for line in server.lines if "Traceback" in line]


@pytest.mark.everything
def test_what_takes_too_long_is_told(modules):
    with Client(modules, "--timeout", "1") as server:
        slow, rounds, status = server.raw(head(1000) + b"{"), 1 << 14, 200
        while status == 200:
            rounds *= 2
            status, answer = server.predict("spin", inputs=rounds)
        assert (status, answer) == (504, {"error": "No answer within 1 seconds."})
        with slow:
            assert re.search(b" 408 .*not sent within 1 seconds", slow.recv(1000), re.DOTALL)
        while server.predict(instances=[{"a": 1, "b": 2}])[0] != 200:  # once that is computed
            assert server.metric("serve_queue_rows") < 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"path": "none"}, "There is no none here: give an exported model"),
        ({"path": "net/1"}, "is one version: give the folder that holds it"),
        ({"path": "run"}, r"run is a run and no exported model: export it first \(kresnets export run FOLDER\)"),
        ({"name": "a/b"}, "'a/b' cannot stand in a path"),
        ({"labels": {"stable": 2}, "versions": [1]}, "--label names a version that --versions leaves out"),
        ({"labels": {"a/b": 1}}, "--label must be like stable=3"),
        ({"versions": [1.5]}, "--versions must be a whole number"),
        ({"port": 70000}, "--port must be a whole number from 0 to 65535. Received: 70000"),
        ({"max_batch": 10**9}, "--max-batch must be a whole number from 1 to 1024"),
        ({"max_instances": 0}, "--max-instances must be a whole number of at least 1. Received: 0"),
        ({"timeout": float("nan")}, "--timeout must be a number from 0.1 to 3600. Received: nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said_in_a_sentence(folder, monkeypatch, given, sentence):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "run").mkdir(exist_ok=True)
    (folder.parent / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=sentence):
        serving.run(**{"path": "net", **given})


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "a..b"])  # taken; of RFC 5737; an empty label
def test_an_address_that_is_taken_or_not_ours_is_named(folder, server, host):
    with pytest.raises(OSError, match="Cannot listen on .*choose another --host or --port"):
        serving.run(folder, host=host, port=urllib.parse.urlsplit(server.url).port)


def test_without_aiohttp_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "kresnets.serving.server")
    with pytest.raises(ImportError, match=r"pip install 'kresnets\[serving\]'"):
        __import__("kresnets.serving.server")


@pytest.mark.parametrize(("dtype", "takes"), [(object, True), (np.float32, False)])
def test_a_model_of_tensors_alone_is_told_from_one_of_files(dtype, takes):
    inputs = {"inputs": types.SimpleNamespace(dtype=np.dtype(dtype))}
    signatures = {"serving_default": types.SimpleNamespace(inputs=inputs)}
    servable = types.SimpleNamespace(signatures=signatures, numbers=["age"])
    versions = types.SimpleNamespace(available=[1], use=lambda: contextlib.nullcontext(servable))
    assert serving._asked(versions) == (takes, ["age"])
    assert serving._asked(types.SimpleNamespace(available=[])) == (True, [])
