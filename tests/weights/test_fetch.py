"""Fetching published files, from a server on this machine that fails in every way a host can."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from places import ROOT

from kresnets.weights import fetch, sources

CONTENT = os.urandom(1 << 20)
KERAS = dataclasses.replace(
    sources.find("ResNet50", "keras"),
    md5=hashlib.md5(CONTENT).hexdigest(),
    trunk_md5=hashlib.md5(CONTENT[1:]).hexdigest(),
)
HUB = sources.find("ResNet18", "timm/resnet18.a1_in1k")
NOWHERE = "http://127.0.0.1:9"


class Host:
    """A server whose `fault` says what becomes of a request, or for the hub the name of the repository."""

    def __init__(self):
        self.fault = None
        self.requests = []  # method and path of each
        self.half_sent = threading.Event()  # set when half of a file is on its way
        self.go_on = threading.Event()  # lets a halted answer go on
        self.both = threading.Barrier(2, timeout=60)

    @contextlib.contextmanager
    def serving(self):
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                host.answer(self, body=False)

            def do_GET(self):
                host.answer(self, body=True)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            yield self
            self.go_on.set()
            server.shutdown()

    def answer(self, request, body):
        self.requests.append((request.command, request.path))
        fault = self.fault or request.path.split("/")[2]
        if fault.isdigit():
            return request.send_error(int(fault))
        if fault == "silent":
            return self.go_on.wait(60)
        if fault == "hangs up" or fault == "hangs up at first" and len(self.requests) < 3:
            return request.connection.close()
        if fault == "redirect" and "moved" not in request.path:
            request.send_response(302)
            request.send_header("Location", f"{self.url}/moved{request.path}")
            self.hub_headers(request)
            request.send_header("Content-Length", "0")
            return request.end_headers()
        content = CONTENT[1:] if request.path.endswith("_notop.h5") else CONTENT
        content = bytes(len(content)) if fault == "other-content" else content
        content = b"<!DOCTYPE html><h1>Please log in</h1>" if fault == "login" else content
        if have := fault == "cut, and goes on" and request.headers.get("Range"):
            content = content[int(have[6:-1]) :]
        request.send_response(206 if have else 200)
        self.hub_headers(request)
        if fault != "cut, of unknown length":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            self.send(request, content, fault)

    def hub_headers(self, request):
        request.send_header("X-Repo-Commit", "c" * 40)
        request.send_header("X-Linked-Etag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
        request.send_header("X-Linked-Size", str(len(CONTENT)))
        request.send_header("ETag", '"of the copy"')

    def send(self, request, content, fault):
        if fault == "both at once":
            self.both.wait()
        if fault == "drips":
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for byte in content[:200]:
                    request.wfile.write(bytes([byte]))
                    time.sleep(0.03)
            return
        half = len(content) // 2
        request.wfile.write(content[:half])
        request.wfile.flush()
        self.half_sent.set()
        if fault == "halted":
            self.go_on.wait(60)
        if fault == "stalls":
            self.go_on.wait(60)
        if not fault.startswith(("cut", "stalls")) or fault == "cut, and goes on" and request.headers.get("Range"):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the process was killed
                request.wfile.write(content[half:])


@pytest.fixture
def host(monkeypatch):
    with Host().serving() as host:
        monkeypatch.setattr(fetch, "KERAS_URL", host.url)
        monkeypatch.setattr(fetch, "_PATIENCE", 0.4)
        monkeypatch.setattr(fetch, "_PAUSE", 0)
        yield host


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


def contents(cache):
    return {path.name: path.read_bytes() for path in cache.iterdir()} if cache.exists() else {}


# --- keras.applications ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["", "redirect"])
def test_a_file_is_fetched_once_and_kept_where_keras_keeps_it(fault, host, cache, monkeypatch):
    host.fault = fault or "none"
    for _ in range(2):
        assert fetch.fetch(KERAS, trunk_only=False) == cache / KERAS.file
    assert fetch.fetch(KERAS, trunk_only=True) == cache / KERAS.trunk_file
    assert contents(cache) == {KERAS.file: CONTENT, KERAS.trunk_file: CONTENT[1:]}
    assert len(host.requests) == (4 if fault else 2)
    monkeypatch.setattr(fetch, "KERAS_URL", NOWHERE)
    assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT


FAULTS = {
    "403": "403",
    "404": "404",
    "500": "500",
    "503": "503",
    "cut": f"the host sent {len(CONTENT) // 2} of {len(CONTENT)} bytes",
    "login": "is a web page",
    "silent": "timed out",
    "stalls": "timed out",
    "drips": "too slow",
    "hangs up": "closed connection",
    "no such host": "not known",
    "cut, of unknown length": "hash",
    "other-content": "hash",
    "no server": "refused",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_had_says_what_to_do_and_leaves_nothing(fault, host, cache, monkeypatch):
    host.fault = fault
    if fault in ("no server", "no such host"):
        monkeypatch.setattr(fetch, "KERAS_URL", NOWHERE if fault == "no server" else "http://nowhere.invalid")
    began = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        fetch.fetch(KERAS, trunk_only=False)
    assert time.monotonic() - began < 20  # of which none is ours: a resolver's own
    again = fault in ("500", "503", "cut", "silent", "stalls", "drips", "hangs up")
    assert len(host.requests) == (0 if fault.startswith("no s") else 3 if again else 1)
    message = str(caught.value)
    url = f"{fetch.KERAS_URL}/resnet/{KERAS.file}"
    for word in (
        url,
        str(cache / KERAS.file),
        KERAS.md5,
        "by hand",
        f"curl -fLO {url}",
        "'caffe'",
        "ResNet18DThin with weights='kresnets/distilled'",
        "'open_nsfw'",
        FAULTS[fault],
    ):
        assert word in message
    assert "\n" not in message and not contents(cache)
    host.fault = "none"
    monkeypatch.setattr(fetch, "KERAS_URL", host.url)
    assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["cut, and goes on", "hangs up at first"])
def test_what_breaks_off_goes_on(fault, host, cache):
    host.fault = fault
    assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT
    assert len(host.requests) > 1


def test_a_proxy_is_asked(host, cache, monkeypatch):
    monkeypatch.setattr(fetch, "KERAS_URL", "http://keras.invalid")
    monkeypatch.setenv("http_proxy", host.url)
    host.fault = "none"
    assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT
    assert host.requests == [("GET", f"http://keras.invalid/resnet/{KERAS.file}")]


def test_a_hub_that_drips_is_given_up(tmp_path, monkeypatch):
    """huggingface_hub's own limits are for hosts that are silent."""
    monkeypatch.setattr(fetch, "_PATIENCE", 0.1)
    (tmp_path / "model" / "blobs").mkdir(parents=True)

    def dripping(byte, times):
        with open(tmp_path / "model" / "blobs" / "x.incomplete", "wb", buffering=0) as file:
            for _ in range(times):
                file.write(byte)
                time.sleep(0.05)
        return "whole"

    with pytest.raises(TimeoutError, match="too slow: [0-9]+ bytes a second"):
        fetch._watched(lambda: dripping(b"x", 100), tmp_path)
    assert fetch._watched(lambda: dripping(bytes(100_000), 20), tmp_path) == "whole"
    with pytest.raises(KeyError):
        fetch._watched(lambda: {}["x"], tmp_path)


def test_a_damaged_file_in_the_cache_is_fetched_again(host, cache, monkeypatch):
    host.fault = "none"
    cache.mkdir(parents=True)
    for damaged in (CONTENT[:1000], b"", bytes(len(CONTENT))):
        (cache / KERAS.file).write_bytes(damaged)
        assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT
    (cache / KERAS.file).write_bytes(bytes(len(CONTENT)))
    monkeypatch.setattr(fetch, "KERAS_URL", NOWHERE)
    with pytest.raises(RuntimeError, match="by hand"):
        fetch.fetch(KERAS, trunk_only=False)


def test_a_cache_that_cannot_be_written_to(host, tmp_path, monkeypatch):
    host.fault = "none"
    (tmp_path / "a file").touch()
    blocked, spare = tmp_path / "a file" / "models", tmp_path / "spare" / "models"
    monkeypatch.setattr(fetch, "_keras_folders", lambda: (blocked, spare))
    for _ in range(2):
        assert fetch.fetch(KERAS, trunk_only=False) == spare / KERAS.file
    assert len(host.requests) == 1
    monkeypatch.setattr(fetch, "_keras_folders", lambda: (blocked, blocked))
    with pytest.raises(RuntimeError, match="can be written to; set KERAS_HOME"):
        fetch.fetch(KERAS, trunk_only=False)


def test_the_message_names_the_home_folder_as_a_user_writes_it(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "KERAS_URL", NOWHERE)
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "_keras_folders", lambda: (tmp_path / "models",))
    with pytest.raises(RuntimeError, match=rf" ~/\.keras/models/{KERAS.file} by hand"):
        fetch.fetch(KERAS, trunk_only=False)


IN_A_PROCESS = """
import dataclasses, sys
from kresnets.weights import fetch, sources
fetch.KERAS_URL, md5 = sys.argv[1:]
print(fetch.fetch(dataclasses.replace(sources.find("ResNet50", "keras"), md5=md5), trunk_only=False))
"""


def _process(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        # The smallest of Keras's backends: nothing is computed here.
        env=os.environ | {"KERAS_BACKEND": "numpy"} | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.everything
def test_two_processes_at_once_do_not_corrupt_a_file(host, cache):
    host.fault = "both at once"
    processes = [_process(IN_A_PROCESS, host.url, KERAS.md5) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and output.splitlines()[-1] == str(cache / KERAS.file), errors
    assert len(host.requests) == 2 and contents(cache) == {KERAS.file: CONTENT}


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(host, cache):
    host.fault = "halted"
    process = _process(IN_A_PROCESS, host.url, KERAS.md5)
    assert host.half_sent.wait(60)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in cache.glob("*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (left,) = cache.iterdir()
    assert left.is_dir() and 0 < (left / KERAS.file).stat().st_size < len(CONTENT)
    host.fault = "none"
    assert fetch.fetch(KERAS, trunk_only=False).read_bytes() == CONTENT
    assert left.exists()  # it might still be a download of another process
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (left / KERAS.file, left):
        os.utime(path, (two_days_ago, two_days_ago))
    fetch.fetch(KERAS, trunk_only=True)
    assert not left.exists() and contents(cache).keys() == {KERAS.file, KERAS.trunk_file}


# --- the Hugging Face Hub -------------------------------------------------------------------------------------------

# huggingface_hub reads its environment when it is imported. Each fault is a repository of its own; waiting between the
# library's attempts is left out.
FROM_THE_HUB = """
import dataclasses, json, pathlib, sys, time
from kresnets.weights import fetch, sources
time.sleep = lambda seconds: None
row, told = sources.find("ResNet18", "timm/resnet18.a1_in1k"), {}
for fault in sys.argv[1:]:
    try:
        told[fault] = str(fetch.fetch(dataclasses.replace(row, repository=f"timm/{fault}"), trunk_only=False))
    except RuntimeError as error:
        told[fault] = f"error: {error}"
print(json.dumps(told))
"""


def _from_the_hub(folder, endpoint, *faults, **environment):
    process = _process(FROM_THE_HUB, *faults, HF_HOME=str(folder), HF_ENDPOINT=endpoint, **environment)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.everything
def test_fetching_from_the_hub(host, tmp_path):
    pytest.importorskip("huggingface_hub")
    faults = ["whole", "redirect", "404", "503", "cut", "other-content"]
    told = _from_the_hub(tmp_path, host.url, *faults, "whole")
    for fault in ("whole", "redirect"):
        path = pathlib.Path(told.pop(fault))
        assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path) and path.name == "model.safetensors"
    for fault, message in told.items():
        assert message.startswith(f"error: model.safetensors of timm/{fault} could not be fetched"), message
        assert f"{host.url}/timm/{fault}/resolve/main/model.safetensors" in message
        assert "\n" not in message and "by hand" in message and "`weights`" in message
    assert "404" in told["404"] and "503" in told["503"]
    assert "sha256" in told["other-content"]
    assert host.requests.count(("GET", "/timm/whole/resolve/main/model.safetensors")) == 1

    assert not list(tmp_path.rglob("models--timm--other-content/blobs/*"))  # nor does it stay for other programs

    host.requests.clear()
    unknown = "http://nowhere.invalid"  # RFC 6761 section 6.4: no name server may know it
    for endpoint, environment in ((host.url, {}), (NOWHERE, {}), (unknown, {}), (host.url, {"HF_HUB_OFFLINE": "1"})):
        told = _from_the_hub(tmp_path, endpoint, "whole", "cut", "other-content", **environment)
        assert ("no such host is known here" in told["cut"]) == (endpoint == unknown)
        assert pathlib.Path(told["whole"]).read_bytes() == CONTENT
        assert all(told[fault].startswith("error: ") for fault in ("cut", "other-content"))
        assert bool(host.requests) == (endpoint == host.url and not environment)
        host.requests.clear()


def test_without_huggingface_hub_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(RuntimeError) as caught:
        fetch.fetch(HUB, trunk_only=True)
    message = str(caught.value)
    for word in (
        "pip install 'kresnets[hub]'",
        f"{fetch.HUB_URL}/timm/resnet18.a1_in1k/resolve/main/model.safetensors",
        "by hand",
        "`weights`",
    ):
        assert word in message
    assert "\n" not in message
