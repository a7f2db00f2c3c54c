"""Requests that nobody should send, and what a server should say to each.

Each is a coroutine function of an aiohttp session, the server's URL and the bytes of a good picture; it returns None,
or what was wrong with the answer.
"""

import asyncio
import contextlib
import gzip
import json
import struct
import urllib.parse
import zlib

from bench.asking import body

_PREDICT = "/v1/models/net:predict"
_LARGE = 20_000_000  # bytes; more than the server takes


def _refused(data, status, path=_PREDICT, **headers):
    async def attack(session, url, image):
        content = data(image) if callable(data) else data
        try:
            async with session.post(url + path, data=content, headers=headers) as response:
                answer = json.loads(await response.read())
        except (ConnectionError, OSError) as error:
            # Who is told that it is too much may see the connection end before it has read that.
            return None if status == 413 else f"{type(error).__name__}: {error}"
        return None if response.status == status and answer.get("error") else f"{response.status} {str(answer)[:200]}"

    return attack


def _answered(data, valid):
    async def attack(session, url, image):
        async with session.post(url + _PREDICT, data=body([data, image])) as response:
            answer = await response.json()
        found = [row["valid"] for row in answer.get("predictions", [])]
        return None if found == [valid, True] else f"{response.status} {str(answer)[:200]}"

    return attack


def _raw(content, wait):
    """Send bytes over a connection of its own, wait, and hang up without a look at the answer."""

    async def attack(session, url, image):
        address = urllib.parse.urlsplit(url)
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                writer.write(content(image))
                await writer.drain()
                await asyncio.sleep(wait)
            finally:
                writer.transport.abort()

    return attack


def _head(length):
    return f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def _flat_png(side):
    """Return a PNG of one colour: some kilobytes that unpack to `3 * side ** 2` bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * side * (3 * side + 1), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


WAYS = {
    "no JSON": _refused(b"{'instances': [", 400),
    "no UTF-8": _refused(b"\xff\xfe\xfa" * 100, 400),
    "nested deeply": _refused(b'{"instances": ' + b"[" * 100_000, 400),
    "numbers for bytes": _refused(b'{"instances": [1, 2.5, true, null]}', 400),
    "a number of 5000 digits": _refused(b'{"instances": [' + b"9" * 5000 + b"]}", 400),
    "another signature": _refused(b'{"signature_name": "x", "instances": ["a"]}', 400),
    "no instances": _refused(b'{"instances": []}', 400),
    "1000 instances": _refused(json.dumps({"instances": ["a"] * 1000}).encode(), 400),
    "no base64": _refused(b'{"instances": [{"b64": "****"}]}', 400),
    "too large": _refused(lambda image: b"x" * _LARGE, 413),
    "a gzip bomb": _refused(gzip.compress(b" " * 200_000_000), 413, **{"Content-Encoding": "gzip"}),
    "no gzip": _refused(b"plain", 400, **{"Content-Encoding": "gzip"}),
    "another model": _refused(b"{}", 404, "/v1/models/other:predict"),
    "a version of long ago": _refused(body([b""]), 404, "/v1/models/net/versions/999:predict"),
    "a path out": _refused(b"", 400, "/v1/models/..%2f..%2fetc%2fpasswd:predict:predict"),
    "text for a picture": _answered(b"<html>no picture</html>", False),
    "half a picture": _answered(_flat_png(500)[:600], False),
    "a picture that unpacks to 48 MB": _answered(_flat_png(4000), True),
    "hung up within the body": _raw(lambda image: _head(100_000) + b"x" * 5000, 0.05),
    "hung up while it computes": _raw(lambda image: _head(len(body([image]))) + body([image]), 0),
    "hung up at once": _raw(lambda image: b"", 0),
    "no HTTP": _raw(lambda image: bytes(range(256)) * 40, 0.05),
    "half the headers": _raw(lambda image: b"POST / HTTP/1.1\r\nHost", 40),
    "half the body": _raw(lambda image: _head(100_000) + b"{", 40),
}
SLOW = ("half the headers", "half the body")
