"""TF Serving's REST paths, the page, health and metrics, by aiohttp.

What a client may cost is bounded here: the size of a body, the bytes of all bodies together, the number of instances,
and the time for sending a request, for waiting and for taking the answer. (aiohttp itself bounds headers, and closes a
connection whose headers do not come.)
"""

import asyncio
import contextlib
import dataclasses
import functools
import html
import json
import logging
import pathlib
import time

from aiohttp import http_exceptions, web

from _serve import examples, tensors
from _serve.refusal import STATUS, Refusal

_PAGE = pathlib.Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MODEL = "/v1/models/{name:[^/:]+}"
_CLASSIFY = "tensorflow/serving/classify"
_CLIENTS_FAULTS = web.RequestPayloadError, http_exceptions.HttpProcessingError
_CHOICES = ("", "/versions/{version:[0-9]+}", "/labels/{label:[^/:]+}")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may cost."""

    body: int = 16 << 20  # bytes
    instances: int = 256
    seconds: float = 30.0  # for each of: sending it, waiting for the answer, taking the answer
    bodies: int = 128 << 20  # bytes of all requests together


class Server:
    """The web side of one model.

    Args:
        versions: `Versions`.
        batcher: `Batcher`.
        metrics: `Metrics`.
        limits: `Limits`.
    """

    def __init__(self, versions, batcher, metrics, limits):
        self._versions, self._batcher, self._metrics, self._limits = versions, batcher, metrics, limits

    def application(self):
        """Return the `aiohttp.web.Application`."""
        app = web.Application(middlewares=[_errors_as_json])
        for choice in _CHOICES:
            app.router.add_get(_MODEL + choice, self._status)
            app.router.add_get(_MODEL + choice + "/metadata", self._metadata)
            app.router.add_post(_MODEL + choice + ":predict", self._predict)
            app.router.add_post(_MODEL + choice + ":classify", self._classify)
        for path in ("/monitoring/prometheus/metrics", "/metrics"):
            app.router.add_get(path, self._metrics_text)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/", self._page)
        for file in ("page.css", "page.js"):
            app.router.add_get("/" + file, _file(file))
        return app

    async def _status(self, request):
        if (name := request.match_info["name"]) != self._versions.name:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        number, label = _chosen(request)
        number = self._versions.number_of(label) if label else number
        return _json({"model_version_status": self._versions.status(number)})

    async def _metadata(self, request):
        self._check_name(request)
        with self._versions.use(*_chosen(request)) as servable:
            spec = {"name": self._versions.name, "signature_name": "", "version": str(servable.number)}
            signatures = {"signature_def": servable.metadata}
            return _json({"model_spec": spec, "metadata": {"signature_def": signatures}})

    async def _health(self, request):
        healthy = bool(self._versions.available)
        return web.Response(text="ok\n" if healthy else "no version is loaded\n", status=200 if healthy else 503)

    async def _metrics_text(self, request):
        text, kind = self._metrics.text()
        return web.Response(body=text, headers={"Content-Type": kind})

    async def _page(self, request):
        try:
            with self._versions.use() as servable:
                fits = "serving_default" in servable.signatures
                fits = fits and servable.signatures["serving_default"].names_photographs
                version = f"version {servable.number}"
        except Refusal:
            fits, version = None, "no version"
        text = (_PAGE / "index.html").read_text(encoding="utf-8")
        # In base64 a photograph takes 4/3 of its size.
        largest = (self._limits.body - 1000) // 4 * 3
        values = {"VERSION": version, "LARGEST": largest, "FITS": json.dumps(fits), "NAME": self._versions.name}
        for key, value in values.items():
            text = text.replace("{" + key + "}", html.escape(str(value)))
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def _predict(self, request):
        return await self._answered(request, "predict", self._parsed)

    async def _classify(self, request):
        return await self._answered(request, "classify", self._parsed_examples)

    async def _answered(self, request, api, parsed):
        start, code = time.monotonic(), "CANCELLED"  # what remains when the client has gone
        try:
            body = await self._answer(request, parsed)
            code = "OK"
        except Refusal as refusal:
            code = refusal.code
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self._metrics.requested(api, code, time.monotonic() - start)
        response = web.Response(body=body, content_type="application/json")
        await _send(request, response, self._limits.seconds)
        return response

    async def _answer(self, request, parsed):
        self._check_name(request)
        taken = [0]
        try:
            body = await self._body(request, taken)
            return await self._outputs(*_chosen(request), parsed, body)
        finally:
            self._metrics.body_bytes -= taken[0]

    async def _body(self, request, taken):
        """Read a body, counting its bytes in `taken` and with those of all others."""
        largest = self._limits.body
        too_large = Refusal("TOO_LARGE", f"The request is larger than {largest} bytes, which is the limit here.")
        if (request.content_length or 0) > largest:
            raise too_large
        chunks = []
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in request.content.iter_any():
                    taken[0] += len(chunk)
                    self._metrics.body_bytes += len(chunk)
                    if taken[0] > largest:
                        raise too_large
                    if self._metrics.body_bytes > self._limits.bodies:
                        raise Refusal("UNAVAILABLE", "Too much is being sent at once: try again later.")
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal("TOO_SLOW", f"The request was not sent within {self._limits.seconds:g} seconds.") from None
        except web.RequestPayloadError as error:  # chunks or compression that make no sense
            reason = " ".join(str(error).split())
            raise Refusal("INVALID_ARGUMENT", f"The body cannot be read: {reason[:300]}") from None
        return b"".join(chunks)

    async def _outputs(self, number, label, parsed, body):
        with contextlib.ExitStack() as held:
            servable = held.enter_context(self._versions.use(number, label))
            # In a thread, as a large body takes a while: others are answered meanwhile.
            name, inputs, dump = await asyncio.to_thread(parsed, servable, body)
            future = self._batcher.submit(servable, name, inputs)
            del body, inputs
            # The version stays until the computation ends, also where nobody waits for it any more.
            loop, held = asyncio.get_running_loop(), held.pop_all()
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(held.close))
        try:
            async with asyncio.timeout(self._limits.seconds):
                outputs = await asyncio.wrap_future(future)
        except TimeoutError:
            raise Refusal("DEADLINE_EXCEEDED", f"No answer within {self._limits.seconds:g} seconds.") from None
        except Exception as error:
            raise _refusal_of(error) from None
        return await asyncio.to_thread(dump, outputs)

    def _parsed(self, servable, body):
        """Return the signature's name, its inputs, and what writes its outputs."""
        name, arrays = tensors.parse(body, self._check_rows)
        inputs, by_row = arrays(_signature(servable, name).inputs)
        return name, inputs, functools.partial(tensors.dump, by_row=by_row)

    def _parsed_examples(self, servable, body):
        name, serialized = examples.parse(body, self._check_rows)
        signature, method = _signature(servable, name), servable.metadata[name]["method_name"]
        if method != _CLASSIFY or len(signature.inputs) != 1:
            raise Refusal(
                "INVALID_ARGUMENT", f"Expected classification signature method_name to be {_CLASSIFY}. Was: {method}"
            )
        return name, dict.fromkeys(signature.inputs, serialized), examples.dump

    def _check_rows(self, rows):
        if rows > self._limits.instances:
            raise Refusal(
                "INVALID_ARGUMENT", f"{rows} instances are more than {self._limits.instances}, which is the limit here."
            )

    def _check_name(self, request):
        if request.match_info["name"] != self._versions.name:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({request.match_info['name']})")


def _signature(servable, name):
    if name not in servable.signatures:
        raise Refusal("INVALID_ARGUMENT", f'Serving signature name: "{name[:100]}" not found in signature def')
    return servable.signatures[name]


def _refusal_of(error):
    """Return what the client reads of an error of TensorFlow's: the sentence, not the stack before and the node after."""
    code = "INVALID_ARGUMENT" if type(error).__name__ == "InvalidArgumentError" else "INTERNAL"
    sentences = (getattr(error, "message", None) or str(error)).split("[[")[0].split("\n")
    return Refusal(
        code, next((line.strip()[:300] for line in reversed(sentences) if line.strip()), type(error).__name__)
    )


def _chosen(request):
    """Return the version's number and label that a path names, or None."""
    number = request.match_info.get("version")
    if number is not None and len(number) > 19:
        raise Refusal("INVALID_ARGUMENT", f"Failed to convert version: {number[:40]} to numeric.")
    return number and int(number), request.match_info.get("label")


def _json(value, status=200):
    return web.json_response(value, status=status, headers={"X-Content-Type-Options": "nosniff"})


async def _send(request, response, seconds):
    """Send a response; who does not take it in time loses the connection."""
    try:
        async with asyncio.timeout(seconds):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:  # the client has gone; aiohttp finds that out by itself
        pass


@web.middleware
async def _errors_as_json(request, handler):
    """Answer each error as TF Serving does: `{"error": "..."}`."""
    try:
        return await handler(request)
    except Refusal as refusal:
        response = _json({"error": str(refusal)}, refusal.status)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        # TF Serving calls whatever it does not understand below /v1/ an invalid argument.
        status = STATUS["INVALID_ARGUMENT"] if request.path.startswith("/v1/") else error.status
        response = _json({"error": f"Malformed request: {request.method} {request.path[:200]}"}, status)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:  # a defect: its traceback goes to the log, not to the client
        request.app.logger.exception("A request failed.", exc_info=error)
        response = _json({"error": "Internal error."}, STATUS["INTERNAL"])
    if not request.content.at_eof():
        response.force_close()  # what is left of the body may end the connection: nothing else is to be sent on it
    return response


def quiet_logger():
    """Return a logger for aiohttp's protocol that says nothing of requests that break off or make no sense."""
    logger = logging.getLogger("aiohttp.server")
    if not logger.filters:
        logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], _CLIENTS_FAULTS)))
    return logger


def _file(name):
    async def send(request):
        return web.FileResponse(_PAGE / name, headers=_HEADERS)

    return send
