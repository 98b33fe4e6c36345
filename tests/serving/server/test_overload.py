"""Overload: the queue is bounded, late requests are not run, and health checks pass."""

import queue
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_metadata_pb2
from toy_models import ONE, Channel, predict_request, push, run_inside, serving

_X = {"x": np.ones((1, 2), np.float32)}
_VISIT = {"by": np.float32(1)}


@pytest.fixture
def held(toys, tmp_path):
    """A server that runs one request at a time and lets two wait, and a request that runs until its gate is opened."""
    push(toys, tmp_path, 1)
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/metrics" }')
    with serving(
        model_base_path=tmp_path,
        max_concurrent_requests=1,
        max_queue=2,
        max_queue_wait_in_ms=60_000,
        rest_api_port=0,
        monitoring_config_file=tmp_path / "monitoring",
    ) as server:
        connection = Channel(server.port)
        call = connection.prediction.Predict.future(predict_request(ONE, signature="gate"))
        run_inside(server, "await_entry")
        yield server, connection, call
        if not call.done():
            run_inside(server, "open_gate")


def _fill(connection, inputs=_X, signature=""):
    """Sends one request more than may wait; returns the waiting requests and the rejected one."""
    ended = queue.SimpleQueue()
    request = predict_request(inputs, signature)
    calls = [connection.prediction.Predict.future(request, timeout=seconds) for seconds in (None, 60, None)]
    for call in calls:
        call.add_done_callback(ended.put)
    refused = ended.get(timeout=30)
    return [call for call in calls if call is not refused], refused


def _visits(connection):
    """Returns how often the model was visited."""
    return connection.predict({"by": np.float32(0)}, signature="visit").outputs["visits"].float_val[0]


def _await_count(server, status, count):
    """Waits until `count` requests have ended with a status."""
    sample = f':tensorflow:serving:request_count{{model_name="toy",status="{status}"}} {float(count)}'
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        if sample in httpx.get(f"http://localhost:{server.rest_port}/metrics", trust_env=False).text.splitlines():
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"the metrics never said {sample}")


def test_full_queue_rejects_immediately_and_waiting_requests_are_answered(held):
    server, connection, running = held

    waiting, refused = _fill(connection)
    code, text = connection.refusal(_X)
    run_inside(server, "open_gate")

    assert refused.code() == code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "The server is at its limit of 3 running and waiting requests; try again later"
    assert running.result(timeout=30).model_spec.version.value == 1
    assert all(call.result(timeout=30).model_spec.version.value == 1 for call in waiting)


@pytest.mark.parametrize("batching", [False, True])
def test_request_that_waits_too_long_is_rejected_and_not_run(toys, tmp_path, batching):
    push(toys, tmp_path, 1)
    (tmp_path / "batching").write_text("num_batch_threads { value: 1 }")
    options = {"enable_batching": True, "batching_parameters_file": tmp_path / "batching"} if batching else {}
    held = predict_request({"by": [np.float32(1)]}, signature="gated_rows")
    with serving(model_base_path=tmp_path, max_concurrent_requests=1, max_queue_wait_in_ms=100, **options) as server:
        connection = Channel(server.port)
        running = connection.prediction.Predict.future(held)
        run_inside(server, "await_entry")

        code, text = connection.refusal({"by": [np.float32(1)]}, signature="gated_rows")

        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text.startswith("The request waited 100 ms for its turn, the limit of --max_queue_wait_in_ms")
        run_inside(server, "open_gate")
        assert list(running.result(timeout=30).outputs["by"].float_val) == [1]
        assert connection.predict(_X).model_spec.version.value == 1


def test_health_and_metadata_are_answered_under_full_load(held):
    _, connection, _ = held
    _fill(connection)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "toy"

    status = health_pb2_grpc.HealthStub(connection.channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
    metadata = connection.prediction.GetModelMetadata(request, timeout=10)

    assert status == health_pb2.HealthCheckResponse.SERVING
    assert metadata.model_spec.version.value == 1


def test_request_whose_deadline_passes_while_it_waits_is_not_run(held):
    server, connection, running = held

    code, _ = connection.refusal(_VISIT, timeout=1, signature="visit")
    _await_count(server, "DEADLINE_EXCEEDED", 1)  # the server's own clock, which the caller does not wait for
    run_inside(server, "open_gate")

    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert running.result(timeout=30)
    assert _visits(connection) == 0
    assert connection.predict(_X)  # its place in the queue is free again


def test_waiting_request_that_was_cancelled_is_not_run(held):
    server, connection, running = held
    waiting, _ = _fill(connection, _VISIT, "visit")

    for call in waiting:
        call.cancel()
    # What follows on the same connection is answered after the cancellations were read.
    health_pb2_grpc.HealthStub(connection.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    run_inside(server, "open_gate")

    assert running.result(timeout=30)
    _await_count(server, "CANCELLED", len(waiting))
    assert _visits(connection) == 0
