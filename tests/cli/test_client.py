"""apps/client.py against `kresnets serve`, against TF Serving where there is one, and beside the loaders that it
uses."""

import ast
import concurrent.futures
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import colours
import numpy as np
import pytest
import tensorflow as tf
from places import ROOT

sys.path.insert(0, str(ROOT / "apps"))
import client
from bench.asking import Server

IMAGES = {"red": b"", "text": b"no image", "green": b"", "blue": b""}
IMAGES |= {colour: colours.picture(colour, size=(50, 40)) for colour in ("red", "green", "blue")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "net"
    for scale in (1.0, 2.0):
        colours.export(path, scale)
    return path


def check(predict, address, **which):
    """What every server must answer to the same code."""
    version = which.get("version", 2)
    answers = predict(address, "net", list(IMAGES.values()), **which)
    assert [answer.keys() for answer in answers] == [{"labels", "scores", "valid"}] * len(IMAGES)
    for (name, _), answer in zip(IMAGES.items(), answers):
        if name == "text":
            assert answer == {"labels": [""] * 3, "scores": [0] * 3, "valid": False}
        else:
            assert colours.agrees(answer, name, scale=float(version))
    for problem in ({"version": 99}, {"label": "none"}):
        with pytest.raises(ValueError, match="refused"):
            predict(address, "net", [b""], **problem)
    with pytest.raises(ValueError, match="refused"):
        predict(address, "other", [b""])


# --- kresnets serve ---


@pytest.fixture(scope="module")
def server(folder):
    pytest.importorskip("aiohttp")
    with Server(folder, "--newest", "2", "--label", "stable=1") as server:
        yield server


@pytest.mark.everything
def test_the_server_of_this_project(server):
    check(client.predict_rest, server.url)
    check(client.predict_rest, server.url.removeprefix("http://"), version=1)
    [answer] = client.predict_rest(server.url, "net", [IMAGES["red"]], label="stable")
    assert colours.agrees(answer, "red", scale=1.0)


@pytest.mark.everything
def test_the_app_prints_a_table_and_its_exit_code_tells_bad_files(server, tmp_path, capsys):
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    arguments = ["--server", server.url, "--top", "2", "net", str(tmp_path / "red")]
    assert client.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    best, second = list(colours.expected("red").items())[:2]
    assert lines[0].split() == ["file", "label", "score"]
    assert lines[1].split() == [str(tmp_path / "red"), best[0], f"{best[1]:.4f}"]
    assert lines[2].split() == [second[0], f"{second[1]:.4f}"]
    assert client.main([*arguments, *(str(tmp_path / name) for name in ("text", "none"))]) == 1
    printed = capsys.readouterr().out
    assert "no image that can be decoded" in printed and "No such file" in printed


def test_who_does_not_answer_gets_a_sentence(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # without listening: nobody answers here
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(OSError, match="cannot be asked"):
            client.predict_rest(address, "net", [b""])
        pytest.importorskip("tensorflow_serving.apis")
        with pytest.raises(OSError, match="cannot be asked"):
            client.predict_grpc(address, "net", [b""], timeout=5)


@contextlib.contextmanager
def answering(answer):
    """A server whose POSTs get what `answer` makes of their bodies: a status and a value of JSON; yields its
    address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            status, value = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


ROW = {"labels": ["red"], "scores": [0.5], "valid": True}


@pytest.mark.parametrize(
    "document",
    [5, [1], None, {}, *({"predictions": value} for value in (
        5, [], [1], [[0.1, 0.9]], [{"labels": ["red"], "scores": [0.5]}], [ROW | {"labels": None}], [ROW, ROW],
        [ROW | {"scores": []}], [ROW | {"scores": ["x"]}], [ROW | {"labels": [None]}], [ROW | {"valid": "no"}],
    ))],
)  # fmt: skip
def test_an_answer_of_another_shape_gets_a_sentence(document):
    refusal = pytest.raises(ValueError, match="does not answer as a model exported by kresnets")
    with answering(lambda body: (200, document)) as address, refusal:
        client.predict_rest(address, "net", [b""])


@pytest.mark.parametrize("server", ["file:///etc", "ftp://localhost", "gopher://x"])
def test_only_http_is_asked(server):
    with pytest.raises(ValueError, match="give host:port, or a URL of http or https"):
        client.predict_rest(server, "net", [b""])


def test_requests_are_kept_small_and_one_that_is_refused_takes_a_row(tmp_path, capsys):
    sizes = []

    def answer(body):
        sizes.append(len(body))
        count = len(json.loads(body)["instances"])
        return (413, {"error": "too large"}) if len(body) > 16_000_000 else (200, {"predictions": [ROW] * count})

    lengths = [4_000_000, 3_000_000, 1_000_000, 13_000_000, *[10] * 20]
    for index, length in enumerate(lengths):
        (tmp_path / f"{index:02}").write_bytes(bytes(length))
    with answering(answer) as address:
        assert client.main(["net", *map(str, sorted(tmp_path.iterdir())), "--server", address]) == 1
    rows = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 24 and rows[3] == "refused: too large" and {*rows[:3], *rows[4:]} == {"red" + rows[0][3:]}
    assert len(sizes) == 5 and sorted(sizes)[-2] < 10_100_000  # 2 files, 1, the large one, 16 and 4


def test_a_refused_batch_is_asked_again_file_by_file(tmp_path, capsys):
    def answer(body):
        instances = json.loads(body)["instances"]
        bad = any(each["b64"] == "YmFk" for each in instances)
        return (400, {"error": "a\nbad one"}) if bad else (200, {"predictions": [ROW] * len(instances)})

    for name in ("good", "bad", "fine"):
        (tmp_path / name).write_bytes(name.encode())
    files = [str(tmp_path / name) for name in ("good", "bad", "fine")]
    with answering(answer) as address:
        assert client.main(["net", *files, "--server", address]) == 1
    rows = [line.split(maxsplit=1)[1].split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["red", "refused:", "red"]


def test_without_the_protos_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"tensorflow-serving-api.*pip install 'kresnets\[serving\]'"):
        client.predict_grpc("localhost:1", "net", [b""])


# --- gRPC: a service made of the published protos, as no TF Serving can be installed from a package registry ---


@pytest.fixture(scope="module")
def grpc_address(folder):
    """TF Serving's PredictionService over the exported versions: the same protos, another server behind them."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving.apis")
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    models = {int(path.name): tf.saved_model.load(str(path)) for path in folder.iterdir()}

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            if spec.name == "other-outputs":
                return predict_pb2.PredictResponse(outputs={"scores": tf.make_tensor_proto([[0.5]])})
            version = spec.version.value if spec.HasField("version") else max(models)
            if spec.name != "net" or version not in models:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(net, {version})")
            if spec.version_label:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: none")
            inputs = {name: tf.constant(tf.make_ndarray(each)) for name, each in request.inputs.items()}
            outputs = models[version].signatures[spec.signature_name](**inputs)
            return predict_pb2.PredictResponse(
                outputs={name: tf.make_tensor_proto(each.numpy()) for name, each in outputs.items()}
            )

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_grpc_by_the_published_protos(grpc_address):
    check(client.predict_grpc, grpc_address)
    check(client.predict_grpc, grpc_address, version=1)


def test_outputs_of_another_model_get_a_sentence(grpc_address):
    with pytest.raises(ValueError, match="does not answer as a model exported by kresnets"):
        client.predict_grpc(grpc_address, "other-outputs", [b""])


def test_the_app_asks_by_grpc(grpc_address, tmp_path, capsys):
    (tmp_path / "blue").write_bytes(IMAGES["blue"])
    assert client.main(["net", str(tmp_path / "blue"), "--grpc", "--server", grpc_address]) == 0
    assert list(colours.expected("blue"))[0] in capsys.readouterr().out


# --- TF Serving itself ---


@pytest.fixture(scope="module")
def tf_serving(folder):
    """REST and gRPC addresses of a TF Serving that serves `folder` as `net`."""
    program, given = shutil.which("tensorflow_model_server"), os.environ.get("KRESNETS_TF_SERVING")
    if given:
        target = os.environ.get("KRESNETS_TF_SERVING_FOLDER")
        if not target:
            pytest.fail("KRESNETS_TF_SERVING needs KRESNETS_TF_SERVING_FOLDER: where that server looks for versions.")
        for version in sorted(folder.iterdir()):
            beside = pathlib.Path(target) / f".copy-{version.name}"
            shutil.copytree(version, beside)
            beside.rename(beside.with_name(version.name))
        yield given, os.environ.get("KRESNETS_TF_SERVING_GRPC")
    elif program:
        rest, grpc = free_port(), free_port()
        command = [
            program,
            f"--rest_api_port={rest}",
            f"--port={grpc}",
            "--model_name=net",
            f"--model_base_path={folder}",
        ]
        process = subprocess.Popen(command)
        try:
            yield f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
        finally:
            process.terminate()
            process.wait(30)
    else:
        pytest.skip(
            "no TF Serving: no tensorflow_model_server here, and KRESNETS_TF_SERVING=host:port (REST) is not set"
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.tf_serving
def test_tf_serving_answers_the_same_code(tf_serving):
    rest, grpc = tf_serving
    end = time.monotonic() + 60
    while True:  # until it has loaded the versions
        try:
            check(client.predict_rest, rest)
            break
        except (OSError, ValueError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
    if grpc:
        check(client.predict_grpc, grpc)


# --- where there is none: the loaders that it uses, in fresh processes ---

LOADERS = """
import sys
folder, images, out = sys.argv[1:]
sys.modules["keras"] = sys.modules["kresnets"] = None
import numpy as np, tensorflow as tf
from tensorflow.python.tools import saved_model_cli
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    signature = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder).signature_def["serving_default"]
    answer = session.run(
        {name: output.name for name, output in signature.outputs.items()},
        {signature.inputs["image_bytes"].name: np.load(images).astype(object)},
    )
print(answer["labels"].tolist(), answer["scores"].tolist(), answer["valid"].tolist(), sep="\\n")
sys.argv[1:] = ["run", "--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default", "--inputs",
                f"image_bytes={images}", "--outdir", out]
saved_model_cli.main()
"""


@pytest.mark.everything
def test_the_session_loader_and_saved_model_cli_answer_as_the_server_does(folder, server, tmp_path):
    images, file = list(IMAGES.values()), tmp_path / "images.npy"
    assert not any(image.endswith(b"\0") for image in images)  # which a file of numpy's would lose
    np.save(file, np.array(images))
    process = subprocess.run(
        [sys.executable, "-c", LOADERS, folder / "2", file, tmp_path], capture_output=True, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    by_session = [ast.literal_eval(line) for line in lines[:3]]
    labels = [ast.literal_eval(each) for each in re.findall(r"b'(?:[^'\\]|\\.)*'", "\n".join(lines[3:]))]
    scores, valid = (np.load(tmp_path / f"{name}.npy").tolist() for name in ("scores", "valid"))
    by_cli = [labels[row : row + 3] for row in range(0, 12, 3)], scores, valid
    answers = client.predict_rest(server.url, "net", images)
    for labels, scores, valid in (by_session, by_cli):
        assert [[label.decode() for label in row] for row in labels] == [answer["labels"] for answer in answers]
        assert valid == [answer["valid"] for answer in answers]
        np.testing.assert_allclose(scores, [answer["scores"] for answer in answers], atol=1e-6)


# --- the guide ---


@pytest.mark.everything
def test_the_python_and_curl_of_the_guide_run(server, grpc_address, tmp_path, monkeypatch):
    """Each block as it stands, but for the addresses."""
    guide = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    rest = server.url.removeprefix("http://")

    def here(text):
        return text.replace("localhost:8501", rest).replace("localhost:8500", grpc_address).replace("pets", "net")

    (tmp_path / "photo.jpg").write_bytes(colours.picture("red", "JPEG", (64, 48)))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        names = {}
        exec(compile(here(block), "serving.md", "exec"), names)
        assert names["label"] == "red" and abs(names["score"] - colours.expected("red")["red"]) < 0.03
    commands = re.findall(r"^curl .*(?:(?<=\\)\n.*)*", guide, re.MULTILINE)
    assert len(commands) >= 4
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    for command in commands:
        process = subprocess.run(["bash", "-c", here(command)], capture_output=True, text=True)
        assert process.returncode == 0 and '"error"' not in process.stdout, (command, process.stdout, process.stderr)
