"""Prometheus metrics under TensorFlow Serving's names.

Each server has its own registry, so several servers in one process keep separate metrics.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator

import grpc
import prometheus_client
from prometheus_client import core as metrics_core
from prometheus_client import registry

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

# Names and buckets: tensorflow_serving/servables/tensorflow/util.cc and batching/batching_util.h.
_PREFIX = ":tensorflow:serving:"
_BATCHING = f"{_PREFIX}batching_session:"
_LATENCY_MICROS = tuple(10 * 1.8**power for power in range(33))
_QUEUING_MICROS = tuple(100 * 1.2**power for power in range(52))
_SIZES = tuple(float(2**power) for power in range(14))
_SUFFIX_OF_COUNTERS = re.compile(rb"^((?:# (?:HELP|TYPE) )?%b[A-Za-z_:]+)_total\b" % _PREFIX.encode(), re.MULTILINE)


class Metrics(registry.Collector):
    """The metrics of a server."""

    def __init__(
        self, versions: Callable[[], Iterable[tuple[str, int, str]]] = tuple, queued: Callable[[], int] = int
    ) -> None:
        """Takes callbacks: `versions` returns (model, version, state) tuples, `queued` the length of the queue."""
        prometheus_client.disable_created_metrics()
        self._versions = versions
        self._known: frozenset[str] = frozenset()
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)
        waiting = prometheus_client.Gauge(
            "segpipe_serving_queued_requests", "Requests waiting for a batch.", registry=self._registry
        )
        waiting.set_function(queued)
        counter = functools.partial(prometheus_client.Counter, registry=self._registry)
        histogram = functools.partial(prometheus_client.Histogram, registry=self._registry)
        self._requests = counter(f"{_PREFIX}request_count", "Requests by status.", ["model_name", "status"])
        self._latency = histogram(
            f"{_PREFIX}request_latency",
            "Microseconds from a request to its response.",
            ["model_name", "API", "entrypoint"],
            buckets=_LATENCY_MICROS,
        )
        self._runs = counter(f"{_BATCHING}wrapped_run_count", "Batches run.")
        self._sizes = [
            histogram(f"{_BATCHING}{name}_batch_size", "Rows of a batch.", buckets=_SIZES)
            for name in ("input", "processed")
        ]
        self._queuing = histogram(
            f"{_BATCHING}queuing_latency", "Microseconds a request waited for its batch.", buckets=_QUEUING_MICROS
        )

    def request(self, model: str, api: str, entrypoint: str, code: grpc.StatusCode, seconds: float) -> None:
        """Records a call and, if it is OK, its latency in seconds.

        `api` is "Predict" over gRPC and "predict" over REST; `entrypoint` is "GRPC" or "REST". Unknown models are
        counted as "unknown", so that callers cannot create label values.
        """
        if model not in self._known:
            self._known = self._known.union(name for name, _, _ in self._versions())
        model = model if model in self._known else "unknown"
        self._requests.labels(model, code.name).inc()
        if code is grpc.StatusCode.OK:
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def batch(self, rows: int, waits: Iterable[float]) -> None:
        """Records a batch and the seconds that each of its requests waited."""
        self._runs.inc()
        for histogram in self._sizes:
            histogram.observe(rows)
        for wait in waits:
            self._queuing.observe(wait * 1e6)

    def page(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        # The client library appends _total to the names of counters; TensorFlow Serving does not.
        return _SUFFIX_OF_COUNTERS.sub(rb"\1", prometheus_client.generate_latest(self._registry))

    def collect(self) -> Iterator[metrics_core.Metric]:
        """Yields the states of the versions, computed at each scrape."""
        gauge = metrics_core.GaugeMetricFamily(
            "segpipe_serving_model_version",
            "1 for each version of a model in its current state.",
            labels=["model_name", "version", "state"],
        )
        for model, version, state in self._versions():
            gauge.add_metric([model, str(version), state], 1)
        yield gauge
