"""The REST calls: every body and address of `api_rest.md`, and that no malformed one gets past a status."""

import base64
import concurrent.futures
import gzip
import json
import socket
import threading
import tracemalloc

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from components.errors import UsageError
from serving.server.errors import ServingError, not_found
from serving.server.http_server import HttpServer
from serving.server.json_responses import response_json
from serving.server.monitoring import Metrics
from serving.server.rest import RestOptions, create_app
from serving.server.servable import AVAILABLE, Servable, version_status

_SIGNATURES = {
    "serving_default": {"x": types_pb2.DT_FLOAT},
    "strings": {"image": types_pb2.DT_STRING},
    "bytes": {"image": types_pb2.DT_STRING},
    "uint8": {"x": types_pb2.DT_UINT8},
    "int64": {"x": types_pb2.DT_INT64},
    "bool": {"x": types_pb2.DT_BOOL},
    "half": {"x": types_pb2.DT_HALF},
    "two": {"a": types_pb2.DT_FLOAT, "b": types_pb2.DT_STRING},
}


class EchoCore:
    """A model that answers with its inputs, under the signature's name for one of them.

    The signature "bytes" names its output `image_bytes`. Model "slow" waits for the test.
    """

    def __init__(self):
        self.gate = threading.Event()
        self.busy = threading.Semaphore(0)

    def _find(self, spec):
        if spec.name not in ("echo", "slow"):
            raise not_found(f"Servable not found for request: Latest({spec.name})")
        if spec.version.value not in (0, 3) or spec.version_label not in ("", "stable"):
            raise not_found(f"Servable not found for request: Specific({spec.name}, {spec.version.value})")

    def model_metadata(self, request):
        self._find(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, inputs in _SIGNATURES.items():
            for key, dtype in inputs.items():
                signatures.signature_def[name].inputs[key].CopyFrom(meta_graph_pb2.TensorInfo(dtype=dtype, name=key))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 3
        response.metadata["signature_def"].Pack(signatures)
        return response

    def model_status(self, request):
        self._find(request.model_spec)
        statuses = [version_status(Servable(request.model_spec.name, 3, "", AVAILABLE))]
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def predict(self, request, deadline=None, interrupt=False):
        self._find(request.model_spec)
        if request.model_spec.name == "slow":
            self.busy.release()
            assert self.gate.wait(20)
        response = predict_pb2.PredictResponse()
        for name, tensor in request.inputs.items():
            tf.make_ndarray(tensor)
            suffix = "_bytes" if request.model_spec.signature_name == "bytes" else ""
            response.outputs[name + suffix].CopyFrom(tensor)
        return response


class Server:
    def __init__(self, **options):
        self.core = EchoCore()
        self.metrics = Metrics(lambda: [("echo", 3, "AVAILABLE")])
        options = RestOptions(**{"monitoring_path": "/metrics", **options})
        self.http = HttpServer(create_app(self.core, self.metrics, options), "127.0.0.1", 0)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http.port}", timeout=20)

    def predict(self, body, model="echo", signature=None):
        content = body if isinstance(body, bytes) else json.dumps({**body, **_named(signature)}).encode()
        return self.client.post(f"/v1/models/{model}:predict", content=content)

    def close(self):
        self.core.gate.set()
        self.client.close()
        self.http.stop()


def _named(signature):
    return {} if signature is None else {"signature_name": signature}


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def _b64(data):
    return {"b64": base64.b64encode(data).decode()}


_ROUND_TRIPS = [
    ("serving_default", [1.0, 2.5, -3e-05]),
    ("serving_default", [[[1, 2]], [[3, 4]]]),
    ("uint8", [[0, 255], [7, 8]]),
    ("int64", [2**62, -(2**63)]),
    ("bool", [True, False]),
    ("strings", ["foo", "bär", ""]),
    ("two", [{"a": 1.0, "b": "foo"}, {"a": 2.0, "b": "bar"}]),
    ("two", [{"a": [1.0, 2.0], "b": ["x"]}]),
]


@pytest.mark.parametrize(("signature", "rows"), _ROUND_TRIPS)
def test_rows_in_predictions_out(server, signature, rows):
    response = server.predict({"instances": rows}, signature=signature)

    assert (response.status_code, response.json()) == (200, {"predictions": rows})
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("signature", "columns"),
    [
        ("serving_default", [1.0, 2.5]),
        ("serving_default", 1.5),
        ("serving_default", []),
        ("strings", "foo"),
        ("two", {"a": [1.0, 2.0, 3.0], "b": ["foo"]}),
        ("two", {"a": [[0.5]], "b": []}),
    ],
)
def test_columns_in_outputs_out(server, signature, columns):
    response = server.predict({"inputs": columns}, signature=signature)

    assert (response.status_code, response.json()) == (200, {"outputs": columns})


def test_bytes_travel_in_base64(server):
    data = bytes(range(256))

    by_row = server.predict({"instances": [_b64(data), _b64(b"ok")]}, signature="bytes").json()
    named = server.predict({"instances": [{"image": _b64(data)}]}, signature="bytes").json()
    column = server.predict({"inputs": {"image": [_b64(data)]}}, signature="bytes").json()

    assert by_row == {"predictions": [_b64(data), _b64(b"ok")]}
    assert named == {"predictions": [_b64(data)]}
    assert column == {"outputs": [_b64(data)]}


def test_an_output_that_is_no_text_is_base64_whatever_its_name(server):
    data = b"\x89PNG\xff"

    response = server.predict({"instances": [_b64(data), _b64(b"text")]}, signature="strings")

    assert response.json() == {"predictions": [_b64(data), "text"]}


def test_floats_keep_their_shortest_form_and_what_is_not_finite(server):
    text = b'{"instances": [0.1, 1e-07, 16777217, NaN, Infinity, -Infinity, 1e300]}'

    response = server.predict(text)

    assert response.text == '{"predictions": [0.1, 1e-07, 16777216.0, NaN, Infinity, -Infinity, Infinity]}'


def test_the_model_may_be_named_by_version_or_label(server):
    for part in ("", "/versions/3", "/labels/stable"):
        response = server.client.post(f"/v1/models/echo{part}:predict", json={"instances": [1.0]})
        assert response.json() == {"predictions": [1.0]}


def test_what_follows_the_document_is_ignored(server):
    assert server.predict(b'\xef\xbb\xbf {"instances": [1]} junk').status_code == 200


def test_the_status_of_a_model(server):
    response = server.client.get("/v1/models/echo")

    assert response.json() == {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert server.client.get("/v1/models/echo/versions/3").status_code == 200
    assert server.client.get("/v1/models/echo/labels/stable").status_code == 200


def test_the_metadata_of_a_model(server):
    content = server.client.get("/v1/models/echo/versions/3/metadata").json()

    assert content["model_spec"] == {"name": "echo", "version": "3", "signature_name": ""}
    inputs = content["metadata"]["signature_def"]["signature_def"]["uint8"]["inputs"]
    assert inputs["x"]["dtype"] == "DT_UINT8"


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        (None, {}, "Missing 'inputs' or 'instances' key"),
        (None, {"instances": [1], "inputs": [1]}, "expecting only one of 'inputs' or 'instances' keys to exist"),
        (None, {"instances": 3}, "Expecting 'instances' to be an list/array"),
        (None, {"instances": []}, "No values in 'instances' array"),
        (None, {"instances": ["x"]}, 'JSON Value: "x" Type: String is not of expected type: float'),
        (None, {"instances": [True]}, "Type: True is not of expected type: float"),
        (None, {"instances": [None]}, "Type: Null is not of expected type: float"),
        (None, {"instances": [[1, 2], [3]]}, "Failed to process element: 1 key: x of 'instances' list"),
        (None, {"instances": [[1, [2]]]}, "Encountered list at unexpected level: 1 expected < 1"),
        (None, {"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (None, {"inputs": [[1], 2]}, "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        (None, {"instances": [{"y": 1}]}, "JSON object: does not have named input: y"),
        (None, {"inputs": {"y": 1}}, "Missing named input: x in 'inputs' object."),
        (None, {"instances": [1, {"x": 1}]}, "Expecting value/list but got object at item 1 of input list"),
        (None, {"instances": [{"x": 1}, 1]}, "Expecting object but got list at item 1 of input list"),
        ("two", {"instances": [1.0]}, "instances is a plain list, but expecting list of objects"),
        ("two", {"instances": [{"a": 1.0}]}, "keys must be equal to: a,b"),
        ("two", {"inputs": [1.0]}, "inputs is a plain value/list, but expecting an object"),
        ("uint8", {"instances": [1.0]}, "JSON Value: 1.0 Type: Number is not of expected type: uint8"),
        ("uint8", {"instances": [256]}, "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ("int64", {"instances": [2**64]}, "is not of expected type: int64"),
        ("bool", {"instances": [1]}, "Type: Number is not of expected type: bool"),
        ("half", {"instances": [1.0]}, "to type: half"),
        ("strings", {"instances": [{"b64": "not base64!"}]}, "Unable to base64 decode"),
        ("strings", {"inputs": {"image": [{"b64": 3}]}}, "not formatted correctly for base64 data"),
        ("strings", {"instances": ["\ud800"]}, "surrogate"),
        ("absent", {"instances": [1.0]}, 'Serving signature name: "absent" not found in signature def'),
        (7, {"instances": [1.0]}, "'signature_name' key must be a string value."),
    ],
)
def test_a_wrong_body_is_a_bad_request_that_says_why(server, signature, body, message):
    response = server.predict(body, signature=signature)

    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"instances": ["\xff"]}', "JSON Parse error: Invalid encoding in string"),
        (b'{"instances": ' + b"[" * 100_000, "JSON Parse error: "),
        (b'{"instances": [1' + b"0" * 400 + b"]}", "Number too big to be stored in double"),
        (b'{"instances": [1' + b"0" * 5000 + b"]}", "JSON Parse error: "),
    ],
)
def test_a_body_that_is_no_json_document_is_a_bad_request(server, body, message):
    response = server.predict(body)

    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/absent:predict", 404, "Servable not found for request: Latest(absent)"),
        ("GET", "/v1/models/absent", 404, "Servable not found for request: Latest(absent)"),
        ("GET", "/v1/models/absent/metadata", 404, "Servable not found"),
        ("POST", "/v1/models/echo/versions/9:predict", 404, "Servable not found"),
        ("POST", f"/v1/models/echo/versions/{2**63}:predict", 400, "Failed to convert version"),
        ("GET", f"/v1/models/echo/versions/{'9' * 5000}", 400, "Failed to convert version"),
        ("GET", "/v1/models/%ff", 400, "Failed to decode model name"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/echo:predict", 400, "Malformed request: GET /v1/models/echo:predict"),
        ("POST", "/v1/models/echo", 400, "Malformed request: POST /v1/models/echo"),
        ("POST", "/v1/models/echo:PREDICT", 400, "Malformed request: POST"),
        ("PUT", "/v1/models/echo:predict", 400, "Malformed request: PUT"),
        ("POST", "/v1/models/echo:classify", 501, "classify is not implemented"),
        ("POST", "/v1/models/echo:regress", 501, "regress is not implemented"),
    ],
)
def test_a_wrong_address_has_tensorflow_serving_s_code(server, method, path, status, message):
    response = server.client.request(method, path, content=b'{"instances": [1.0]}')

    assert response.status_code == status
    assert message in response.json()["error"]


def test_the_method_goes_by_its_lower_case_spelling_and_no_other_becomes_a_label(server):
    answer = server.client.get("/V1/Models/echo/METADATA")

    assert answer.json() == server.client.get("/v1/models/echo").json()
    assert "METADATA" not in server.client.get("/metrics").text


def test_an_address_outside_the_api_is_not_found(server):
    assert server.client.get("/v2/models/echo").status_code == 404


def test_calls_are_counted_on_the_monitoring_page(server):
    server.predict({"instances": ["wrong"]})

    page = server.client.get("/metrics")

    assert page.headers["content-type"].startswith("text/plain")
    assert ':tensorflow:serving:request_count{model_name="echo",status="INVALID_ARGUMENT"}' in page.text


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
def test_a_status_of_the_core_has_its_http_code(code, status):
    class Refusing(EchoCore):
        def model_status(self, request):
            raise ServingError(code, "because")

    app = create_app(Refusing(), Metrics(), RestOptions())
    http = HttpServer(app, "127.0.0.1", 0)

    response = httpx.get(f"http://127.0.0.1:{http.port}/v1/models/echo")

    http.stop()
    assert (response.status_code, response.json()) == (status, {"error": "because"})


def test_a_body_that_is_too_large_is_refused():
    server = Server(max_body_bytes=1000)

    response = server.predict({"instances": ["x" * 2000]}, signature="strings")

    assert response.status_code == 429
    assert "larger than max" in response.json()["error"]
    assert server.predict({"instances": [1.0]}).status_code == 200
    server.close()


def test_past_the_bound_requests_are_refused_at_once_and_the_taken_ones_are_answered():
    server = Server(max_requests=2, num_threads=2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(server.predict, {"instances": [1.0]}, "slow") for _ in range(2)]
        assert all(server.core.busy.acquire(timeout=20) for _ in taken)

        refused = server.client.get("/v1/models/echo")

        server.core.gate.set()
        assert [future.result(20).status_code for future in taken] == [200, 200]
    assert refused.status_code == 429
    assert "Too many requests" in refused.json()["error"]
    server.close()


def test_a_body_that_does_not_arrive_in_time_has_a_status():
    server = Server(timeout=0.2)
    with socket.create_connection(("127.0.0.1", server.http.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")

        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 504")
    server.close()


def test_a_call_that_gets_no_thread_in_time_has_a_status():
    server = Server(timeout=2, num_threads=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.predict, {"instances": [1.0]}, "slow")
        assert server.core.busy.acquire(timeout=20)

        waiting = server.client.get("/v1/models/echo")

        # Neither waits for the prediction, which goes on.
        assert running.result(20).status_code == waiting.status_code == 504
        assert waiting.json() == {"error": "Deadline passed before the answer was ready"}
    server.core.gate.set()
    assert server.client.get("/v1/models/echo").status_code == 200
    server.close()


def _predict_gzip(server, body):
    headers = {"Content-Encoding": "gzip"}
    return server.client.post("/v1/models/echo:predict", content=body, headers=headers)


def test_a_body_may_be_compressed(server):
    response = _predict_gzip(server, gzip.compress(b'{"instances": [1.0, 2.5]}'))

    assert (response.status_code, response.json()) == (200, {"predictions": [1.0, 2.5]})


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"instances": [1.0]}', "incorrect header check"),
        (gzip.compress(b'{"instances": [1.0]}')[:-4], "a stream that is cut short"),
        (gzip.compress(b'{"instances": [1.0]}') + b"more", "4 bytes behind the stream"),
        (b"", "a stream that is cut short"),
    ],
    ids=["plain", "cut short", "more behind", "empty"],
)
def test_a_body_that_is_no_whole_gzip_stream_is_a_bad_request_that_says_why(server, body, found):
    response = _predict_gzip(server, body)

    assert response.status_code == 400
    assert found in response.json()["error"]
    assert "expected a body that is one whole gzip stream" in response.json()["error"]


def test_a_body_that_unpacks_to_too_much_is_refused():
    server = Server(max_body_bytes=1000)

    fits = _predict_gzip(server, gzip.compress(b'{"instances": [1.0]}'.ljust(1000)))
    larger = _predict_gzip(server, gzip.compress(b'{"instances": [1.0]}'.ljust(100_000)))

    assert fits.status_code == 200
    assert larger.status_code == 429
    assert "Received message larger than max" in larger.json()["error"]
    server.close()


def test_floats_are_written_with_little_memory():
    count = 1 << 20
    tensor = tf.make_tensor_proto(np.arange(count, dtype=np.float32).reshape(2, -1) / 7)
    tracemalloc.start()

    text = response_json({"y": tensor}, by_row=True)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert text.startswith(b'{"predictions": [[0.0, 0.14285715, 0.2857143, ')
    assert peak < 100 * count


def test_cut_connections_leave_the_server_answering(server):
    whole = b'POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{"instances": [1.0]}'
    for length in range(0, len(whole), 7):
        with socket.create_connection(("127.0.0.1", server.http.port), timeout=20) as connection:
            connection.sendall(whole[:length])

    assert server.predict({"instances": [1.0]}).status_code == 200


def test_a_port_in_use_is_explained(server):
    with pytest.raises(UsageError, match=rf"--rest_api_port {server.http.port}: .*in use"):
        HttpServer(server.client, "127.0.0.1", server.http.port)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.builds(_b64, st.binary(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "a", "b", "image", "b64", "z"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_BODIES = st.builds(
    lambda signature, key, value: json.dumps({"signature_name": signature, key: value}).encode(),
    st.sampled_from([*_SIGNATURES, "", "absent"]),
    st.sampled_from(["instances", "inputs"]),
    st.lists(_JSON, min_size=1, max_size=3) | _JSON,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES | st.binary(max_size=40))
def test_whatever_the_body_the_answer_is_a_proper_status(server, body):
    response = server.predict(body)

    assert response.status_code in (200, 400)
    assert response.json().keys() <= {"predictions", "outputs", "error"}


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5))
def test_floats_come_back_exactly(server, values):
    answered = server.predict({"inputs": values}).json()["outputs"]

    np.testing.assert_array_equal(np.array(answered, np.float32), np.array(values, np.float32))
