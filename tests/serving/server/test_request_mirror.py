"""The component request-log with a real nginx: mirrors sampled predictions to a sink without delaying requests."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from proxy import SERVING, needs_nginx, proxy
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2
from toy_models import Channel, predict_request, push, serving

pytestmark = needs_nginx

_COMPONENT = SERVING / "components" / "request-log"
_FILES = [_COMPONENT / "http-request-log.conf", _COMPONENT / "grpc-request-log.conf"]
_ALL = {"10% 1;": "100% 1;"}
# For tests that count copies, on a machine that may be busy.
_PATIENT = {
    "proxy_connect_timeout 100ms;": "proxy_connect_timeout 60s;",
    "proxy_send_timeout 1s;": "proxy_send_timeout 60s;",
    "proxy_read_timeout 1s;": "proxy_read_timeout 60s;",
    "max_conns=16": "max_conns=100",
}
_LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_X = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture(scope="module")
def model(toys, tmp_path_factory):
    """A server, by its socket."""
    folder = tmp_path_factory.mktemp("mirrored")
    push(toys, folder, 1)
    path = folder / "grpc.sock"
    with serving(model_base_path=folder, grpc_socket_path=path):
        yield path


@contextlib.contextmanager
def _mirroring(folder, model, sink_port, changes=None):
    """Runs the proxy with the component, and yields a connection to it."""
    replace = {"127.0.0.1:8504": f"127.0.0.1:{sink_port}", **(changes or {})}
    with proxy(folder / "nginx", model, 9, _FILES, replace) as front:
        connection = Channel(front.port, options=_LARGE)
        with connection.channel:
            yield connection, front


@contextlib.contextmanager
def _sink(folder):
    """Runs a sink that writes into a folder, and yields its port."""
    words = [sys.executable, "-m", "serving.request_sink", "--directory", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.terminate()
        assert process.wait(30) == 0


def _finish(front):
    """Stops the proxy when all copies have arrived."""
    front.quit()
    assert front.process.wait(60) == 0


def _logged(folder):
    files = sorted(map(str, folder.glob("requests-*")))
    records = tf.data.TFRecordDataset(files).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]


def test_mirrored_predictions_are_logged_as_they_were_sent(model, tmp_path):
    requests = [
        predict_request({"x": np.full((1, 2), 3, np.float32)}),
        predict_request({"word": [bytes(20 << 20)]}, signature="greeting"),  # larger than the buffer in memory
    ]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "toy"

    with _sink(tmp_path / "log") as port, _mirroring(tmp_path, model, port, _ALL | _PATIENT) as (connection, front):
        for request in requests:
            connection.prediction.Predict(request, timeout=60)
        connection.prediction.Predict(requests[0], timeout=60, compression=grpc.Compression.Gzip)
        connection.models.GetModelStatus(status, timeout=20)
        _finish(front)

    assert sorted(map(str, _logged(tmp_path / "log"))) == sorted(map(str, [*requests, requests[0]]))


def test_a_sample_is_logged(model, tmp_path):
    count = 400
    with (
        _sink(tmp_path / "log") as port,
        _mirroring(tmp_path, model, port, {"10% 1;": "50% 1;"} | _PATIENT) as (connection, front),
    ):
        for _ in range(count):
            connection.predict(_X)
        _finish(front)

    # Ten standard deviations around the mean.
    assert abs(len(_logged(tmp_path / "log")) - count / 2) < 10 * (count / 4) ** 0.5 < count / 2


def test_without_a_sink_requests_are_answered(model, tmp_path):
    with _mirroring(tmp_path, model, 9, _ALL) as (connection, front):
        answers = [connection.predict(_X) for _ in range(20)]

        assert len(answers) == 20
        assert "127.0.0.1:9/" in front.log.read_text()


def test_a_sink_that_refuses_fails_no_request(model, tmp_path):
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            # nginx closes the connection of a copy when the request that it copies has ended.
            with contextlib.suppress(ConnectionError):
                self.send_error(500)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with _mirroring(tmp_path, model, server.server_port, _ALL) as (connection, _):
            assert all(connection.predict(_X).model_spec.version.value == 1 for _ in range(20))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_hanging_sink_delays_no_request(model, tmp_path):
    # It accepts connections and never answers, so a copy lasts for ten minutes. That is more copies than a connection
    # may have requests in progress.
    longer = {
        "proxy_read_timeout 1s;": "proxy_read_timeout 600s;",
        "proxy_send_timeout 1s;": "proxy_send_timeout 600s;",
    }
    with (
        socket.create_server(("127.0.0.1", 0), backlog=200) as silent,
        _mirroring(tmp_path, model, silent.getsockname()[1], _ALL | longer) as (connection, _),
    ):
        answers = [connection.predict(_X, timeout=60) for _ in range(300)]
        large = connection.predict({"word": [bytes(1 << 20)]}, signature="greeting", timeout=60)

    assert len(answers) == 300
    assert large.model_spec.version.value == 1
