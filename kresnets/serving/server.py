"""A server to try an exported model with, by aiohttp: TF Serving's REST paths, a page, health and metrics."""

import asyncio
import functools
import html
import itertools
import json
import logging
import os
import pathlib
import re
import signal
import sys
import time
import urllib.parse
from collections.abc import Collection, Mapping

try:
    import prometheus_client
    from aiohttp import web
except ImportError as error:
    raise ImportError(f"The server needs {error.name}: pip install 'kresnets[serving]'") from None

from kresnets._util.checks import is_number, is_whole
from kresnets.serving.batching import Batcher, batch_sizes
from kresnets.serving.errors import STATUS, Refusal, demand
from kresnets.serving.metrics import Metrics
from kresnets.serving.servable import Servable
from kresnets.serving.tensors import PARSERS
from kresnets.serving.versions import LARGEST, Versions

_LOG = logging.getLogger("kresnets.serving")
# Of aiohttp, which would write a traceback for each request that breaks off; our own failures never get there.
_SILENT = logging.Logger("aiohttp.server", logging.CRITICAL)
_PAGE = pathlib.Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_json = functools.partial(web.json_response, headers={"X-Content-Type-Options": "nosniff"})


def run(
    path: str | os.PathLike, name: str | None = None, host: str = "127.0.0.1", port: int = 8501, poll: float = 1.0,
    newest: int = 1, versions: Collection[int] = (), labels: Mapping[str, int] | None = None, max_batch: int = 32,
    wait_ms: float = 2.0, batching: bool = True, max_mb: float = 16.0, max_instances: int = 256, max_queue: int = 1024,
    timeout: float = 30.0,
) -> None:  # fmt: skip
    """Serve an exported model, as TF Serving's REST interface does, until SIGTERM or Ctrl-C comes.

    Looks into the folder again and again, and changes over to a new version without a failed request. What is under
    way when the signal comes is answered; a second signal ends the process at once. Must run in the main thread.

    Args:
        path: Folder of the model, the parent of its versions.
        name: Of the model, in the paths; without `/` and `:`. Defaults to the folder's.
        host: Address to listen on; "0.0.0.0" for all. Defaults to this machine only.
        port: 0 (any that is free) to 65535.
        poll: Seconds between two looks into the folder, 0.05 to 3600.
        newest: How many versions to serve, from the highest down; at least 1.
        versions: Just these numbers, in the place of `newest`.
        labels: A dict from labels to numbers of versions, which are served too.
        max_batch: Rows that are computed at once, 1 to 1024.
        wait_ms: Milliseconds to wait for others to join a batch, 0 to 10000.
        batching: False to compute each request by itself.
        max_mb: Megabytes (10**6 bytes) of a request, 0.01 to 1024.
        max_instances: Instances in a request; at least 1.
        max_queue: Rows that may wait; at least 1.
        timeout: Seconds to send a request, and to wait for its answer; 0.1 to 3600.

    Raises:
        ValueError: For an argument out of its range, or a path that is no folder of versions.
        OSError: Where the address cannot be listened on.

    Example:
        >>> run("saved_models/pets", port=8080, labels={"stable": 3})  # doctest: +SKIP
    """
    labels, path = labels or {}, pathlib.Path(path)
    for option, value, lowest, highest in (
        ("--port", port, 0, 65535), ("--poll", poll, 0.05, 3600), ("--newest", newest, 1, LARGEST),
        *(("--versions", number, 0, LARGEST) for number in versions),
        *(("--label", number, 0, LARGEST) for number in labels.values()),
        ("--max-batch", max_batch, 1, 1024), ("--wait-ms", wait_ms, 0.0, 10000), ("--max-mb", max_mb, 0.01, 1024),
        ("--max-instances", max_instances, 1, LARGEST), ("--max-queue", max_queue, 1, LARGEST),
        ("--timeout", timeout, 0.1, 3600),
    ):  # fmt: skip
        _check(option, value, lowest, highest)
    if not all(re.fullmatch("[^/:=]+", label) for label in labels):
        raise ValueError(f"--label must be like stable=3, without / and : in it. Received: {', '.join(labels)}")
    if versions and not set(labels.values()) <= set(versions):
        raise ValueError("--label names a version that --versions leaves out: add it there.")
    name = _checked_name(path, name)
    if not _LOG.handlers:
        # A log, as a pipe without a reader or a full disk is no reason for it to stop serving.
        _LOG.addHandler(logging.StreamHandler(sys.stdout))
        _LOG.setLevel(logging.INFO)
    largest = max_batch if batching else 0
    load = functools.partial(Servable, batch_sizes=batch_sizes(largest) if largest else (1,))
    served, metrics = Versions(name, path, load, newest, versions, labels, _LOG.info), Metrics(name)
    batcher = Batcher(largest, wait_ms / 1000, max_queue, metrics.computed, served.hold)
    server = _Server(served, batcher, metrics, round(max_mb * 1e6), max_instances, timeout)
    asyncio.run(_serve(server.application(), served, host, port, poll, timeout))


def _check(option, value, lowest, highest):
    whole = isinstance(lowest, int)
    if not (is_whole(value) if whole else is_number(value)) or not lowest <= value <= highest:
        limits = f"of at least {lowest}" if highest == LARGEST else f"from {lowest:g} to {highest}"
        raise ValueError(f"{option} must be a {'whole number' if whole else 'number'} {limits}. Received: {value!r}")


def _checked_name(path, name):
    if not path.is_dir():
        what = f"{path} is no folder" if path.exists() else f"There is no {path} here"
        raise ValueError(f"{what}: give an exported model such as saved_models/NAME.")
    if (path / "saved_model.pb").exists():
        raise ValueError(f"{path} is one version: give the folder that holds it, {path.resolve().parent}.")
    if (path / "model.keras").exists() or (path / "config.json").exists():
        raise ValueError(f"{path} is a run and no exported model: export it first (kresnets export {path} FOLDER).")
    name = name or path.resolve().name
    if not re.fullmatch("[^/:]+", name):
        raise ValueError(f"{name!r} cannot stand in a path of TF Serving's: give another --name, without / and colon.")
    return name


async def _serve(app, versions, host, port, poll, timeout):
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    times = {"keepalive_timeout": timeout, "shutdown_timeout": timeout}
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, logger=_SILENT, **times)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: os._exit(1) if stopped.is_set() else stopped.set())
        _LOG.info("This server is for trying and small use; for production take TF Serving (docs/serving.md).")
        if host not in ("127.0.0.1", "localhost", "::1"):
            _LOG.info("It can be reached from other machines, by whoever may, without encryption.")
        shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
        looking = asyncio.create_task(_look(versions, f"http://{shown}:{runner.addresses[0][1]}", poll))
        await stopped.wait()
        _LOG.info("Stopping: requests that are here are answered first.")
        looking.cancel()
    except (OSError, UnicodeError) as error:  # a host's name can be one that cannot even be asked for
        why = getattr(error, "strerror", None) or error
        raise OSError(f"Cannot listen on {host}, port {port} ({why}): choose another --host or --port.") from None
    finally:
        await runner.cleanup()  # waits for the answers that are under way


async def _look(versions, address, poll):
    for first in itertools.chain([True], itertools.repeat(False)):
        try:
            await versions.poll(first)
        except Exception:  # a defect must not end the looking
            _LOG.exception("Looking for versions failed.")
        if first:
            requests = f"{address}/v1/models/{urllib.parse.quote(versions.name)}:predict"
            _LOG.info("%s is a page to drop images on, %s takes requests.", address, requests)
            if not _asked(versions)[0]:
                _LOG.warning("The model takes tensors alone, no files: the page has nothing that it could ask it.")
        await asyncio.sleep(poll)


def _asked(versions):
    """Return whether the version that answers takes the bytes of files, as the page sends them, and the names of the
    numbers that it gives; True and nothing where there is none."""
    if not versions.available:
        return True, []
    with versions.use() as servable:
        default = servable.signatures.get("serving_default")
        files = default is None or any(tensor.dtype == object for tensor in default.inputs.values())
        return files, servable.numbers


class _Server:
    def __init__(self, versions, batcher, metrics, max_bytes, max_instances, timeout):
        self._versions, self._batcher, self._metrics = versions, batcher, metrics
        self._max_bytes, self._max_instances, self._timeout = max_bytes, max_instances, timeout

    def application(self):
        app = web.Application(middlewares=[_errors_as_json], client_max_size=self._max_bytes)
        for choice in ("", "/versions/{version:[0-9]+}", "/labels/{label:[^/:]+}"):
            model = "/v1/models/{name:[^/:]+}" + choice
            app.router.add_get(model, self.status)
            app.router.add_get(model + "/metadata", self.metadata)
            app.router.add_post(model + ":{api:predict|classify}", self.answer)
        app.router.add_get("/monitoring/prometheus/metrics", self.metrics)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/healthz", self.health)
        app.router.add_get("/", self.page)
        app.router.add_get("/{file:page[.](?:css|js)}", _file)
        return app

    async def status(self, request):
        name = request.match_info["name"]
        demand(name == self._versions.name, f"Could not find any versions of model {name}", "NOT_FOUND")
        return _json({"model_version_status": self._versions.status(*_chosen(request))})

    async def metadata(self, request):
        self._check_name(request)
        with self._versions.use(*_chosen(request)) as servable:
            spec = {"name": self._versions.name, "signature_name": "", "version": str(servable.number)}
            return _json({"model_spec": spec, "metadata": {"signature_def": {"signature_def": servable.metadata}}})

    async def health(self, request):
        healthy = bool(self._versions.available)
        return web.Response(text="ok\n" if healthy else "no version is loaded\n", status=200 if healthy else 503)

    async def metrics(self, request):
        text = self._metrics.text(self._versions.available, self._batcher.waiting)
        return web.Response(body=text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def page(self, request):
        text = (_PAGE / "index.html").read_text(encoding="utf-8")
        largest = (self._max_bytes - 1000) // 4 * 3  # in base64 an image takes 4/3 of its size
        files, numbers = _asked(self._versions)
        said = {
            "NAME": self._versions.name,
            "LARGEST": largest,
            "TAKES": "files" if files else "tensors",
            "NUMBERS": json.dumps(numbers),
        }
        text = re.sub(r"\{([A-Z]+)\}", lambda match: html.escape(str(said[match[1]])), text)
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def answer(self, request):
        api, start, code = request.match_info["api"], time.monotonic(), "CANCELLED"  # what remains: the client has gone
        try:
            self._check_name(request)
            body = await self._body(request)
            with self._versions.use(*_chosen(request)) as servable:
                answer = await self._answer(servable, api, body)
            code = "OK"
        except Exception as error:
            code = error.code if isinstance(error, Refusal) else "INTERNAL"
            raise
        finally:
            self._metrics.requested(api, code, time.monotonic() - start)
        return web.Response(body=answer, content_type="application/json")

    def _check_name(self, request):
        name = request.match_info["name"]
        demand(name == self._versions.name, f"Servable not found for request: Latest({name})", "NOT_FOUND")

    async def _body(self, request):
        try:
            async with asyncio.timeout(self._timeout):
                return await request.read()
        except TimeoutError:
            raise Refusal(f"The request was not sent within {self._timeout:g} seconds.", "TOO_SLOW") from None
        except web.HTTPRequestEntityTooLarge:
            limit = f"{self._max_bytes} bytes, which is the limit here"
            raise Refusal(f"The request is larger than {limit}.", "TOO_LARGE") from None
        except web.RequestPayloadError as error:  # chunks or compression that make no sense
            raise Refusal(f"The body cannot be read: {' '.join(str(error).split())[:300]}") from None

    async def _answer(self, servable, api, body):
        # Reading and writing JSON takes a while where it is large: in a thread, so that others are answered meanwhile.
        name, inputs, dump = await asyncio.to_thread(PARSERS[api], body, servable.signatures, self._max_instances)
        try:
            async with asyncio.timeout(self._timeout):
                outputs = await self._batcher.compute(servable, name, inputs)
        except TimeoutError:
            raise Refusal(f"No answer within {self._timeout:g} seconds.", "DEADLINE_EXCEEDED") from None
        except Exception as error:
            raise _refusal_of(error) from None
        return await asyncio.to_thread(dump, outputs)


def _refusal_of(error):
    """Return what the client reads of an error of TensorFlow: the sentence, not the stack before and the node after."""
    if isinstance(error, Refusal):
        return error
    lines = (getattr(error, "message", None) or str(error)).split("[[")[0].split("\n")
    sentences = [line.strip()[:300] for line in lines if line.strip()] or [type(error).__name__]
    return Refusal(sentences[-1], "INVALID_ARGUMENT" if type(error).__name__ == "InvalidArgumentError" else "INTERNAL")


def _chosen(request):
    """Return the version's number and label that a path names, or None."""
    number = request.match_info.get("version")
    demand(not number or len(number) <= 19, f"Failed to convert version: {str(number)[:40]} to numeric.")
    return number and int(number), request.match_info.get("label")


@web.middleware
async def _errors_as_json(request, handler):
    """Answer each error as TF Serving does: `{"error": "..."}`."""
    try:
        return await handler(request)
    except Refusal as refusal:
        response = _json({"error": str(refusal)}, status=refusal.status)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        # TF Serving calls whatever it does not understand below /v1/ an invalid argument.
        status = STATUS["INVALID_ARGUMENT"] if request.path.startswith("/v1/") else error.status
        response = _json({"error": f"Malformed request: {request.method} {request.path[:200]}"}, status=status)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:  # a defect: its traceback goes to the log, not to the client
        _LOG.exception("A request failed.")
        response = _json({"error": "Internal error."}, status=500)
    if not request.content.at_eof():
        response.force_close()  # what is left of the body may end the connection: nothing else is to be sent on it
    return response


async def _file(request):
    return web.FileResponse(_PAGE / request.match_info["file"], headers=_HEADERS)
