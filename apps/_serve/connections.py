"""Open files, of which each connection takes one: as many as may be, and idle connections give way to new ones."""

import contextlib
import errno
import time

from aiohttp import web

_FILES = 1 << 16  # as far as the system allows
_PAUSE = 0.5  # seconds; asyncio accepts again after 1
_TELL_AGAIN = 60  # seconds


def raise_limit():
    """Raise the limit of open files as far as we may."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Connections:
    """asyncio's exception handler for a server: where files run out, the connections that idle longest are closed.

    asyncio itself would write a traceback for each place in the backlog, each second: more work than the requests.

    Args:
        app: the `aiohttp.web.Application`, not yet set up.
        tell: called with a sentence, once a minute.

    Attributes:
        server: the `aiohttp.web.Server`, once there is one.
    """

    def __init__(self, app, tell):
        self.server, self._tell = None, tell
        self._busy, self._closed, self._told = set(), -float("inf"), -float("inf")

        @web.middleware
        async def mark(request, handler):
            protocol = request.protocol
            self._busy.add(protocol)
            try:
                return await handler(request)
            finally:
                self._busy.discard(protocol)

        app.middlewares.insert(0, mark)

    def __call__(self, loop, context):
        if getattr(context.get("exception"), "errno", None) not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
            return
        now = time.monotonic()
        if now - self._closed > _PAUSE and self.server:
            self._closed = now
            idle = [each for each in self.server.connections if each not in self._busy]  # oldest first
            for each in idle[: (len(idle) + 1) // 2]:
                each.force_close()
        if now - self._told > _TELL_AGAIN:
            self._told = now
            self._tell("Too many connections: those that idle are closed. Raise the limit of open files (ulimit -n).")
