"""REST, batching and monitoring of a complete server with a real model and configuration files."""

import base64
import concurrent.futures
import io
import os

import httpx
import pytest
from PIL import Image
from toy_models import Channel, push, serving


@pytest.fixture(scope="module")
def rest(toys, tmp_path_factory):
    """An HTTP client of a server with batching and monitoring."""
    folder = tmp_path_factory.mktemp("rest")
    models = folder / "models"
    models.mkdir()
    push(toys, models, 1)
    push(toys, models, 2)
    (folder / "batching").write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 100000 } num_batch_threads { value: 1 }"
    )
    (folder / "monitoring").write_text('prometheus_config { enable: true path: "/metrics" }')
    with (
        serving(
            model_base_path=models,
            rest_api_port=0,
            enable_batching=True,
            batching_parameters_file=folder / "batching",
            monitoring_config_file=folder / "monitoring",
        ) as server,
        httpx.Client(base_url=f"http://localhost:{server.rest_port}", timeout=60) as client,
    ):
        yield client


def _png(height, width):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("toy/labels/stable", {"instances": [[1.0, 2.0]]}, "Unrecognized servable version label: stable"),
        ("toy", {"signature_name": "none", "instances": [[1.0]]}, 'Serving signature key "none" not found'),
        ("toy", {"signature_name": "images", "instances": []}, "image: found 0 images, expected at least 1"),
        ("toy", {"signature_name": "images", "inputs": []}, "image: found 0 images, expected at least 1"),
        ("toy", {"inputs": {"x": [[[]] * 40]}}, "expected [?, 2]"),
    ],
)
def test_the_model_s_errors_keep_their_text(rest, path, body, message):
    answer = rest.post(f"/v1/models/{path}:predict", json=body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_corrupt_image_does_not_affect_its_batch(rest):
    images = [_png(3, 5), {"b64": _png(3, 5)["b64"][:60]}, _png(7, 2)]

    def ask(image):
        return rest.post("/v1/models/toy:predict", json={"signature_name": "images", "instances": [image]})

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, images))

    assert [answer.status_code for answer in answers] == [200, 400, 200]
    assert answers[0].json() == {"predictions": [[3, 5, 3]]}
    assert answers[2].json() == {"predictions": [[7, 2, 3]]}


@pytest.mark.parametrize("signature", ["gate", "slow"])
def test_a_run_past_the_timeout_is_stopped_and_frees_its_slot(toys, tmp_path, signature):
    push(toys, tmp_path, 1)
    body = {"signature_name": signature, "inputs": {"gate": 1.0, "slow": 1 << 40}[signature]}
    with (
        serving(
            model_base_path=tmp_path, rest_api_port=0, rest_api_timeout_in_ms=1000, max_concurrent_requests=1
        ) as server,
        httpx.Client(base_url=f"http://localhost:{server.rest_port}", timeout=60) as client,
    ):
        answer = client.post("/v1/models/toy:predict", json=body)
        next_one = Channel(server.port).predict({"x": [[1.0, 2.0]]})

    assert answer.status_code == 504
    assert next_one.model_spec.version.value == 1


def test_the_configured_number_of_requests_runs_in_parallel(toys, tmp_path):
    push(toys, tmp_path, 1)
    many = 4 * (os.cpu_count() or 1) + 1
    connections = httpx.Limits(max_connections=None)
    (tmp_path / "batching").write_text(
        f"max_batch_size {{ value: {many} }} batch_timeout_micros {{ value: 60000000 }}"
        "num_batch_threads { value: 1 } max_enqueued_batches { value: 1 }"
    )
    with (
        serving(
            model_base_path=tmp_path,
            rest_api_port=0,
            rest_api_num_threads=many,
            max_queue=many,
            max_queue_wait_in_ms=60_000,
            enable_batching=True,
            batching_parameters_file=tmp_path / "batching",
        ) as server,
        httpx.Client(base_url=f"http://localhost:{server.rest_port}", timeout=60, limits=connections) as client,
        concurrent.futures.ThreadPoolExecutor(many) as pool,
    ):
        answers = list(
            pool.map(lambda row: client.post("/v1/models/toy:predict", json={"instances": [[row, row]]}), range(many))
        )

    # The batch is due long after the calls are, unless all of them are in it.
    assert [answer.status_code for answer in answers] == [200] * many


def test_prometheus_finds_requests_batches_and_versions(rest):
    rest.post("/v1/models/toy:predict", json={"instances": [[1.0, 2.0]]}).raise_for_status()

    page = rest.get("/metrics").text

    for sample in (
        ':tensorflow:serving:request_count{model_name="toy",status="OK"}',
        ':tensorflow:serving:request_latency_count{API="predict",entrypoint="REST",model_name="toy"}',
        ":tensorflow:serving:batching_session:processed_batch_size_count",
        'segpipe_serving_model_version{model_name="toy",state="AVAILABLE",version="2"} 1.0',
        "segpipe_serving_queued_requests 0.0",
    ):
        assert sample in page
