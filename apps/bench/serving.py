"""An exported model: its graph against Keras's own export, and apps/serve.py with it, by clients and batching."""

import asyncio
import pathlib
import tempfile
import time

import numpy as np

from bench import saved_model
from bench.asking import Server, body, classifiers, pictures
from bench.rounds import tell, write


def bench_serving(options):
    """Tell what the exported graph and the server reach; write JSON."""
    rows = saved_model.measured(options) if "graph" in options.parts else []
    if "server" in options.parts:
        rows += _server(options)
    return write(options, rows)


def _server(options):
    """Ask for one picture at a time, again and again, from 1, 4, 16 clients; yield the rows."""
    import kresnets

    images = pictures(32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net"
        [model] = classifiers(options.model, options.size, 1, images)
        kresnets.export_saved_model(model, path)
        for way, arguments in (("batching", []), ("no batching", ["--no-batching"])):
            with Server(path, *arguments) as server:
                for clients in options.clients:
                    asyncio.run(_ask(server.url, clients, images, min(2, options.seconds)))
                    times, took = asyncio.run(_ask(server.url, clients, images, options.seconds))
                    yield tell({"what": way, "clients": clients, "rate": len(times) / took} | percentiles(times))


def percentiles(times):
    """Return p50, p95 and p99 of seconds, in milliseconds."""
    return {f"p{share}_ms": 1000 * float(np.percentile(times, share)) for share in (50, 95, 99)}


async def _ask(url, clients, images, seconds):
    import aiohttp

    bodies, times, end = [body([image]) for image in images], [], time.monotonic() + seconds

    async def client(number):
        while time.monotonic() < end:
            began = time.perf_counter()
            async with session.post(f"{url}/v1/models/net:predict", data=bodies[number % len(bodies)]) as response:
                answer = await response.json()
                if response.status != 200:
                    raise RuntimeError(f"The server refused: {answer}")
            times.append(time.perf_counter() - began)
            number += 1

    async with aiohttp.ClientSession() as session:
        began = time.monotonic()
        await asyncio.gather(*(client(number) for number in range(clients)))
        return times, time.monotonic() - began
