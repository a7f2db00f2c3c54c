"""The process that stays: it runs the search in a child, and another one where the first has grown or was killed.

TensorFlow keeps memory of each function that it traced, whatever Keras clears; and a system that runs out of memory
kills the process that trains. Neither is to end a search: all that matters is on disk, and the next child goes on.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

import kresnets_command

CHILD = "KRESNETS_SEARCH_CHILD"
_LATER = "KRESNETS_SEARCH_LATER"  # set for all children but the first
AGAIN = 75  # the child's exit code: more is to be done, in a fresh process
ENDS = (signal.SIGINT, signal.SIGTERM)
MOST_DEATHS = 9  # in a row: three trials, each of them three times
# How a process dies of a lack of memory, and of what a library does to it.
_DEATHS = (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)


def is_child():
    """Whether this process is the one that trains."""
    return CHILD in os.environ


def is_later():
    """Whether this process takes the place of another one that trained."""
    return _LATER in os.environ


def keep(argv, ended):
    """Run children until one ends the search; return its exit code.

    Args:
        argv: arguments of `kresnets`, the verb first.
        ended: function that returns how many trials have ended.
    """
    deaths, before = 0, ended()
    with _handing_on() as start:
        while True:
            child, interrupted = start(kresnets_command.command(*argv))
            code = _end_of(child, interrupted)
            if interrupted or code in [-number for number in ENDS]:
                return 130 if code == AGAIN or code < 0 else code
            if code == AGAIN:
                continue
            if code not in _DEATHS:
                return 128 - code if code < 0 else code
            after = ended()
            deaths, before = (1 if after > before else deaths + 1), after
            if deaths == MOST_DEATHS:
                raise RuntimeError(
                    f"The process that trains was killed {deaths} times in a row without a trial coming to its end: "
                    "out of memory? Take a smaller --batch-size or network; the same command goes on."
                )
            name = signal.Signals(-code).name
            print(f"The process that trains was killed ({name}); another one goes on.", file=sys.stderr, flush=True)


def _end_of(child, interrupted):
    while True:
        try:
            return child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            if interrupted:  # what Python raises within a destructor or a callback of C is lost
                child.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _handing_on():
    """Hand on what ends us to the child: yield a function that starts one, and a list of the signals that came."""
    child, came = None, []

    def hand_on(number, frame):
        came.append(number)
        if child is not None:
            child.send_signal(signal.SIGINT)

    def start(command):
        nonlocal child
        role = {CHILD: str(os.getpid())} | ({} if child is None else {_LATER: "1"})
        child = subprocess.Popen(command, env=os.environ | role, preexec_fn=_die_with_parent)
        if came:
            child.send_signal(signal.SIGINT)
        return child, came

    earlier = {number: signal.signal(number, hand_on) for number in ENDS}
    try:
        yield start
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _die_with_parent():
    os.setpgid(0, 0)  # Ctrl-C comes by us, once
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # until the child says what is to be done at it
    with contextlib.suppress(AttributeError):  # no Linux: the child notices at its next trial
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def is_orphan():
    """Whether the process that stays has gone."""
    return is_child() and os.getppid() != int(os.environ[CHILD])


def resident():
    """Return the bytes of memory that this process holds, 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
