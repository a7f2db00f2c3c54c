"""An exported model: its graph against Keras's own export, and apps/serve.py with it, by clients and batching."""

import asyncio
import pathlib
import tempfile
import time

import numpy as np

from bench import saved_model
from bench.asking import Server, body, classifiers, pictures
from bench.rounds import write


def bench_serving(options):
    """Print what the exported graph and the server reach; write JSON."""
    rows = saved_model.measured(options) if "graph" in options.parts else []
    if "server" in options.parts:
        rows += _server(options)
    return write(options, rows)


def _server(options):
    """Ask for one picture at a time, again and again, from 1, 4, 16 clients; return the rows."""
    import kresnets

    images = pictures(32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net"
        [model] = classifiers(options.model, options.size, 1, images)
        kresnets.export_saved_model(model, path)
        rows = []
        for way, arguments in (("batching", []), ("no batching", ["--no-batching"])):
            with Server(path, *arguments) as server:
                for clients in options.clients:
                    rows.append(_measured(server, way, clients, images, options.seconds))
    return rows


def _measured(server, way, clients, images, seconds):
    asyncio.run(_ask(server.url, clients, images, min(2, seconds)))
    times, took = asyncio.run(_ask(server.url, clients, images, seconds))
    p50, p95, p99 = (1000 * value for value in np.percentile(times, (50, 95, 99)))
    rate = len(times) / took
    print(
        f"{way}, {clients} clients: {rate:.1f} images a second; p50 {p50:.1f} ms, p95 {p95:.1f}, p99 {p99:.1f}",
        flush=True,
    )
    return {"what": way, "clients": clients, "rate": rate, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


async def _ask(url, clients, images, seconds):
    import aiohttp

    bodies, times, end = [body([image]) for image in images], [], time.monotonic() + seconds

    async def client(first):
        number = first
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
