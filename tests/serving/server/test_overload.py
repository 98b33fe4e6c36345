"""More requests than the server can take: the queue is bounded, what is late is not run, probes pass."""

import queue

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from toy_models import ONE, Channel, predict_request, push, run_inside, serving

_X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def held(toys, tmp_path):
    """A server that runs one request at once and lets two wait, and a request that runs until its gate is opened."""
    push(toys, tmp_path, 1)
    with serving(model_base_path=tmp_path, max_concurrent_requests=1, max_queue=2) as server:
        connection = Channel(server.port)
        call = connection.prediction.Predict.future(predict_request(ONE, signature="gate"))
        run_inside(server, "await_entry")
        yield server, connection, call
        if not call.done():
            run_inside(server, "open_gate")


def _fill(connection):
    """Sends one request more than may wait; returns those that wait, and the one refused."""
    ended = queue.SimpleQueue()
    deadlines = (None, 60, None)
    calls = [connection.prediction.Predict.future(predict_request(_X), timeout=seconds) for seconds in deadlines]
    for call in calls:
        call.add_done_callback(ended.put)
    refused = ended.get(timeout=30)
    return [call for call in calls if call is not refused], refused


def test_full_queue_refuses_at_once_and_what_waits_is_answered(held):
    server, connection, running = held

    waiting, refused = _fill(connection)
    code, text = connection.refusal(_X)
    run_inside(server, "open_gate")

    assert refused.code() == code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "The server is at its limit of 3 requests running and waiting; try again later"
    assert running.result(timeout=30).model_spec.version.value == 1
    assert all(call.result(timeout=30).model_spec.version.value == 1 for call in waiting)


def test_health_and_metadata_are_answered_under_full_load(held):
    _, connection, _ = held
    _fill(connection)

    status = health_pb2_grpc.HealthStub(connection.channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status

    assert status == health_pb2.HealthCheckResponse.SERVING


def test_request_whose_deadline_passes_while_it_waits_is_not_run(held):
    server, connection, running = held

    code, _ = connection.refusal(_X, timeout=0.1)
    run_inside(server, "open_gate")

    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert running.result(timeout=30)
    assert connection.predict(_X)  # its place in the queue is free again
