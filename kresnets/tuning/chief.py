"""A search over many machines: Keras Tuner's own chief and workers, with what loses trials or waits for ever mended.

The numbers are issues of https://github.com/keras-team/keras-tuner; the oracle's half lies in `kresnets.tuning.oracle`.

- A worker that dies keeps its trial, and the chief waits for it for ever: here it gives signs of life (`heartbeat`).
- A worker whose chief left, or is started again, fails or hangs (#915, #645): here it goes on asking, a lost answer is
  asked for again, and the chief writes into the folder when the search is through.
- A chief that starts late (#990): workers wait up to an hour, as Keras Tuner's do since 1.4.7.
- Two chiefs at one port share the workers' calls between them, silently: here the second one is told.
- Workers that get nothing to do ask again without a pause: here they pause.

The chief and its workers share the project's folder, as Keras Tuner demands. Why a trial failed is not part of Keras
Tuner's messages: a worker writes it to `trial_<id>/record.json` under "reason" before it ends the trial.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from concurrent import futures

import grpc
from keras_tuner.engine.trial import Trial, TrialStatus

from kresnets._util.files import read_json
from kresnets.tuning import keras_tuner_hooks as hooks
from kresnets.tuning.oracle_storage import KEY, WORKER_MARK, state_path

_log = logging.getLogger(__name__)
_ANSWER = 10.0  # seconds for one answer; a Gaussian process may take some, and a second question waits behind it
# An answer to be had later, from this chief or the next: asking again is safe, since no call counts twice.
_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class SearchOver(RuntimeError):
    """The chief has left since the search is through."""


def address():
    """Return "ip:port" of the chief, as Keras Tuner's variables give it."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def serve(oracle, pause=0.5, linger=1.0):
    """Give trials of a sound oracle, which is saved, to workers until the search is over, in place of Keras Tuner's
    `start_server`: look at the workers every `pause` seconds, and leave calls `linger` seconds at the end.

    Raises:
        OSError: the port is taken.
    """
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    hooks.wire().add_OracleServicer_to_server(hooks.OracleServicer(oracle), server)
    try:
        bound = server.add_insecure_port(address())
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(
            f"The chief cannot listen at {address()}: another one does, or the address is not this machine's."
        )
    server.start()
    try:
        while not oracle.is_over():
            oracle.forget_silent()
            oracle.call_hook()
            time.sleep(pause)
        oracle.finish()
        oracle.call_hook()
    finally:
        server.stop(linger).wait()


class Worker(hooks.OracleClient):
    """Keras Tuner's client of the chief, for a chief that may be away for a while, and a search that ends.

    Args:
        oracle: the oracle that the tuner was made with, sound; of it the folder and the objective are used.
        first: seconds to wait for a chief that was never there yet (#990).
        again: seconds to wait for one that was.
        idle: seconds to pause when there is nothing to do at the moment.

    Raises:
        ConnectionError: the chief did not come, or did not come back, in that time.
    """

    def __init__(self, oracle, first=3600.0, again=600.0, idle=1.0):
        super().__init__(oracle)
        self._made_with = oracle
        # Else a chief that is started again is found after two minutes only.
        channel = grpc.insecure_channel(address(), options=[("grpc.max_reconnect_backoff_ms", 1000)])
        self._plain = hooks.wire().OracleStub(channel)
        self.stub = _Patient(self._plain, oracle, first, again)
        self._idle = idle
        # One a process: a worker that died and was started again under its old name is another one, so that the death
        # counts, and is not given the trial that killed it again and again.
        self.name = f"{self.tuner_id}{WORKER_MARK}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"

    def create_trial(self, tuner_id):
        try:
            trial = super().create_trial(self.name)
        except SearchOver:
            return Trial(self._made_with.get_space(), trial_id="", status=TrialStatus.STOPPED)
        if trial.status == TrialStatus.IDLE:
            time.sleep(self._idle)
        return trial

    def end_trial(self, trial):
        # Where the search is over, another worker has ended it already.
        with contextlib.suppress(SearchOver):
            super().end_trial(trial)

    def beat(self, trial_id):
        """Give one sign of life, whether or not the chief is there."""
        with contextlib.suppress(grpc.RpcError):
            self._plain.GetTrial(hooks.messages().GetTrialRequest(trial_id=trial_id), timeout=5)


class _Patient:
    """Keras Tuner's stub, each call of which is repeated until the chief answers, or the search is over."""

    def __init__(self, stub, oracle, first, again):
        self._stub, self._made_with, self._first, self._again = stub, oracle, first, again
        self._met = False

    def __getattr__(self, name):
        call = getattr(self._stub, name)

        def patient(request, wait_for_ready=True, timeout=None):  # Keras Tuner's arguments, in place of which we wait
            began, warned = time.monotonic(), False
            while True:
                try:
                    answer = call(request, timeout=_ANSWER)
                    self._met = True
                    return answer
                except grpc.RpcError as error:
                    if error.code() not in _LATER:
                        raise RuntimeError(f"The chief at {address()} failed: {error.details()}.") from error
                self._check(time.monotonic() - began)
                if not warned:
                    _log.warning("No answer from the chief at %s: waiting for it.", address())
                warned = True
                time.sleep(0.5)

        return patient

    def _check(self, waited):
        # A search that is gone on with says "finished" until its chief has begun: a worker new to it waits a little.
        if (self._met or waited > 60) and (read_json(state_path(self._made_with)) or {}).get(KEY, {}).get("finished"):
            raise SearchOver(f"The search in {hooks.folder(self._made_with)} is over.")
        if waited > (self._again if self._met else self._first):
            raise ConnectionError(
                f"No chief answered at {address()} for {waited:.0f} s: start it (the same command goes on where it "
                "was), then this worker."
            )


@contextlib.contextmanager
def heartbeat(oracle, trial_id, every=5.0):
    """Give the chief signs of life, while a trial runs; do nothing where `oracle` is no `Worker`."""
    leave, beat = threading.Event(), getattr(oracle, "beat", None)

    def signs():
        while not leave.wait(every):
            beat(trial_id)

    thread = threading.Thread(target=signs, name=f"heartbeat of trial {trial_id}", daemon=True)
    if beat is not None:
        thread.start()
    try:
        yield
    finally:
        leave.set()
        if beat is not None:
            thread.join()
