"""The manifests' nginx in front of a server: predictions and read-only calls pass, everything else is rejected.

The server is the local one. That TensorFlow Serving listens at a Unix socket in the same way is read from its
model_servers/server.cc (BuildAndStart: no TCP port with --port=0, and `unix:` before --grpc_socket_path).
"""

import base64
import concurrent.futures
import re
import socket

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from proxy import needs_nginx, proxy
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2
from toy_models import ONE, Channel, push, run_inside, serving
from typer.testing import CliRunner

from pipeline.cli.main import app

pytestmark = needs_nginx

_X = {"x": np.ones((1, 2), np.float32)}
_METRICS = "/monitoring/prometheus/metrics"
_LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture
def behind(toys, tmp_path):
    """A server of version 1 on a Unix socket, and the proxy in front of it."""
    models = tmp_path / "models"
    models.mkdir()
    push(toys, models, 1)
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    path = tmp_path / "grpc.sock"
    with (
        serving(
            model_base_path=models,
            grpc_socket_path=path,
            rest_api_port=0,
            monitoring_config_file=monitoring,
            max_message_bytes=256 << 20,
        ) as server,
        proxy(tmp_path / "nginx", path, server.rest_port) as front,
    ):
        yield server, front


@pytest.fixture
def front(behind):
    return behind[1]


@pytest.fixture
def connection(front):
    connection = Channel(front.port, options=_LARGE)
    with connection.channel:
        yield connection


@pytest.fixture
def rest(front):
    with httpx.Client(base_url=f"http://127.0.0.1:{front.rest_port}", timeout=60, trust_env=False) as client:
        yield client


def _call(connection, path, request=b""):
    """Calls a method by its path; returns the error."""
    method = connection.channel.unary_unary(path)
    with pytest.raises(grpc.RpcError) as error:
        method(request, timeout=20)
    return error.value


def test_predictions_and_read_only_calls_pass(connection):
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "toy"
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "toy"

    assert tf.make_ndarray(connection.predict(_X).outputs["y"]).tolist() == [[1.0, 1.0]]
    assert connection.models.GetModelStatus(status, timeout=20).model_version_status[0].version == 1
    assert "signature_def" in connection.prediction.GetModelMetadata(metadata, timeout=20).metadata


def test_a_reload_is_refused_and_changes_nothing(behind, connection):
    server, front = behind
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path="/elsewhere", model_platform="tensorflow")

    with pytest.raises(grpc.RpcError) as error:
        connection.models.HandleReloadConfigRequest(request, timeout=20)

    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "the proxy passes Predict, GetModelMetadata and GetModelStatus alone"
    assert set(server.core.registry.models) == {"toy"}
    assert connection.predict(_X).model_spec.version.value == 1
    assert "HandleReloadConfigRequest" in front.log.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.SessionService/SessionRun",
        "/tensorflow.serving.ModelService/handlereloadconfigrequest",
        "/tensorflow.ProfilerService/Profile",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "//tensorflow.serving.ModelService/HandleReloadConfigRequest",
        "/tensorflow.serving.ModelService/%48andleReloadConfigRequest",
        "/x/../tensorflow.serving.ModelService/HandleReloadConfigRequest",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest?x",
    ],
)
def test_every_other_method_is_refused(connection, path):
    assert _call(connection, path).code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("suffix", ["?x", "/../Predict", "/"])
def test_a_path_that_only_resembles_an_open_one_reaches_no_method(connection, suffix):
    error = _call(connection, f"/tensorflow.serving.PredictionService/Predict{suffix}")

    assert error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)


def test_an_error_of_the_server_keeps_its_code_and_text(connection):
    code, text = connection.refusal(_X, name="nowhere")
    assert code == grpc.StatusCode.NOT_FOUND
    assert "nowhere" in text

    code, text = connection.refusal({"image": [b"no image"]}, signature="images")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert len(text) > 40


def test_messages_of_the_client_s_size_pass_and_larger_ones_are_refused(connection):
    answer = connection.predict({"word": [bytes(60 << 20)]}, signature="greeting", timeout=120)
    assert answer.ByteSize() > 60 << 20
    code, text = connection.refusal({"word": [bytes(90 << 20)]}, 120, signature="greeting")

    assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the proxy passes messages of at most 65 MiB")
    assert connection.predict(_X).model_spec.version.value == 1


def test_a_stopped_server_is_unavailable(tmp_path):
    with proxy(tmp_path / "nginx", tmp_path / "nowhere.sock", 9) as front:
        connection = Channel(front.port)
        with connection.channel:
            assert connection.refusal(_X) == (
                grpc.StatusCode.UNAVAILABLE,
                "TensorFlow Serving does not answer the proxy",
            )


def _is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_request_in_progress_is_answered_before_the_proxy_ends(behind, connection):
    server, front = behind
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connection.predict, ONE, signature="gate", timeout=60)
        run_inside(server, "await_entry")
        front.quit()
        while _is_listening(front.rest_port):
            pass
        assert front.process.poll() is None
        run_inside(server, "open_gate")

        assert tf.make_ndarray(waiting.result(60).outputs["number"]) == 1
    assert front.process.wait(30) == 0


def test_old_connections_are_replaced_without_failed_requests(tmp_path, behind):
    server, _ = behind
    # gRPC retries a request that arrives while its connection closes, but only once, so this must not be much shorter.
    changes = {
        "keepalive_time 60s;": "keepalive_time 300ms;",
        "access_log off;": "log_format numbers 'connection $connection'; access_log /dev/stdout numbers;",
    }
    with proxy(tmp_path / "young", tmp_path / "grpc.sock", server.rest_port, replace=changes) as front:
        connection = Channel(front.port)
        with connection.channel, concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(100):
                list(pool.map(lambda _: connection.predict(_X), range(50)))
                if len(connections := set(re.findall(r"connection \d+", front.log.read_text()))) > 2:
                    break

    assert len(connections) > 2


@pytest.mark.parametrize("path", ["", "/metadata", "/versions/1", "/versions/1/metadata"])
def test_rest_status_and_metadata_pass(rest, path):
    assert rest.get(f"/v1/models/toy{path}").status_code == 200


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_rest_predictions_pass_with_their_errors(rest, path):
    assert rest.post(f"/v1/models/toy{path}:predict", json={"instances": [[1.0, 2.0]]}).json() == {
        "predictions": [{"y": [1.0, 2.0], "sum": 3.0}]
    }
    refused = rest.post(f"/v1/models/toy{path}:predict", json={"instances": "x"})
    assert refused.status_code == 400
    assert "error" in refused.json()


def test_a_large_rest_body_passes(rest):
    image = {"b64": base64.b64encode(bytes(20 << 20)).decode()}

    refused = rest.post("/v1/models/toy:predict", json={"signature_name": "images", "instances": [image]})

    assert refused.status_code == 400  # from the server, because the body contains no image
    assert "proxy" not in refused.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", _METRICS),
        ("GET", "/v1/../monitoring/prometheus/metrics"),
        ("POST", "/v1/models/toy"),
        ("DELETE", "/v1/models/toy"),
        ("GET", "/v1/models/toy:predict"),
        ("POST", "/v1/models/toy:classify"),
        ("POST", "/v1/models/toy:regress"),
    ],
)
def test_every_other_rest_call_is_refused(rest, method, path):
    refused = rest.request(method, path)

    assert refused.status_code == 403
    assert refused.json() == {"error": "The proxy passes GET of models and POST of :predict alone"}


def test_metrics_have_a_port_of_their_own(front, connection):
    connection.predict(_X)
    with httpx.Client(base_url=f"http://127.0.0.1:{front.metrics_port}", trust_env=False) as client:
        assert ":tensorflow:serving:request_count" in client.get(_METRICS).text
        assert client.get("/healthz").status_code == 200
        assert client.post(_METRICS).status_code == 403
        assert client.get("/v1/models/toy").status_code == 404


def test_a_release_needs_read_only_calls_alone(toys, tmp_path):
    models, path = tmp_path / "models", tmp_path / "grpc.sock"
    models.mkdir()
    push(toys, models, 1)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "toy" base_path: "{models}" model_platform: "tensorflow" }} }}'
    )
    with (
        serving(model_config_file=config, model_config_file_poll_wait_seconds=0.05, grpc_socket_path=path),
        proxy(tmp_path / "nginx", path, 9) as front,
    ):
        options = ["--server", f"127.0.0.1:{front.port}", "--model", "toy"]
        promoted = CliRunner().invoke(app, ["release", "promote", "1", *options, "--config-file", str(config)])
        reloaded = CliRunner().invoke(app, ["release", "promote", "1", *options, "--base-path", str(models)])

    assert promoted.exit_code == 0, promoted.exception
    assert promoted.stdout == "toy: stable 1, canary 1\n"
    assert reloaded.exit_code == 1
