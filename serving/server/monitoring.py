"""Counts and times of requests for Prometheus, named as TensorFlow Serving names them.

Each server has a registry of its own, so several servers in one process do not mix their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import grpc
import prometheus_client
from prometheus_client import core as metrics_core
from prometheus_client import registry

from components.errors import UsageError
from serving.server.batching import BatchRun
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
_UNKNOWN_MODEL = "unknown"
_ADDRESS = re.compile(r"/[^{}]*")

VersionStates = Callable[[], Iterable[tuple[str, int, str]]]


def read_monitoring_path(path: str | None) -> str | None:
    """Returns where metrics are served according to a monitoring file, or None where they are not.

    Raises:
        UsageError: the file cannot be read, is no `MonitoringConfig`, or its path is no address.
    """
    if path is None:
        return None
    config = read_text_proto("--monitoring_config_file", path, MonitoringConfig()).prometheus_config
    if not config.enable:
        return None
    address = config.path or DEFAULT_PATH
    if not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"--monitoring_config_file {path}: found {address!r} as path of prometheus_config, "
            f"expected one that begins with a slash and has no braces, such as {DEFAULT_PATH}"
        )
    return str(address)


class Metrics:
    """What a server tells Prometheus."""

    def __init__(self, versions: VersionStates = tuple, queued: Callable[[], int] = int) -> None:
        """Starts at zero.

        Args:
            versions: returns model, version and state (such as "AVAILABLE") of every version known.
            queued: returns how many requests wait for a batch.
        """
        prometheus_client.disable_created_metrics()
        self._versions = versions
        self._known: frozenset[str] = frozenset()
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        self._registry.register(_Versions(versions))
        self._requests = prometheus_client.Counter(
            f"{_PREFIX}request_count",
            "The total number of requests.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency = self._histogram(
            f"{_PREFIX}request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            _LATENCY_MICROS,
            ["model_name", "API", "entrypoint"],
        )
        self._runs = prometheus_client.Counter(
            f"{_BATCHING}wrapped_run_count", "Total count of run calls on the wrapped session", registry=self._registry
        )
        self._input_size = self._histogram(
            f"{_BATCHING}input_batch_size", "Tracks the batch size distribution on the inputs.", _SIZES
        )
        self._processed_size = self._histogram(
            f"{_BATCHING}processed_batch_size", "Tracks the batch size distribution on processing.", _SIZES
        )
        self._queuing = self._histogram(
            f"{_BATCHING}queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing",
            _QUEUING_MICROS,
        )
        prometheus_client.Gauge(
            "segpipe_serving_queued_requests", "Requests that wait for a batch.", registry=self._registry
        ).set_function(queued)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()
    ) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def request(self, model: str, api: str, entrypoint: str, code: grpc.StatusCode, seconds: float) -> None:
        """Counts an answered call.

        Args:
            model: the model that was asked for; a name that the server does not have is counted as "unknown",
                so that callers cannot make up label values without end.
            api: "Predict" over gRPC, "predict" over REST.
            entrypoint: "GRPC" or "REST".
            code: the answer's status. Only an OK one enters the latencies.
            seconds: from the request's arrival to its answer.
        """
        model = self._label(model)
        self._requests.labels(model, code.name).inc()
        if code is grpc.StatusCode.OK:
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def batch(self, run: BatchRun) -> None:
        """Counts a batch that is about to run; a `BatchScheduler` calls this."""
        self._runs.inc()
        self._input_size.observe(sum(run.rows))
        self._processed_size.observe(run.size)
        for wait in run.waits:
            self._queuing.observe(wait * 1e6)

    def page(self) -> bytes:
        """Returns everything in Prometheus's text format."""
        # The client library ends the names of counters in _total, TensorFlow Serving does not end its own so.
        return _SUFFIX_OF_COUNTERS.sub(rb"\1", prometheus_client.generate_latest(self._registry))

    def _label(self, model: str) -> str:
        if model not in self._known:
            self._known = self._known.union(name for name, _, _ in self._versions())
        return model if model in self._known else _UNKNOWN_MODEL


class _Versions(registry.Collector):
    """One gauge for each version and the state it is in, asked for when Prometheus asks."""

    def __init__(self, versions: VersionStates) -> None:
        self._versions = versions

    def collect(self) -> Iterator[metrics_core.Metric]:
        gauge = metrics_core.GaugeMetricFamily(
            "segpipe_serving_model_version",
            "1 for each version of a model and the state it is in.",
            labels=["model_name", "version", "state"],
        )
        for model, version, state in self._versions():
            gauge.add_metric([model, str(version), state], 1)
        yield gauge
