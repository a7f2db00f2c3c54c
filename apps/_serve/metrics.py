"""What Prometheus reads: the names of TF Serving where it has the same figure, so that a dashboard shows both."""

import prometheus_client
from prometheus_client import core

# In microseconds, from 10 up by 1.8, as TF Serving's.
_BUCKETS = [10 * 1.8**power for power in range(33)]


class Metrics:
    """Counts of one server.

    Args:
        name: of the model.
        versions: called for the numbers of the versions that answer.
        waiting: called for the rows in the queue.
    """

    def __init__(self, name, versions, waiting):
        self._name, self._versions, self._waiting = name, versions, waiting
        self.body_bytes = 0  # of all requests that are here
        self._requests = {}  # status -> count
        self._registry = prometheus_client.CollectorRegistry()
        histogram = {"registry": self._registry, "buckets": _BUCKETS}
        self._request = prometheus_client.Histogram(
            ":tensorflow:serving:request_latency", "Microseconds from the whole request to its answer.",
            ["model_name", "API", "entrypoint"], **histogram,
        )  # fmt: skip
        self._runtime = prometheus_client.Histogram(
            ":tensorflow:serving:runtime_latency", "Microseconds of a batch in TensorFlow.",
            ["model_name", "API", "runtime"], **histogram,
        ).labels(name, "predict", "TF1")  # fmt: skip
        self._batch = prometheus_client.Histogram(
            "serve_batch_rows", "Rows of a batch.", registry=self._registry,
            buckets=[1 << power for power in range(9)],
        )  # fmt: skip
        prometheus_client.ProcessCollector(registry=self._registry)  # memory, processor time, open files
        self._registry.register(self)

    def requested(self, api, code, seconds):
        """Count a request of an API (`predict` or `classify`), by its end (`OK` or a code of `refusal.STATUS`)."""
        self._requests[code] = self._requests.get(code, 0) + 1
        if code == "OK":
            self._request.labels(self._name, api, "REST").observe(seconds * 1e6)

    def computed(self, rows, seconds):
        """Count a batch."""
        self._batch.observe(rows)
        self._runtime.observe(seconds * 1e6)

    def collect(self):
        """Yield what is only asked for when it is read; the registry calls this."""
        # No Counter, which would append `_total`: TF Serving's has this name.
        requests = core.GaugeMetricFamily(
            ":tensorflow:serving:request_count", "Requests so far.", labels=["model_name", "status"]
        )
        for code, count in sorted(self._requests.items()):
            requests.add_metric([self._name, code], count)
        yield requests
        yield core.GaugeMetricFamily("serve_queue_rows", "Rows that wait.", self._waiting())
        yield core.GaugeMetricFamily("serve_body_bytes", "Bytes of requests that are here.", self.body_bytes)
        versions = core.GaugeMetricFamily("serve_version", "1 for a version that answers.", labels=["version"])
        for number in self._versions():
            versions.add_metric([str(number)], 1)
        yield versions

    def text(self):
        """Return the exposition (bytes) and its content type."""
        return prometheus_client.generate_latest(self._registry), prometheus_client.CONTENT_TYPE_LATEST
