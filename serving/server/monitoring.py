"""Counts and times of requests for Prometheus, named as TensorFlow Serving names them.

Each server has a registry of its own, so several servers in one process do not mix their numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator

import grpc
import prometheus_client
from prometheus_client import core as metrics_core
from prometheus_client import registry

from components.errors import UsageError
from serving.server.text_protos import MonitoringConfig, read_text_proto

DEFAULT_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

# Names and buckets: tensorflow_serving/servables/tensorflow/util.cc and batching/batching_util.h.
_PREFIX = ":tensorflow:serving:"
_BATCHING = f"{_PREFIX}batching_session:"
_LATENCY_MICROS = tuple(10 * 1.8**power for power in range(33))
_QUEUING_MICROS = tuple(100 * 1.2**power for power in range(52))
_SIZES = tuple(float(2**power) for power in range(14))
_SUFFIX_OF_COUNTERS = re.compile(rb"^((?:# (?:HELP|TYPE) )?%b[A-Za-z_:]+)_total\b" % _PREFIX.encode(), re.MULTILINE)


def read_monitoring_path(path: str | None) -> str | None:
    """Returns where a monitoring file has metrics served, None for no metrics. Raises UsageError for a wrong file."""
    if path is None:
        return None
    config = read_text_proto("--monitoring_config_file", path, MonitoringConfig()).prometheus_config
    address = str(config.path or DEFAULT_PATH)
    if config.enable and not re.fullmatch(r"/[^{}]*", address):
        raise UsageError(
            f"--monitoring_config_file {path}: found {address!r} as path of prometheus_config, "
            f"expected one that begins with a slash and has no braces, such as {DEFAULT_PATH}"
        )
    return address if config.enable else None


class Metrics(registry.Collector):
    """The metrics of a server."""

    def __init__(
        self, versions: Callable[[], Iterable[tuple[str, int, str]]] = tuple, queued: Callable[[], int] = int
    ) -> None:
        """Takes functions that return model, version and state of every version, and how many requests wait."""
        prometheus_client.disable_created_metrics()
        self._versions, self._queued = versions, queued
        self._known: frozenset[str] = frozenset()
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)
        counter = functools.partial(prometheus_client.Counter, registry=self._registry)
        histogram = functools.partial(prometheus_client.Histogram, registry=self._registry)
        self._requests = counter(f"{_PREFIX}request_count", "Requests by status.", ["model_name", "status"])
        self._latency = histogram(
            f"{_PREFIX}request_latency",
            "Microseconds from a request to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=_LATENCY_MICROS,
        )
        self._runs = counter(f"{_BATCHING}wrapped_run_count", "Batches that were run.")
        self._sizes = [
            histogram(f"{_BATCHING}{name}_batch_size", "Rows of a batch.", buckets=_SIZES)
            for name in ("input", "processed")
        ]
        self._queuing = histogram(
            f"{_BATCHING}queuing_latency", "Microseconds that a request waited for its batch.", buckets=_QUEUING_MICROS
        )

    def request(self, model: str, api: str, entrypoint: str, code: grpc.StatusCode, seconds: float) -> None:
        """Counts a call that was answered after some seconds; only OK answers enter the latencies.

        `api` is "Predict" over gRPC and "predict" over REST, `entrypoint` "GRPC" or "REST". A model that the server
        does not have is counted as "unknown", so that callers cannot make up label values.
        """
        if model not in self._known:
            self._known = self._known.union(name for name, _, _ in self._versions())
        model = model if model in self._known else "unknown"
        self._requests.labels(model, code.name).inc()
        if code is grpc.StatusCode.OK:
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def batch(self, rows: int, waits: Iterable[float]) -> None:
        """Counts a batch that is about to run, and how many seconds each of its requests waited."""
        self._runs.inc()
        for histogram in self._sizes:
            histogram.observe(rows)
        for wait in waits:
            self._queuing.observe(wait * 1e6)

    def page(self) -> bytes:
        """Returns everything in Prometheus's text format."""
        # The client library ends the names of counters in _total, TensorFlow Serving does not end its own so.
        return _SUFFIX_OF_COUNTERS.sub(rb"\1", prometheus_client.generate_latest(self._registry))

    def collect(self) -> Iterator[metrics_core.Metric]:
        """Yields the gauges, which are computed when Prometheus asks for them."""
        yield metrics_core.GaugeMetricFamily(
            "segpipe_serving_queued_requests", "Requests that wait for a batch.", value=self._queued()
        )
        gauge = metrics_core.GaugeMetricFamily(
            "segpipe_serving_model_version",
            "1 for each version of a model and the state it is in.",
            labels=["model_name", "version", "state"],
        )
        for model, version, state in self._versions():
            gauge.add_metric([model, str(version), state], 1)
        yield gauge
