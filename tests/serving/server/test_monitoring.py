"""Monitoring: the names and values of the metrics, and the file that enables them."""

import grpc
import pytest

from components.errors import UsageError
from serving.client.protocol import METRICS_PATH
from serving.server.configuration import read_monitoring_path
from serving.server.monitoring import Metrics


def _samples(metrics):
    """Returns the samples of a page: {name and labels as written: value}."""
    lines = metrics.page().decode().splitlines()
    parts = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {sample: float(value) for sample, value in parts}


def test_requests_are_counted_by_model_and_status_under_tensorflow_serving_s_names():
    metrics = Metrics(lambda: [("fcn8_total", 7, "AVAILABLE")])
    for code in (grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT):
        metrics.request("fcn8_total", "Predict", "GRPC", code, 0.002)

    samples = _samples(metrics)
    assert samples[':tensorflow:serving:request_count{model_name="fcn8_total",status="OK"}'] == 2
    assert samples[':tensorflow:serving:request_count{model_name="fcn8_total",status="INVALID_ARGUMENT"}'] == 1
    # Latencies are in microseconds, and only those of successful requests.
    labels = '{API="Predict",entrypoint="GRPC",model_name="fcn8_total"}'
    assert samples[f":tensorflow:serving:request_latency_count{labels}"] == 2
    assert samples[f":tensorflow:serving:request_latency_sum{labels}"] == pytest.approx(4000)
    assert "process_cpu_seconds_total" in samples
    assert "# TYPE :tensorflow:serving:request_count counter" in metrics.page().decode().splitlines()


def test_unknown_model_names_create_no_time_series():
    metrics = Metrics(lambda: [("fcn8", 7, "AVAILABLE")])
    for index in range(50):
        metrics.request(f"made-up-{index}", "Predict", "GRPC", grpc.StatusCode.NOT_FOUND, 0.001)

    counts = {name: value for name, value in _samples(metrics).items() if "request_count" in name}
    assert counts == {':tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"}': 50}


def test_versions_are_reported_at_each_scrape():
    states = [("fcn8", 7, "AVAILABLE")]
    metrics = Metrics(lambda: states)

    before = _samples(metrics)
    states[:] = [("fcn8", 7, "END"), ("fcn8", 8, "AVAILABLE")]
    after = _samples(metrics)

    def key(version, state):
        return f'segpipe_serving_model_version{{model_name="fcn8",state="{state}",version="{version}"}}'

    assert before[key("7", "AVAILABLE")] == 1
    assert key("7", "AVAILABLE") not in after
    assert (after[key("7", "END")], after[key("8", "AVAILABLE")]) == (1, 1)


def test_batches_and_the_queue_are_counted():
    metrics = Metrics(queued=lambda: 5)
    metrics.batch(4, [0.001, 0.002])

    samples = _samples(metrics)
    batching = ":tensorflow:serving:batching_session:"
    assert samples[f"{batching}wrapped_run_count"] == 1
    assert samples[f"{batching}input_batch_size_sum"] == 4
    assert samples[f'{batching}processed_batch_size_bucket{{le="4.0"}}'] == 1
    assert samples[f"{batching}queuing_latency_sum"] == pytest.approx(3000)
    assert samples["segpipe_serving_queued_requests"] == 5


def test_servers_have_separate_metrics():
    first, second = Metrics(), Metrics()
    first.request("a", "Predict", "GRPC", grpc.StatusCode.OK, 0.1)

    assert not any("request_count" in name for name in _samples(second))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", METRICS_PATH),
        ('prometheus_config { enable: true, path: "/metrics" }', "/metrics"),
        ('prometheus_config { enable: false, path: "/metrics" }', None),
        ("", None),
    ],
)
def test_a_monitoring_file_sets_the_path_of_metrics(tmp_path, text, path):
    file = tmp_path / "monitoring.txt"
    file.write_text(text)

    assert read_monitoring_path(str(file)) == path
    assert read_monitoring_path(None) is None


@pytest.mark.parametrize("path", ["metrics", "/{metrics:x}"])
def test_an_invalid_path_is_explained(tmp_path, path):
    file = tmp_path / "monitoring.txt"
    file.write_text(f'prometheus_config {{ enable: true, path: "{path}" }}')

    with pytest.raises(UsageError, match=rf"{file}: found '{path}' as path of prometheus_config, expected .* a slash"):
        read_monitoring_path(str(file))


@pytest.mark.parametrize("text", ["prometheus { enable: true }", "prometheus_config { enable: 3 }", "\x00"])
def test_a_wrong_monitoring_file_is_explained(tmp_path, text):
    file = tmp_path / "monitoring.txt"
    file.write_text(text)

    with pytest.raises(UsageError, match=r"--monitoring_config_file .*expected the text form of a MonitoringConfig"):
        read_monitoring_path(str(file))
