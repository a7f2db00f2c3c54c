"""Serve an exported model, to try it and for small use: TF Serving's REST interface, and a page to drop photographs on.

    python apps/serve.py saved_models/cells

answers on http://127.0.0.1:8501 as `tensorflow_model_server --rest_api_port=8501` would, serves the version with the
highest number, and changes over to a new one as soon as it appears, without a request lost. It needs neither Keras nor
kresnets; for production take TF Serving itself (docs/serving.md).
"""

import argparse
import asyncio
import contextlib
import functools
import os
import pathlib
import re
import signal
import sys
import time
import urllib.parse

import _common

_TRIM = 10  # seconds between


def main(argv=None):
    options = _parser().parse_args(argv)
    name = _checked_name(options)
    labels = dict(options.label)
    if options.versions and not set(labels.values()) <= set(options.versions):
        raise ValueError("--label names a version that --versions leaves out: add it there.")
    try:
        import aiohttp  # noqa: F401
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The server needs {error.name}: pip install 'kresnets[serving]'") from None
    from _serve import connections, memory

    memory.few_arenas()
    connections.raise_limit()
    _common.import_tensorflow()
    return asyncio.run(_serve(name, labels, options))


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    count, add = _common.positive_int, parser.add_argument
    add("path", metavar="saved_models/NAME", type=pathlib.Path, help="folder of the model, parent of its versions")
    add("--name", help="name in the paths (default: the folder's)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1, this machine)")
    add("--port", type=_number(int, 0, 65535), default=8501, help="0: any that is free (default: 8501)")
    add("--poll", type=_number(float, 0.05, 3600), default=1.0, help="seconds between looks for versions (default: 1)")
    add("--newest", type=count, default=1, help="how many versions, from the highest down (default: 1)")
    add("--versions", type=_number(int, 0, 2**63 - 1), nargs="+", default=(), help="just these versions: to roll back")
    add("--label", type=_label, action="append", default=[], metavar="LABEL=VERSION", help="may be given again")
    add("--max-batch", type=_number(int, 1, 1024), default=32, help="rows computed at once, at most (default: 32)")
    add("--wait-ms", type=_number(float, 0, 10000), default=2.0, help="wait for others to join a batch (default: 2)")
    add("--no-batching", action="store_true", help="compute each request by itself")
    add("--max-mb", type=_number(float, 0.01, 1024), default=16.0, help="MB of a request, at most (default: 16)")
    add("--max-instances", type=count, default=256, help="instances in a request, at most (default: 256)")
    add("--max-queue", type=count, default=1024, help="rows that may wait (default: 1024)")
    add("--timeout", type=_number(float, 0.1, 3600), default=30.0, help="seconds to send a request, to wait for its "
        "answer, and to take it (default: 30)")  # fmt: skip
    return parser


def _number(kind, lowest, highest):
    def read(text):
        with contextlib.suppress(ValueError):
            if lowest <= (value := kind(text)) <= highest:
                return value
        raise argparse.ArgumentTypeError(f"must be a number from {lowest} to {highest}, not {text!r}")

    return read


def _label(text):
    found = re.fullmatch(r"([^/:=]+)=(\d{1,18})", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"must be like stable=3, not {text!r}")
    return found[1], int(found[2])


def _checked_name(options):
    """Check the folder, and return the model's name."""
    path = options.path
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: give an exported model such as saved_models/NAME.")
    if (path / "saved_model.pb").exists():
        raise ValueError(f"{path} is one version: give the folder that holds it, {path.resolve().parent}.")
    name = options.name or path.resolve().name
    if not re.fullmatch("[^/:]+", name):
        raise ValueError(f"{name!r} cannot stand in a path of TF Serving's: give another --name, without / and colon.")
    return name


async def _serve(name, labels, options):
    from _serve.batching import Batcher, batch_sizes
    from _serve.metrics import Metrics
    from _serve.servable import Servable
    from _serve.versions import Policy, Versions
    from _serve.web import Limits, Server

    largest = 0 if options.no_batching else options.max_batch
    load = functools.partial(Servable, batch_sizes=batch_sizes(largest) if largest else (1,))
    policy = Policy(options.newest, options.versions, labels)
    versions = Versions(name, options.path, load, policy, _say)
    batcher = Batcher(largest, options.wait_ms / 1000, options.max_queue, lambda *each: metrics.computed(*each))
    metrics = Metrics(name, lambda: versions.available, lambda: batcher.waiting)
    limits = Limits(round(options.max_mb * 1e6), options.max_instances, options.timeout)
    async with listening(Server(versions, batcher, metrics, limits).application(), options) as runner:
        stopped = _signals()
        address = f"http://{_shown(options.host)}:{runner.addresses[0][1]}"
        looking = asyncio.create_task(_look(versions, options, address))
        await stopped.wait()
        _say("Stopping: requests that are here are answered first.")
        loading = versions.loading
        looking.cancel()
    batcher.stop()
    await versions.close()
    if loading:  # nobody needs it any more, and its thread, which cannot be ended, would be waited for
        os._exit(0)


@contextlib.asynccontextmanager
async def listening(app, options):
    """Listen, and in the end wait for the answers that are under way; yields aiohttp's runner."""
    from _serve.connections import Connections
    from _serve.web import quiet_logger
    from aiohttp import web

    connections = Connections(app, _say)
    asyncio.get_running_loop().set_exception_handler(connections)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, keepalive_timeout=options.timeout, lingering_time=2,
        shutdown_timeout=options.timeout, logger=quiet_logger(),
    )  # fmt: skip
    await runner.setup()
    try:
        connections.server = runner.server
        site = web.TCPSite(runner, options.host, options.port, backlog=128)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:  # a host's name can be one that cannot even be asked for
            where, why = f"{options.host}, port {options.port}", getattr(error, "strerror", None) or error
            raise OSError(f"Cannot listen on {where} ({why}): choose another --host or --port.") from None
        yield runner
    finally:
        await runner.cleanup()


async def _look(versions, options, address):
    """Look for versions for ever, and keep no memory that is free."""
    from _serve import memory

    _say("This server is for trying and small use; for production take TF Serving (docs/serving.md).")
    if options.host not in ("127.0.0.1", "localhost", "::1"):
        _say("It can be reached from other machines, by whoever may, without encryption.")
    await _poll(versions, first=True)
    requests = f"{address}/v1/models/{urllib.parse.quote(versions.name)}:predict"
    _say(f"{address} is a page to drop photographs on, {requests} takes requests.")
    trimmed = time.monotonic()
    while True:
        await asyncio.sleep(options.poll)
        if time.monotonic() - trimmed > _TRIM:
            await asyncio.to_thread(memory.trim)
            trimmed = time.monotonic()
        await _poll(versions)


async def _poll(versions, first=False):
    try:
        await versions.poll(first)
    except Exception as error:  # a defect must not end the looking
        _say(f"Looking for versions failed ({type(error).__name__}: {error}).")


def _signals():
    """Return an event that SIGTERM and Ctrl-C set; a second one ends the process at once."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop():
        if stopped.is_set():
            os._exit(1)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopped


def _shown(host):
    return f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host


def _say(sentence):
    """Print a sentence where somebody reads it: a pipe without a reader or a full disk is no reason to stop serving."""
    with contextlib.suppress(OSError, ValueError):
        try:
            print(sentence, flush=True)
        except BrokenPipeError:  # for good: else the end of the process would trip over what is still to be written
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    _common.run(main)
