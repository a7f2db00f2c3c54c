"""apps/serve.py as its clients and its owner meet it: a process, HTTP, folders that change, signals."""

import base64
import concurrent.futures
import gzip
import http.client
import json
import pathlib
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.parse

import colours
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("aiohttp")
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "apps"))
import serve
from _bench.asking import Server

MODEL = "/v1/models/net"


class Client(Server):
    """A server, and how a test asks it."""

    @property
    def address(self):
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname, parts.port

    def ask(self, method, path, body=None, **headers):
        """Return the status and the answer, as JSON where it is some."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
            is_json = response.headers["Content-Type"].startswith("application/json")
            return response.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def predict(self, *images, path=MODEL, **more):
        instances = [{"b64": base64.b64encode(image).decode()} for image in images]
        status, answer = self.ask("POST", path + ":predict", {"instances": instances, **more})
        assert status == 200, answer
        return answer["predictions"]

    def metric(self, name, **labels):
        families = text_string_to_metric_families(self.ask("GET", "/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(
            each.value for each in samples if each.name == name and labels.items() <= each.labels.items()
        )  # fmt: skip

    def raw(self, content):
        """Open a connection and send some bytes."""
        connection = socket.create_connection(self.address, timeout=60)
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


# --- what TF Serving's clients expect ---


def test_rows_and_columns_named_and_not(server):
    red, blue = ({"b64": base64.b64encode(colours.picture(colour)).decode()} for colour in ("red", "blue"))
    rows = [{"instances": [red, blue]}, {"instances": [{"image_bytes": red}, {"image_bytes": blue}]}]
    for request in rows:
        status, answer = server.ask("POST", MODEL + ":predict", request)
        assert status == 200 and answer.keys() == {"predictions"}
        assert [colours.agrees(*each) for each in zip(answer["predictions"], ("red", "blue"))] == [True, True]
    for request in ({"inputs": [red, blue]}, {"inputs": {"image_bytes": [red, blue]}}):
        status, answer = server.ask("POST", MODEL + ":predict", request)
        columns = answer["outputs"]
        assert status == 200 and columns.keys() == {"labels", "scores", "valid"}
        assert columns["labels"] == [list(colours.expected(colour)) for colour in ("red", "blue")]
        assert columns["valid"] == [True, True] and np.shape(columns["scores"]) == (2, 3)


@pytest.mark.parametrize("path", [MODEL, MODEL + "/versions/1", MODEL + "/labels/stable"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF"])
def test_versions_labels_and_formats(server, path, format):
    tolerance = 0.03 if format == "JPEG" else 1e-4
    [answer] = server.predict(colours.picture("green", format), path=path, signature_name="serving_default")
    assert colours.agrees(answer, "green", tolerance=tolerance)


def test_bytes_that_are_no_image_leave_their_neighbours_alone(server):
    bad, good, empty = server.predict(b"no image", colours.picture("grey"), b"")
    assert colours.agrees(good, "grey")
    assert bad == empty == {"labels": [""] * 3, "scores": [0.0] * 3, "valid": False}


def test_other_signatures(server):
    pixels = np.full((8, 8, 3), colours.COLOURS["red"]).tolist()
    status, answer = server.ask(
        "POST", MODEL + ":predict", {"signature_name": "predict_tensor", "instances": [pixels, pixels]}
    )
    wanted = [colours.expected("red")[label] for label in colours.LABELS]
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], [wanted] * 2, atol=1e-5)
    _, answer = server.ask("POST", MODEL + ":predict", {"signature_name": "features", "inputs": [pixels]})
    np.testing.assert_allclose(answer["outputs"], [np.array(colours.COLOURS["red"]) / 127.5 - 1], atol=1e-5)


def test_classify_takes_examples_and_gives_classes_with_scores(server):
    """The form is that of TF Serving's json_tensor_test.cc."""
    red, blue = ({"b64": base64.b64encode(colours.picture(colour)).decode()} for colour in ("red", "blue"))
    request = {"signature_name": "classify", "examples": [{"image/encoded": red}, {"image/encoded": [blue]}]}
    status, answer = server.ask("POST", MODEL + ":classify", request)
    assert status == 200 and answer.keys() == {"results"}
    for row, colour in zip(answer["results"], ("red", "blue"), strict=True):
        labels, scores = zip(*row, strict=True)
        assert colours.agrees({"labels": list(labels), "scores": scores, "valid": True}, colour)
    request = {"signature_name": "classify", "context": {"image/encoded": red}, "examples": [{"image/height": 20}]}
    assert server.ask("POST", MODEL + ":classify", request)[1]["results"] == answer["results"][:1]


def test_status_and_metadata_have_the_form_of_the_documentation(server):
    wanted = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (MODEL, MODEL + "/versions/1", MODEL + "/labels/stable"):
        assert server.ask("GET", path) == (200, {"model_version_status": [wanted]})
    status, metadata = server.ask("GET", MODEL + "/metadata")
    assert status == 200 and metadata["model_spec"] == {"name": "net", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    [given] = signature["inputs"].values()
    assert given["dtype"] == "DT_STRING"
    assert given["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signature["outputs"].keys() == {"labels", "scores", "valid"}


PREDICT = MODEL + ":predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/v1/models/other:predict", {}, 404, "Servable not found for request: Latest(other)"),
        ("POST", MODEL + "/versions/7:predict", {"instances": ["a"]}, 404, "not found for request: Specific(net, 7)"),
        ("POST", MODEL + f"/versions/{'9' * 30}:predict", {}, 400, "Failed to convert version"),
        ("POST", MODEL + "/labels/other:predict", {"instances": ["a"]}, 400, "Unrecognized servable version label"),
        ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
        ("GET", MODEL + "/versions/7", None, 404, "Could not find version 7 of model net"),
        ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/net:predict"),
        ("POST", MODEL + ":regress", {}, 400, "Malformed request: POST /v1/models/net:regress"),
        ("POST", "/v1/models/../../etc/passwd:predict", {}, 400, "Malformed request"),
        ("GET", "/v1/models/net/versions/1/assets", None, 400, "Malformed request"),
        ("GET", "/page.js/../../serve.py", None, 404, "Malformed request"),
        ("POST", "/", {}, 405, "Malformed request"),
        ("POST", MODEL + ":classify", {"examples": [{}]}, 400, "Was: tensorflow/serving/predict"),
        ("POST", MODEL + ":classify", {"instances": ["a"]}, 400, "key 'examples' is expected"),
        ("POST", MODEL + ":classify", {"examples": []}, 400, "'examples' value is an empty array"),
        ("POST", MODEL + ":classify", {"examples": ["a"]}, 400, "Example must be JSON object"),
        ("POST", MODEL + ":classify", {"examples": [{"a": [1, "b"]}]}, 400, "Unexpected element type in feature: a"),
        ("POST", MODEL + ":classify", {"examples": [{"a": [[1]]}]}, 400, "Feature: a has element with unexpected"),
        ("POST", MODEL + ":classify", {"examples": [{"a": 2**70}]}, 400, "out of range"),
        ("POST", PREDICT, b"", 400, "JSON Parse error"),
        ("POST", PREDICT, b"{'instances': []}", 400, "JSON Parse error"),
        ("POST", PREDICT, b'{"instances": ' + b"[" * 100_000, 400, "JSON Parse error"),
        ("POST", PREDICT, {"instances": []}, 400, "No values in 'instances' array"),
        ("POST", PREDICT, {"instances": [1.5]}, 400, "is not of expected type: string"),
        ("POST", PREDICT, {"instances": [{"b64": "?"}]}, 400, "Unable to base64 decode"),
        ("POST", PREDICT, {"instances": ["a"], "signature_name": "x"}, 400, 'Serving signature name: "x" not found'),
        ("POST", PREDICT, {"instances": [["a"]]}, 400, "expecting shape [-1] but got: [1, 1]"),
        ("POST", PREDICT, {"instances": [[[[0.5]]]], "signature_name": "features"}, 400, "shape [-1, 8, 8, 3]"),
        ("POST", PREDICT, {"instances": ["a"] * 41}, 400, "41 instances are more than 40"),
        ("POST", PREDICT, {"instances": ["a" * 1_000_000]}, 413, "larger than 1000000 bytes"),
    ],
)  # fmt: skip
def test_refusals_are_json_with_a_sentence(server, method, path, body, status, sentence):
    answer = server.ask(method, path, body)
    assert answer[0] == status and sentence in answer[1]["error"], answer
    assert "Traceback" not in answer[1]["error"] and str(ROOT) not in answer[1]["error"]


def test_no_rows_in_columns_are_an_answer_without_rows(server):
    status, answer = server.ask("POST", PREDICT, {"inputs": []})
    assert (status, answer) == (200, {"outputs": {"labels": [], "scores": [], "valid": []}})


# --- clients that should not be trusted ---


def head(length, more=""):
    return f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def test_a_body_that_is_too_long_is_cut_off_however_it_comes(server):
    bomb = gzip.compress(b" " * 100_000_000)
    assert server.ask("POST", PREDICT, bomb, **{"Content-Encoding": "gzip"})[0] == 413
    connection = server.raw(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    try:
        for _ in range(40):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    except OSError:
        pass  # cut off while we talk
    else:
        assert b" 413 " in connection.recv(200)
    connection.close()
    assert server.memory < 2e9 and server.predict(colours.picture("red"))


def test_a_body_in_gzip_is_read(server):
    data = gzip.compress(json.dumps({"instances": ["no image"]}).encode())
    status, answer = server.ask("POST", PREDICT, data, **{"Content-Encoding": "gzip"})
    assert status == 200 and answer["predictions"][0]["valid"] is False


def test_who_hangs_up_leaves_nothing_behind(server):
    body = json.dumps({"instances": [{"b64": base64.b64encode(colours.picture("red")).decode()}] * 40}).encode()
    for _ in range(20):
        server.raw(head(len(body)) + body).close()
        server.raw(head(len(body)) + body[:50]).close()
        server.raw(b"GET /").close()
    assert colours.agrees(*server.predict(colours.picture("red")), "red")
    end = time.monotonic() + 60
    while (left := (server.metric("serve_body_bytes"), server.metric("serve_queue_rows"))) != (0, 0):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert not [line for line in server.lines if "Traceback" in line or "Error" in line]


def test_it_listens_on_this_machine_only(server):
    table = pathlib.Path(f"/proc/{server.process.pid}/net/tcp")
    if not table.exists():
        pytest.skip("no /proc here")
    port = f"{server.address[1]:04X}"
    listening = [line.split()[1] for line in table.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(port)] == [f"0100007F:{port}"]
    assert any("for trying and small use" in line for line in server.lines)


# --- health and metrics ---


def test_health_and_metrics(server):
    assert server.ask("GET", "/healthz") == (200, "ok\n")
    counts = {"OK": 3, "INVALID_ARGUMENT": 2, "NOT_FOUND": 1}

    def count(status):
        return server.metric(":tensorflow:serving:request_count", model_name="net", status=status)

    before = {status: count(status) for status in counts}
    rows = server.metric("serve_batch_rows_sum")
    latency = ":tensorflow:serving:request_latency"
    before_sum, began = server.metric(latency + "_sum"), time.monotonic()
    for _ in range(3):
        server.predict(*[colours.picture("red")] * 5)
    spent, elapsed = server.metric(latency + "_sum") - before_sum, time.monotonic() - began
    assert 300 < spent < 1e6 * elapsed  # microseconds
    for path, body in ((PREDICT, b"{"), (PREDICT, {}), ("/v1/models/x:predict", {})):
        server.ask("POST", path, body)
    assert {status: count(status) - before[status] for status in counts} == counts
    assert server.metric("serve_batch_rows_sum") - rows == 15
    assert server.metric(latency + "_count", entrypoint="REST") == count("OK")
    assert server.metric(latency + "_count", API="predict") >= 3
    assert server.metric("serve_version", version="1") == 1 and server.metric("process_resident_memory_bytes") > 1e7
    assert server.ask("GET", "/monitoring/prometheus/metrics")[0] == 200


# --- versions that come and go ---


@pytest.mark.everything
def test_versions_change_over_under_load_without_a_failed_or_wrong_answer(tmp_path):
    """Half-written and broken versions come too, and one copied slowly; answers follow the versions in order."""
    ready, live = tmp_path / "ready", tmp_path / "net"
    scales = {1: 1.0, 2: 2.0, 3: 3.0, 6: 4.0}
    for number, scale in scales.items():
        colours.export(ready, scale).rename(ready / f"{number}.")
    live.mkdir()
    (ready / "1.").rename(live / "1")
    problems, seen, stop = [], [], threading.Event()

    def ask(colour):
        order = [0]
        while not stop.is_set():
            try:
                [answer] = server.predict(colours.picture(colour))
            except Exception as error:
                problems.append(error)
                continue
            numbers = [number for number, scale in scales.items() if colours.agrees(answer, colour, scale)]
            if len(numbers) != 1 or numbers[0] < order[-1]:
                problems.append((answer, order[-1]))
            order += numbers
        seen.append(sorted(set(order[1:])))

    with Client(live, "--poll", "0.1") as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, colour) for colour in colours.COLOURS]
        try:
            (ready / "2.").rename(live / "2")
            server.said("version 2 is served")
            shutil.copytree(ready / "3.", live / "4")
            with open(live / "4" / "saved_model.pb", "r+b") as file:
                file.truncate(1000)
            server.said("version 4 cannot be served .*; version 2 goes on being served")
            (live / "5").mkdir()
            shutil.copy(ready / "3." / "saved_model.pb", live / "5")  # but not what lies beside it
            time.sleep(0.5)
            shutil.rmtree(live / "5")
            shutil.rmtree(live / "4")
            for path in sorted((ready / "3.").rglob("*")):  # file by file, slower than the looks
                target = live / "3" / path.relative_to(ready / "3.")
                if path.is_dir():
                    target.mkdir(parents=True)
                else:
                    target.parent.mkdir(exist_ok=True)
                    shutil.copy(path, target)
                    time.sleep(0.15)
            server.said("version 3 is served")
            (ready / "6.").rename(live / "6")
            server.said("version 6 is served")
            time.sleep(0.5)
        finally:
            stop.set()
        concurrent.futures.wait(clients)
        assert not problems, problems[:3]
        assert set.union(*map(set, seen)) == set(scales)
        assert server.ask("GET", MODEL + "/versions/1")[1]["model_version_status"][0]["state"] == "END"
        assert sum("version 4" in line and "cannot" in line for line in server.lines) == 1


class Module(tf.Module):
    """Models that kresnets does not export."""

    @tf.function(input_signature=[tf.TensorSpec((None,), name="a"), tf.TensorSpec((None,), name="b")])
    def add(self, a, b):
        return {"sum": a + b, "raw_bytes": tf.as_string(a)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64, name="rounds")])
    def spin(self, rounds):
        return {
            "rounds": tf.map_fn(
                lambda each: tf.while_loop(lambda i: i < each, lambda i: (i + 1,), (0 * each,))[0], rounds
            )
        }

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def strict(self, text):
        return {"number": tf.strings.to_number(text)}

    @tf.function(input_signature=[tf.TensorSpec((), name="x")])
    def scalar(self, x):
        return {"half": x / 2}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    path = tmp_path_factory.mktemp("modules") / "net"
    module = Module()
    names = ("add", "spin", "strict", "scalar")
    signatures = {name: getattr(module, name).get_concrete_function() for name in names}
    tf.saved_model.save(module, str(path / "1"), {**signatures, "serving_default": signatures["add"]})
    return path


def test_models_of_other_origin_and_an_end_that_loses_nothing(modules):
    with Client(modules, "--wait-ms", "200", "--timeout", "120") as server:

        def ask(signature, **request):
            return server.ask("POST", PREDICT, {"signature_name": signature, **request})

        assert ask("add", instances=[{"a": 1, "b": 2.5}])[1] == {
            "predictions": [{"sum": 3.5, "raw_bytes": {"b64": base64.b64encode(b"1.000000").decode()}}]
        }
        assert ask("add", inputs={"a": [1, 2], "b": [1]})[0] == 400
        assert ask("scalar", inputs=5)[1] == {"outputs": 2.5}
        assert 'data-fits="false"' in server.ask("GET", "/")[1]  # nothing to drop on a page here
        # Joined in a batch that fails, the good one is answered and the bad one told why.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            texts = ["1.5", "no number", "2", "3"]
            answers = list(pool.map(lambda text: ask("strict", instances=[text]), texts))
        assert [status for status, _ in answers] == [200, 400, 200, 200] and "no number" in answers[1][1]["error"]
        assert answers[3][1] == {"predictions": [3.0]}
        # The end: what is computed is answered, what comes later is not let in.
        rounds = 100_000
        while True:
            began = time.monotonic()
            assert ask("spin", instances=[rounds])[0] == 200
            if time.monotonic() - began > 0.6:
                break
            rounds *= 2
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            last = [pool.submit(ask, "spin", instances=[rounds]) for _ in range(2)]
            one = len(json.dumps({"signature_name": "spin", "instances": [rounds]}))
            while server.metric("serve_body_bytes") < 2 * one and not all(each.done() for each in last):
                time.sleep(0.01)  # until both are here
            server.process.send_signal(signal.SIGTERM)
            server.said("Stopping")
            time.sleep(0.1)
            with pytest.raises(OSError):
                server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [each.result()[1] for each in last] == [{"predictions": [rounds]}] * 2
        assert server.process.wait(120) == 0
        assert not [line for line in server.lines if "Traceback" in line]


def test_a_warm_up_file_is_replayed_and_a_bad_one_refused_as_tf_serving_does(folder):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    from _serve.servable import Servable

    version = folder.parent / "warm" / "1"
    shutil.copytree(folder / "1", version)
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    log = logs.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "predict_tensor"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.zeros((2, 8, 8, 3), "float32")))
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(log.SerializeToString())
    asked = []

    class Recorder(Servable):
        def run(self, signature, inputs):
            asked.append((signature, {name: np.shape(each) for name, each in inputs.items()}))
            return super().run(signature, inputs)

    Recorder(version, batch_sizes=(1, 4)).close()
    assert asked[0] == ("predict_tensor", {"images": (2, 8, 8, 3)})
    defaults = [shapes for signature, shapes in asked[1:] if signature == "serving_default"]
    assert defaults == [{"image_bytes": (1,)}, {"image_bytes": (4,)}]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match="version 1 cannot be served"):
        Servable(version)


# --- its owner ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{folder}/none"], "is no folder: give an exported model"),
        (["{folder}/1"], "is one version: give the folder that holds it"),
        (["{folder}", "--name", "a/b"], "cannot stand in a path"),
        (["{folder}", "--versions", "1", "--label", "stable=2"], "--label names a version that --versions leaves out"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(folder, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        serve.main([each.format(folder=folder) for each in arguments])


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--poll", "0"], ["--label", "a"], ["--max-batch", "0"], ["--timeout", "nan"]]
)  # fmt: skip
def test_arguments_out_of_range(folder, arguments, capsys):
    with pytest.raises(SystemExit):
        serve.main([str(folder), *arguments])
    assert "must be" in capsys.readouterr().err


def test_without_aiohttp_a_sentence_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError, match=r"pip install 'kresnets\[serving\]'"):
        serve.main([str(folder)])


def test_a_port_that_is_taken(folder, server):
    with pytest.raises(OSError, match="choose another --host or --port"):
        serve.main([str(folder), "--port", str(server.address[1])])


# --- for longer ---


@pytest.mark.parametrize(
    ("seconds", "changes"),
    [pytest.param(*each, marks=pytest.mark.everything) for each in ((3, 1), (60, 3))],
)
def test_a_soak_keeps_every_promise(tmp_path, seconds, changes):
    """A minute of the bench's load, change-overs and hostile requests; of its memory too, which seconds say little of."""
    import bench

    out = tmp_path / "soak.json"
    arguments = ["--minutes", str(seconds / 60), "--changes", str(changes), "--hostile", "0.03", "--out", str(out)]
    code = bench.main(["soak", *arguments])
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    missed = {what for what, row in rows.items() if not row.get("kept", True)}
    allowed = {"memory that grew, bytes"} if seconds < 60 else set()
    assert missed <= allowed and code == (1 if missed else 0)
    assert len(rows) == 8 and rows["good requests"]["value"] > 20


@pytest.mark.everything
def test_the_bench_tells_rates_and_times_by_clients(tmp_path):
    import bench

    out = tmp_path / "serving.json"
    command = [
        "serving",
        "--parts",
        "server",
        "--model",
        "CifarResNet20",
        "--clients",
        "1",
        "4",
        "--seconds",
        "1",
        "--out",
        str(out),
    ]
    assert bench.main(command) == 0
    rows = json.loads(out.read_text())["rows"]
    ways = [(row["what"], row["clients"]) for row in rows]
    assert ways == [(way, clients) for way in ("batching", "no batching") for clients in (1, 4)]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] and row["rate"] > 0 for row in rows)
