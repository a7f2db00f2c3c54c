"""What Prometheus reads: the names of TF Serving where it has the same figure, so that a dashboard shows both."""

import functools
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest

_BUCKETS = [10 * 1.8**power for power in range(33)]  # in microseconds, as TF Serving's
_NAMES = ":tensorflow:serving:"


class Metrics:
    """Counts of one server, for a model of this name."""

    def __init__(self, name: str):
        self._name, self._registry = name, (registry := CollectorRegistry())
        latency = functools.partial(Histogram, registry=registry, buckets=_BUCKETS)
        # No Counter, which would append `_total`: TF Serving's has this name.
        self._requests = Gauge(_NAMES + "request_count", "Requests.", ["model_name", "status"], registry=registry)
        text, labels = "Microseconds from a request's first byte to its answer.", ["model_name", "API", "entrypoint"]
        self._request = latency(_NAMES + "request_latency", text, labels)
        text, labels = "Microseconds of a batch in TensorFlow.", ["model_name", "API", "runtime"]
        self._runtime = latency(_NAMES + "runtime_latency", text, labels).labels(name, "predict", "TF1")
        sizes = [1 << power for power in range(9)]
        self._batch = Histogram("serve_batch_rows", "Rows of a batch.", registry=registry, buckets=sizes)
        self._queue = Gauge("serve_queue_rows", "Rows that have no answer yet.", registry=registry)
        self._version = Gauge("serve_version", "1 for a version that answers.", ["version"], registry=registry)
        ProcessCollector(registry=registry)  # memory, processor time, open files

    def requested(self, api: str, code: str, seconds: float) -> None:
        """Count a request of an API (`predict` or `classify`), by its end (`OK` or a code of `errors.STATUS`)."""
        self._requests.labels(self._name, code).inc()
        if code == "OK":
            self._request.labels(self._name, api, "REST").observe(seconds * 1e6)

    def computed(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.observe(rows)
        self._runtime.observe(seconds * 1e6)

    def text(self, available: Iterable[int], waiting: int) -> bytes:
        """Return the exposition, given the versions that answer and the rows that wait."""
        self._queue.set(waiting)
        self._version.clear()
        for number in available:
            self._version.labels(number).set(1)
        return generate_latest(self._registry)
