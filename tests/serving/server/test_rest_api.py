"""The REST API: every body and address of `api_rest.md`, and errors for malformed ones."""

import base64
import concurrent.futures
import contextlib
import gzip
import json
import re
import socket
import threading
import tracemalloc

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from components.errors import UsageError
from serving.http_server import HttpServer
from serving.server.errors import ServingError, not_found
from serving.server.monitoring import Metrics
from serving.server.options import ServeOptions
from serving.server.rest import RestApp
from serving.server.rest_json import fill_request, response_json
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
        self.http = HttpServer(RestApp(self.core, self.metrics, ServeOptions(**options)), "127.0.0.1", 0)
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
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("monitoring") / "monitoring.config"
    file.write_text('prometheus_config { enable: true path: "/metrics" }')
    server = Server(monitoring_config_file=str(file))
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
def test_rows_return_predictions(server, signature, rows):
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
def test_columns_return_outputs(server, signature, columns):
    response = server.predict({"inputs": columns}, signature=signature)

    assert (response.status_code, response.json()) == (200, {"outputs": columns})


def test_bytes_are_base64(server):
    data = bytes(range(256))

    by_row = server.predict({"instances": [_b64(data), _b64(b"ok")]}, signature="bytes").json()
    named = server.predict({"instances": [{"image": _b64(data)}]}, signature="bytes").json()
    column = server.predict({"inputs": {"image": [_b64(data)]}}, signature="bytes").json()

    assert by_row == {"predictions": [_b64(data), _b64(b"ok")]}
    assert named == {"predictions": [_b64(data)]}
    assert column == {"outputs": [_b64(data)]}


def test_an_output_whose_name_does_not_end_in_bytes_is_written_byte_by_byte(server):
    # tensorflow_serving/util/json_tensor.cc at 9d981c5: IsNamedTensorBytes and AddSingleValueAndAdvance.
    data = b'\x89PNG\xff"\n\\'

    response = server.predict({"instances": [_b64(data), _b64("bär".encode())]}, signature="strings")

    assert response.content == b'{"predictions": ["\x89PNG\xff\\"\\n\\\\", "b\xc3\xa4r"]}'


def test_floats_are_written_in_shortest_form_including_infinity_and_nan(server):
    text = b'{"instances": [0.1, 1e-07, 16777217, NaN, Infinity, -Infinity, 1e300]}'

    response = server.predict(text)

    assert response.text == '{"predictions": [0.1, 1e-07, 16777216.0, NaN, Infinity, -Infinity, Infinity]}'


def test_the_model_may_be_named_by_version_or_label(server):
    for part in ("", "/versions/3", "/labels/stable"):
        response = server.client.post(f"/v1/models/echo{part}:predict", json={"instances": [1.0]})
        assert response.json() == {"predictions": [1.0]}


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


_FLOAT = "expected float, and lists of one length and depth"


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        (None, {}, "body: found neither, expected either 'instances' or 'inputs'"),
        (None, {"instances": [1], "inputs": [1]}, "expected either 'instances' or 'inputs'"),
        (None, {"instances": 3}, "instances: found 3, expected a list"),
        (None, {"instances": []}, "x: found 0 rows, expected at least 1"),
        ("strings", {"instances": []}, "image: found 0 images, expected at least 1"),
        (None, {"instances": ["x"]}, f'x[0]: found "x", {_FLOAT}'),
        (None, {"instances": [1.0, True]}, f"x[1]: found true, {_FLOAT}"),
        (None, {"instances": [None]}, f"x[0]: found null, {_FLOAT}"),
        (None, {"instances": [[1, 2], [3]]}, f"x[0]: found [1, 2], {_FLOAT}"),
        (None, {"instances": [[1, [2]]]}, f"x[0, 1]: found [2], {_FLOAT}"),
        (None, {"inputs": [[1], 2]}, f"x[0]: found [1], {_FLOAT}"),
        (None, {"instances": [{"y": 1}]}, 'instances[0]: found {"y": 1}, expected an object with the keys x'),
        (None, {"inputs": {"y": 1}}, 'inputs: found {"y": 1}, expected an object with the keys x'),
        (None, {"instances": [1, {"x": 1}]}, "instances[0]: found 1, expected an object"),
        (None, {"instances": [{"x": 1}, 1]}, "instances[1]: found 1, expected an object"),
        ("two", {"instances": [1.0]}, "expected an object with the keys a, b"),
        ("two", {"instances": [{"a": 1.0}]}, "expected an object with the keys a, b"),
        ("two", {"inputs": [1.0]}, "expected an object with the keys a, b"),
        ("uint8", {"instances": [1.0]}, "x[0]: found 1.0, expected uint8"),
        ("uint8", {"instances": [0, 256]}, ", expected uint8"),
        ("int64", {"instances": [2**64]}, "expected int64"),
        ("bool", {"instances": [1]}, "x[0]: found 1, expected bool"),
        ("half", {"instances": [1.0]}, "x: found type half, which JSON cannot express"),
        ("strings", {"instances": [{"b64": "not base64!"}]}, "image: found invalid base64"),
        ("strings", {"inputs": {"image": [{"b64": 3}]}}, 'image: found {"b64": 3}, expected string'),
        ("strings", {"instances": ["\ud800"]}, "surrogates not allowed, expected string"),
        ("\ud800", {"instances": ["a"]}, 'signature_name: found "\\ud800", expected a string'),
        ("absent", {"instances": [1.0]}, 'Serving signature key "absent" not found'),
        (7, {"instances": [1.0]}, "signature_name: found 7, expected a string"),
    ],
)
def test_a_wrong_body_is_a_bad_request_that_says_why(server, signature, body, message):
    response = server.predict(body, signature=signature)

    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"instances": ["\xff"]}',
        b'{"instances": ' + b"[" * 100_000,
        b'{"instances": [1' + b"0" * 400 + b"]}",
        b'{"instances": [1' + b"0" * 5000 + b"]}",
        b"[1]",
    ],
)
def test_a_body_that_is_no_json_object_is_a_bad_request(server, body):
    response = server.predict(body)

    assert response.status_code == 400
    assert re.search(", expected (a JSON object|float)", response.json()["error"])


@pytest.mark.parametrize("unit", [b"{}", b"[]", b"7", b'{"a":{}}', b'""', b'"\xe3\x81\x82\xe3\x81\x82"'])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_rejected_body_needs_little_memory(server, unit, zipped):
    body = b'{"instances": [' + b",".join([unit] * (2_000_000 // len(unit))) + b"]}"
    tracemalloc.start()

    with pytest.raises(ServingError, match=r"larger than max \(\d+\), one for 64 bytes"):
        fill_request(body, predict_pb2.PredictRequest(), dict, len(body) // 64)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body)
    content, headers = (gzip.compress(body), {"Content-Encoding": "gzip"}) if zipped else (body, {})
    limited = Server(max_message_bytes=len(body))
    answer = limited.client.post("/v1/models/echo:predict", content=content, headers=headers)
    limited.close()
    assert answer.status_code == 429


@pytest.mark.parametrize("unit", [b'{"a":{}}', b'{"b":[{}]}', b"[[]]", b"1234567"])
def test_a_body_with_the_largest_number_of_values_needs_a_few_times_its_size(unit):
    most = 1 << 16
    body = b'{"instances": [' + b",".join([unit] * (most // (1 + unit.count(b"{") + unit.count(b"[")) - 2)) + b"]}"
    tracemalloc.start()

    with contextlib.suppress(ServingError):  # some are invalid, but only the memory matters here
        fill_request(body, predict_pb2.PredictRequest(), lambda name: {"x": meta_graph_pb2.TensorInfo(dtype=1)}, most)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 64 * most


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", f"/v1/models/echo/versions/{2**63}:predict", 400, "Malformed request"),
        ("GET", f"/v1/models/echo/versions/{'9' * 5000}", 400, "Malformed request"),
        ("GET", "/v1/models/%ff", 400, "Malformed request"),
        ("GET", "/v1/models/echo/METADATA", 400, "Malformed request"),
        ("PUT", "/v1/models/echo:predict", 400, "Malformed request: PUT"),
        ("POST", "/v1/models/echo:classify", 501, "classify is not implemented"),
        ("POST", "/v1/models/echo:regress", 501, "regress is not implemented"),
    ],
)
def test_a_wrong_address_has_tensorflow_serving_s_code(server, method, path, status, message):
    response = server.client.request(method, path, content=b'{"instances": [1.0]}')

    assert response.status_code == status
    assert message in response.json()["error"]


def test_an_address_outside_the_api_is_not_found(server):
    assert server.client.get("/v2/models/echo").status_code == 404
    assert server.client.get("/v1/models/echo", headers={"Connection": "Upgrade", "Upgrade": "websocket"}).is_success


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

    http = HttpServer(RestApp(Refusing(), Metrics(), ServeOptions()), "127.0.0.1", 0)

    response = httpx.get(f"http://127.0.0.1:{http.port}/v1/models/echo")

    http.stop()
    assert (response.status_code, response.json()) == (status, {"error": "because"})


def test_a_body_that_is_too_large_is_refused():
    server = Server(max_message_bytes=1000)

    response = server.predict({"instances": ["x" * 2000]}, signature="strings")

    assert response.status_code == 429
    assert "larger than max" in response.json()["error"]
    assert server.predict({"instances": [1.0]}).status_code == 200
    server.close()


def test_requests_over_the_limit_are_rejected_and_the_others_are_answered():
    server = Server(max_concurrent_requests=1, max_queue=1, rest_api_num_threads=2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(server.predict, {"instances": [1.0]}, "slow") for _ in range(2)]
        assert all(server.core.busy.acquire(timeout=20) for _ in taken)

        refused = server.client.get("/v1/models/echo")

        server.core.gate.set()
        assert [future.result(20).status_code for future in taken] == [200, 200]
    assert refused.status_code == 429
    assert "Too many requests" in refused.json()["error"]
    server.close()


def test_a_slow_body_times_out():
    server = Server(rest_api_timeout_in_ms=200)
    with socket.create_connection(("127.0.0.1", server.http.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")

        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 504")
    server.close()


@pytest.mark.parametrize(("max_wait", "status"), [(100, 429), (60_000, 504)])
def test_a_call_without_a_free_thread_times_out(max_wait, status):
    server = Server(rest_api_timeout_in_ms=2000, rest_api_num_threads=1, max_queue_wait_in_ms=max_wait)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.predict, {"instances": [1.0]}, "slow")
        assert server.core.busy.acquire(timeout=20)

        waiting = server.client.get("/v1/models/echo")

        # Neither waits for the prediction, which continues.
        assert (running.result(20).status_code, waiting.status_code) == (504, status)
        assert running.result().json() == {"error": "Deadline passed before the answer was ready"}
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
        (gzip.compress(b'{"instances": [1.0]}', mtime=0)[:-4], "a truncated stream"),
        (gzip.compress(b'{"instances": [1.0]}', mtime=0) + b"more", "bytes after the stream"),
        (b"", "a truncated stream"),
    ],
    ids=["plain", "truncated", "more after it", "empty"],
)
def test_an_invalid_gzip_body_is_a_bad_request(server, body, found):
    response = _predict_gzip(server, body)

    assert response.status_code == 400
    assert found in response.json()["error"]
    assert "expected one complete gzip stream" in response.json()["error"]


def test_a_body_that_is_too_large_when_decompressed_is_rejected():
    server = Server(max_message_bytes=1000)

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


def test_cut_connections_do_not_affect_the_server(server):
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
@example(body=b'{"signature_name": "strings", "instances": [{"b64": "gA=="}]}')
def test_any_body_gets_a_valid_status(server, body):
    response = server.predict(body)

    assert response.status_code in (200, 400)
    # A string that is not UTF-8 is written as its bytes, as TensorFlow Serving does.
    document = json.loads(response.content.decode(errors="surrogateescape"))
    assert document.keys() <= {"predictions", "outputs", "error"}


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5))
def test_floats_come_back_exactly(server, values):
    answered = server.predict({"inputs": values}).json()["outputs"]

    np.testing.assert_array_equal(np.array(answered, np.float32), np.array(values, np.float32))
