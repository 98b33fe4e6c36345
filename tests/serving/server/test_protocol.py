"""TensorFlow Serving's protocol as any of its clients sees it, asked of the local server or of another one.

SEGPIPE_SERVING and SEGPIPE_SERVING_REST are HOST:PORT of another server. SEGPIPE_SERVING_MODELS is a folder that the
tests and that server have at the same path; docs/serving.md has the command. That server then serves other models.

What is expected here is what tensorflow_serving does at 9d981c5: model_servers/{server_core,get_model_status_impl,
model_service_impl,http_server,http_rest_api_handler}.cc, servables/tensorflow/{predict_util,get_model_metadata_impl}.cc
and util/json_tensor.cc. Where the local server differs on purpose, nothing is asserted.
"""

import os
import threading
import uuid
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2
from toy_models import Channel, predict_request, push, serving

_SECONDS = 60
_X = {"x": np.array([[1, 2], [3, 4]], np.float32)}
_CODE = grpc.StatusCode


class _Server:
    """A server under test, and the folder of its models."""

    def __init__(self, address, rest_address, folder):
        host, _, port = address.rpartition(":")
        self.connection = Channel(port, host=host)
        self.rest = httpx.Client(base_url=f"http://{rest_address}/v1", timeout=_SECONDS, trust_env=False)
        self.folder = folder

    def reload(self, *models):
        """Serves (name, further text of its configuration) from the folders of these names."""
        entries = " ".join(
            f'config {{ name: "{name}" base_path: "{self.folder}/{name}" model_platform: "tensorflow" {more} }}'
            for name, more in models
        )
        config = text_format.Parse(f"model_config_list {{ {entries} }}", model_server_config_pb2.ModelServerConfig())
        request = model_management_pb2.ReloadConfigRequest(config=config)
        return self.connection.models.HandleReloadConfigRequest(request, timeout=_SECONDS)

    def states(self, name, version=None):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        answer = self.connection.models.GetModelStatus(request, timeout=_SECONDS)
        names = get_model_status_pb2.ModelVersionStatus.State
        return {status.version: names.Name(status.state) for status in answer.model_version_status}

    def answered_by(self, name, **spec):
        """Returns the version that answered, and checks its answer."""
        answer = self.connection.predict(_X, name=name, timeout=_SECONDS, **spec)
        version = answer.model_spec.version.value
        np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), _X["x"] * version)
        return version


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The local server, or the one that SEGPIPE_SERVING names."""
    if "SEGPIPE_SERVING" in os.environ:
        address, rest_address = os.environ["SEGPIPE_SERVING"], os.environ["SEGPIPE_SERVING_REST"]
        yield _Server(address, rest_address, Path(os.environ["SEGPIPE_SERVING_MODELS"]))
        return
    folder = tmp_path_factory.mktemp("models")
    (folder / "models.config").write_text("model_config_list {}")
    with serving(model_config_file=folder / "models.config", rest_api_port=0) as local:
        yield _Server(f"localhost:{local.port}", f"localhost:{local.rest_port}", folder)


@pytest.fixture
def name(server, toys):
    """A model with versions 1 and 2 in its folder, not yet served."""
    name = f"toy-{uuid.uuid4().hex}"
    for version in (1, 2):
        _push(server, toys, name, version)
    return name


@pytest.fixture
def toy(server, name):
    """A model whose version 2 serves."""
    server.reload((name, ""))
    return name


def _push(server, toys, name, version):
    (server.folder / name).mkdir(exist_ok=True)
    push(toys, server.folder / name, version)


def _specific(*versions, **labels):
    policy = " ".join(f"versions: {version}" for version in versions)
    pairs = " ".join(f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items())
    return f"model_version_policy {{ specific {{ {policy} }} }} {pairs}"


def _refusal(call, request):
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=_SECONDS)
    return error.value.code()


def _wait_until(condition):
    """Waits for a change that the server makes when it polls its folders."""
    for _ in range(10 * _SECONDS):
        if condition():
            return
        threading.Event().wait(0.1)
    raise AssertionError("nothing changed")


def test_a_prediction_has_outputs_and_the_version_that_answered(server, toy):
    answer = server.connection.predict(_X, name=toy)

    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), _X["x"] * 2)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["sum"]), [3, 7])
    assert list(answer.outputs["y"].float_val) == [2, 4, 6, 8]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (toy, 2, "serving_default")


def test_another_signature_and_an_output_filter_are_obeyed(server, toy):
    inputs = {"a": np.float32([1, 2]), "b": np.array([b"x", b"yz"])}
    request = predict_request(inputs, signature="two", name=toy)
    request.output_filter.append("length")

    answer = server.connection.prediction.Predict(request, timeout=_SECONDS)

    assert {key: list(tf.make_ndarray(value)) for key, value in answer.outputs.items()} == {"length": [1, 2]}
    assert answer.model_spec.signature_name == "two"


@pytest.mark.parametrize(
    ("inputs", "spec", "code"),
    [
        (_X, {"name": "nobody"}, _CODE.NOT_FOUND),
        (_X, {"version": 7}, _CODE.NOT_FOUND),
        (_X, {"label": "beta"}, _CODE.INVALID_ARGUMENT),
        (_X, {"name": ""}, _CODE.INVALID_ARGUMENT),
        (_X, {"signature": "s"}, _CODE.FAILED_PRECONDITION),
        ({}, {}, _CODE.INVALID_ARGUMENT),
        ({**_X, "z": np.float32(1)}, {}, _CODE.INVALID_ARGUMENT),
        ({"x": np.array([[b"a", b"b"]])}, {}, _CODE.INVALID_ARGUMENT),
        ({"x": np.zeros((2, 3), np.float32)}, {}, _CODE.INVALID_ARGUMENT),
        ({"image": np.array([b"no image"])}, {"signature": "images"}, _CODE.INVALID_ARGUMENT),
    ],
    ids=("model", "version", "label", "no-name", "signature", "missing", "extra", "type", "shape", "image"),
)
def test_a_wrong_prediction_has_its_status(server, toy, inputs, spec, code):
    found, details = server.connection.refusal(inputs, **{"name": toy, **spec})

    assert found == code
    if "label" in spec:
        assert details == "Unrecognized servable version label: beta"  # the client searches for this text


def test_a_request_without_a_model_is_refused(server, toy):
    prediction, models = server.connection.prediction, server.connection.models

    assert _refusal(prediction.Predict, predict_pb2.PredictRequest()) == _CODE.INVALID_ARGUMENT
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    assert _refusal(prediction.GetModelMetadata, metadata) == _CODE.INVALID_ARGUMENT
    status = get_model_status_pb2.GetModelStatusRequest()
    assert _refusal(models.GetModelStatus, status) == _CODE.INVALID_ARGUMENT
    status.model_spec.name = ""
    status.model_spec.SetInParent()
    assert _refusal(models.GetModelStatus, status) == _CODE.NOT_FOUND


def test_an_unknown_output_is_refused(server, toy):
    request = predict_request(_X, name=toy)
    request.output_filter.append("w")

    with pytest.raises(grpc.RpcError) as error:
        server.connection.prediction.Predict(request, timeout=_SECONDS)

    assert error.value.code() == _CODE.INVALID_ARGUMENT
    # The client searches for this text.
    assert error.value.details().startswith("output tensor alias not found in signature: w ")


def test_metadata_has_the_signatures(server, toy):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = toy

    answer = server.connection.prediction.GetModelMetadata(request, timeout=_SECONDS)

    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["two"].inputs) == {"a", "b"}
    assert (answer.model_spec.name, answer.model_spec.version.value) == (toy, 2)
    request.metadata_field[:] = ["weights"]
    assert _refusal(server.connection.prediction.GetModelMetadata, request) == _CODE.INVALID_ARGUMENT


def test_status_says_what_serves(server, toy):
    assert server.states(toy) == {2: "AVAILABLE"}
    assert server.states(toy, version=2) == {2: "AVAILABLE"}
    for spec in ({"name": "nobody"}, {"name": toy, "version": 9}):
        with pytest.raises(grpc.RpcError) as error:
            server.states(**spec)
        assert error.value.code() == _CODE.NOT_FOUND


def test_a_pushed_version_takes_over(server, toys, toy):
    assert server.answered_by(toy) == 2

    _push(server, toys, toy, 3)

    _wait_until(lambda: server.answered_by(toy) == 3)
    _wait_until(lambda: server.states(toy).get(2, "END") == "END")
    assert server.connection.refusal(_X, name=toy, version=2)[0] == _CODE.NOT_FOUND


def test_reload_adds_and_removes_models(server, toys, toy):
    other = f"{toy}-other"
    _push(server, toys, other, 1)

    server.reload((other, ""))

    assert server.answered_by(other) == 1
    _wait_until(lambda: server.states(toy).get(2, "END") == "END")
    assert server.connection.refusal(_X, name=toy)[0] == _CODE.NOT_FOUND


def test_labels_move_between_versions_that_serve(server, name):
    server.reload((name, _specific(1, 2)))
    _wait_until(lambda: server.states(name) == {1: "AVAILABLE", 2: "AVAILABLE"})
    for stable, canary in ((1, 2), (2, 1)):
        server.reload((name, _specific(1, 2, stable=stable, canary=canary)))

        assert server.answered_by(name, label="stable") == stable
        assert server.answered_by(name, label="canary") == canary
        assert server.answered_by(name, version=1) == 1
        assert server.answered_by(name) == 2
    with pytest.raises(grpc.RpcError) as error:
        server.reload((name, _specific(1, 2, stable=9)))
    assert error.value.code() == _CODE.FAILED_PRECONDITION


@pytest.mark.parametrize("body", [{"instances": [[1, 2], [3, 4]]}, {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}])
def test_rest_takes_rows(server, toy, body):
    response = server.rest.post(f"/models/{toy}:predict", json=body)

    assert response.json() == {"predictions": [{"y": [2.0, 4.0], "sum": 3.0}, {"y": [6.0, 8.0], "sum": 7.0}]}


@pytest.mark.parametrize("inputs", [[[1, 2]], {"x": [[1, 2]]}])
def test_rest_takes_columns(server, toy, inputs):
    body = {"signature_name": "serving_default", "inputs": inputs}

    response = server.rest.post(f"/models/{toy}/versions/2:predict", json=body)

    assert response.json() == {"outputs": {"y": [[2.0, 4.0]], "sum": [3.0]}}


def test_rest_takes_bytes_in_base64(server, toy):
    body = {"signature_name": "two", "instances": [{"a": 1.5, "b": {"b64": "eHl6"}}]}

    response = server.rest.post(f"/models/{toy}:predict", json=body)

    assert response.json() == {"predictions": [{"length": 3, "a": 1.5}]}


def test_rest_has_status_and_metadata(server, toy):
    status = server.rest.get(f"/models/{toy}").json()
    metadata = server.rest.get(f"/models/{toy}/metadata").json()

    (version,) = status["model_version_status"]
    assert (version["version"], version["state"], version["status"]["error_code"]) == ("2", "AVAILABLE", "OK")
    assert (metadata["model_spec"]["name"], metadata["model_spec"]["version"]) == (toy, "2")
    assert set(metadata["metadata"]["signature_def"]["signature_def"]["two"]["inputs"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/models/nobody:predict", {"instances": [[1, 2]]}, 404),
        ("POST", "/models/{name}/versions/9:predict", {"instances": [[1, 2]]}, 404),
        ("POST", "/models/{name}/labels/beta:predict", {"instances": [[1, 2]]}, 400),
        ("POST", "/models/{name}:predict", {"signature_name": "s", "instances": [[1, 2]]}, 400),
        ("POST", "/models/{name}:predict", {}, 400),
        ("POST", "/models/{name}:predict", {"instances": [["x", "y"]]}, 400),
        ("POST", "/models/{name}:predict", {"instances": [[1, 2, 3]]}, 400),
        ("POST", "/models/{name}", {"instances": [[1, 2]]}, 400),
        ("GET", "/models/{name}:predict", None, 400),
        ("GET", "/models/nobody", None, 404),
        ("GET", "/models/nobody/metadata", None, 404),
        ("GET", "/models", None, 400),
    ],
)
def test_a_wrong_rest_call_has_its_status_and_says_why(server, toy, method, path, body, code):
    response = server.rest.request(method, path.format(name=toy), json=body)

    assert response.status_code == code
    assert response.json()["error"]
