"""One training on many machines: `--coordinator host:port --processes n --process i`, started on each.

Where one process is lost, JAX aborts the others with a page of C++, or leaves them waiting. So each process is two: one
that only watches, over a socket of its own, and its child, which trains. When another machine is lost, the watcher ends
its child and says so in one sentence.
"""

import atexit
import contextlib
import dataclasses
import importlib.util
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import kresnets_command

WAIT = 300  # seconds for all processes to come
PING = 5  # seconds between signs of life
SILENCE = 60  # seconds without one, after which a machine counts as lost
GRACE = 5  # seconds in which a failed step may turn out to be another process's fault
# In the environment: descriptors for output, errors and sentences, and one that lives as the watcher.
_CHILD = "KRESNETS_WATCHED"
_THEIR_OWN = ("process", "coordinator", "data", "out")  # options that may differ from one machine to another


def check(options):
    """Raise a ValueError unless the options of many machines fit each other and the backend."""
    given = {f"--{name}": getattr(options, name) for name in ("coordinator", "processes", "process")}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return
    if missing:
        raise ValueError(f"--coordinator, --processes and --process go together: {' and '.join(missing)} is missing.")
    host, colon, port = options.coordinator.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65535:
        raise ValueError(
            "--coordinator must be host:port with a port from 1 to 65534, such as 10.0.0.1:1234, not "
            f"{options.coordinator!r}."
        )
    if options.processes < 2:
        raise ValueError("--processes must be at least 2: leave the three options out to train in one process.")
    if options.process >= options.processes:
        raise ValueError(
            f"--process {options.process} must be below --processes {options.processes}: they count from 0."
        )
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "jax":
        raise ValueError(f"Many machines train with the JAX backend: set KERAS_BACKEND=jax, not {backend}.")
    if importlib.util.find_spec("jax") is None:
        raise ValueError("JAX is not installed: pip install 'kresnets[jax]'.")


def watched():
    """Whether this is a child that a watcher started."""
    return _CHILD in os.environ


@dataclasses.dataclass(frozen=True)
class Machines:
    """What a process is among the others.

    Args:
        first: whether it is the one that writes and reports.
        agreed: function of a function; returns, everywhere, what that returns on the first one.
    """

    first: bool
    agreed: Callable


@contextlib.contextmanager
def joined(options):
    """Join the other processes, if any, and yield `Machines`."""
    if not options.coordinator:
        yield Machines(True, lambda tell: tell())
        return
    from kresnets.devices import agreed, connect

    connect(options.coordinator, options.processes, options.process)
    # After an error nobody waits for the others: they will not come to the end of this.
    atexit.register(_end_at_once)
    if options.process:
        print(f"Process {options.process} of {options.processes} trains along; process 0 writes and reports.")
        sys.stdout = open(os.devnull, "w")
    yield Machines(not options.process, agreed)
    atexit.unregister(_end_at_once)


def _end_at_once():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def speak():
    """Have a child's Python speak where its watcher does; what C++ writes goes to a file that the watcher shows when
    nothing else explains an end. Return a function of an error and a sentence that tells the watcher what ended it."""
    out, err, messages, life = map(int, os.environ[_CHILD].split(","))
    for name, descriptor in (("stdout", out), ("stderr", err)):
        setattr(sys, name, open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1))

    def end_with_the_watcher():
        os.read(life, 1)  # nobody writes: it returns when the watcher is no more
        os._exit(1)

    threading.Thread(target=end_with_the_watcher, daemon=True).start()

    def tell(error, sentence):
        doubtful = type(error).__name__ == "JaxRuntimeError"  # a step fails where another process is lost, too
        os.write(messages, json.dumps({"sentence": sentence, "doubtful": doubtful}).encode())

    return tell


def watch(options, verb, argv):
    """Train in a child (`kresnets VERB`), and end it when another process is lost; return the exit code."""
    with contextlib.ExitStack() as stack:
        peers = _meet(options, stack)
        for peer in peers.values():
            stack.callback(peer.socket.close)
        child = stack.enter_context(_Child(verb, argv))
        return _Watch(options, peers, child, f"kresnets {verb}").run()


class _Peer:
    """The connection to another process's watcher, which sends lines."""

    def __init__(self, connection):
        self.socket, self.done, self.heard, self._begun = connection, False, time.monotonic(), b""

    def send(self, line):
        with contextlib.suppress(OSError):  # lost: reading will say so
            self.socket.sendall(line.encode() + b"\n")

    def lines(self):
        """Return the lines that have come, or None at the end of the connection."""
        try:
            received = self.socket.recv(65536)
        except OSError:
            received = b""
        if not received:
            return None
        self.heard = time.monotonic()
        *lines, self._begun = (self._begun + received).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def has_ended(self):
        """Whether the other side has closed the connection, as the system does for a process that is no more."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def line(self, seconds):
        """Wait for one line; return None where none comes."""
        self.socket.settimeout(seconds)
        lines = []
        while lines == []:
            lines = self.lines()
        self.socket.settimeout(PING)
        return lines[0] if lines else None


def _meet(options, stack):
    """Return the connected `_Peer`s: process 0 has all others, the others have process 0."""
    host, _, port = options.coordinator.rpartition(":")
    port = int(port) + 1
    settings = {name: value for name, value in vars(options).items() if name not in _THEIR_OWN}
    if options.process:
        return {0: _call(host.strip("[]"), port, options.process, settings)}
    _serve(port - 1, "that of --coordinator,", 1).close()  # where JAX, which dies without a word if it cannot, will be
    server = _serve(port, "the one after that of --coordinator,", options.processes)
    stack.callback(server.close)
    return _gather(server, options.processes, settings)


def _serve(port, which, backlog):
    """Return a socket that listens at a port."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        return socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=backlog
        )
    except OSError as error:
        raise ValueError(f"Port {port}, {which} cannot be used here ({error.strerror}): give another.") from None


def _call(host, port, process, settings):
    end, reason = time.monotonic() + WAIT, "no answer"
    while time.monotonic() < end:
        try:
            peer = _Peer(socket.create_connection((host, port), timeout=PING))
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(0.2)
            continue
        peer.send(json.dumps({"process": process, "options": settings}))
        answer = peer.line(end - time.monotonic() + PING)
        if answer == "go":
            return peer
        if answer is not None:
            raise ValueError(answer)
        reason = "it hung up"
        time.sleep(0.2)
    raise ValueError(
        f"Process 0 was not reached at {host}:{port} within {WAIT} seconds ({reason}): is it running, and may that "
        "port be used?"
    )


def _gather(server, processes, settings):
    peers, end = {}, time.monotonic() + WAIT
    while len(peers) < processes - 1:
        server.settimeout(max(0.01, end - time.monotonic()))
        try:
            connection, _ = server.accept()
        except TimeoutError:
            missing = ", ".join(str(number) for number in range(1, processes) if number not in peers)
            _refuse(peers, f"Process {missing} did not come within {WAIT} seconds: start all of them.")
        peer = _Peer(connection)
        try:
            hello = json.loads(peer.line(PING) or "")
            number, theirs = hello["process"], hello["options"]
        except (ValueError, KeyError, TypeError):
            connection.close()  # somebody else, such as a scan of ports
            continue
        if number in peers and peers[number].has_ended():
            del peers[number]  # it was started again
        differing = sorted(name for name in {*settings, *theirs} if settings.get(name) != theirs.get(name))
        if differing or number in peers:
            peers[-1] = peer
            what = (
                f"another --{differing[0].replace('_', '-')}" if differing else f"the --process {number} of another one"
            )
            _refuse(peers, f"A process came with {what}: give all the same command, but for --process.")
        peers[number] = peer
    for peer in peers.values():
        peer.send("go")
    return peers


def _refuse(peers, sentence):
    for peer in peers.values():
        peer.send(sentence)
    raise ValueError(sentence)


class _Child:
    """The process that trains; a context that it does not outlive."""

    def __init__(self, verb, argv):
        self._command, self._ending = kresnets_command.command(verb, *argv), ""
        self.sentence, self.doubtful = None, False

    def __enter__(self):
        self._life, self._sink = os.pipe(), tempfile.TemporaryFile()
        self._reading, telling = os.pipe()
        os.set_blocking(self._reading, False)
        sys.stdout.flush()
        handed = (os.dup(1), os.dup(2), telling, self._life[0])
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._sink, stderr=self._sink, pass_fds=handed,
            env=os.environ | {_CHILD: ",".join(map(str, handed))},
        )  # fmt: skip
        for descriptor in handed:
            os.close(descriptor)
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        for descriptor in (self._reading, self._life[1]):
            os.close(descriptor)

    def code(self):
        """Return the exit code, or None while it runs; know by then what it told."""
        code = self._process.poll()
        if code is not None and self.sentence is None:
            with contextlib.suppress(BlockingIOError):
                self._ending = os.read(self._reading, 1 << 20).decode()
            ending = json.loads(self._ending) if self._ending else {"sentence": "", "doubtful": code == -6}  # aborted
            self.sentence, self.doubtful = ending["sentence"], ending["doubtful"]
        return code

    def last_words(self):
        """Return the end of what its C++ wrote."""
        self._sink.seek(max(0, self._sink.seek(0, os.SEEK_END) - 2000))
        return self._sink.read().decode(errors="replace")


class _Watch:
    """Wait until the child is done, or somebody is lost."""

    def __init__(self, options, peers, child, name):
        self._me, self._count, self._peers, self._child = options.process, options.processes, peers, child
        self._name = name

    def run(self):
        pinged, ended = time.monotonic(), None
        with selectors.DefaultSelector() as selector:
            for number, peer in self._peers.items():
                selector.register(peer.socket, selectors.EVENT_READ, number)
            while True:
                ready = [key.data for key, _ in selector.select(0.2)]
                lost = self._lost(ready, selector)
                if lost is not None:
                    return self._end(lost)
                now, code = time.monotonic(), self._child.code()
                if now - pinged > PING:
                    pinged = now
                    self._say(".")
                if code == 0:
                    self._say("done")
                    return 0
                if code is not None:
                    ended = ended or now
                    # Twice as long at process 0, which must hear first whose fault it is.
                    if not self._child.doubtful or now - ended > GRACE * (1 if self._me else 2):
                        return self._fail(code)

    def _lost(self, ready, selector):
        """Return the number of a process that is lost, or None."""
        for number in ready:
            peer = self._peers[number]
            lines = peer.lines()
            if lines is None:
                selector.unregister(peer.socket)
                if not peer.done:
                    return number
            for line in lines or ():
                peer.done |= line == "done"
                if line.startswith("lost "):
                    return int(line.split()[1])
        silent = [n for n, peer in self._peers.items() if not peer.done and time.monotonic() - peer.heard > SILENCE]
        return silent[0] if silent else None

    def _say(self, line):
        for peer in self._peers.values():
            peer.send(line)

    def _end(self, lost):
        self._say(f"lost {lost}")
        print(
            f"{self._name}: process {lost} of {self._count} has ended, its own output may say why: give all "
            f"{self._count} the same commands again, and they go on after the last whole epoch.",
            file=sys.stderr,
        )
        return os.EX_TEMPFAIL

    def _fail(self, code):
        self._say(f"lost {self._me}")
        if self._child.sentence:
            print(f"{self._name}: {self._child.sentence}", file=sys.stderr)
            return 2
        if code < 0:
            print(
                f"{self._child.last_words()}\n{self._name}: the training was ended by signal {-code}.", file=sys.stderr
            )
        return code if code > 0 else 128 - code
