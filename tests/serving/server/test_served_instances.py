"""An instance model on the server, with clients, `segpipe predict`, the page and videos."""

import asyncio
import base64
import io
import json

import av
import grpc
import httpx
import instance_export as toy
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from toy_models import connected, predict_request, serving
from toy_servicer import ToyModel, picture
from toy_servicer import serving as serving_masks
from typer.testing import CliRunner

from components.errors import UsageError
from pipeline.cli.main import app
from pipeline.watch.check import _with_predicted_classes
from pipeline.watch.sources import REQUESTS, read_source
from serving import ui
from serving.client import AsyncClient, Client, InstanceSegmentation, Refused
from serving.client.results import InstanceLimits
from serving.local import LocalModel
from serving.predictor import Predictor
from serving.video import overlay_video
from serving.warmup import WARMUP_FILE

# Twice the network's input, so boxes grow by two.
_LIGHT = Image.new("RGB", (64, 48), (250, 250, 250))
_DARK = Image.new("RGB", (20, 30))


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


LIGHT, DARK = _png(_LIGHT), _png(_DARK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.export_instances(tmp_path_factory.mktemp("instances"), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """A server that warms the model up and logs requests."""
    log = tmp_path_factory.mktemp("log") / "requests"
    with serving(model_base_path=folder, rest_api_port=0, request_log_dir=log) as running:
        yield running


@pytest.fixture(scope="module")
def target(server):
    return f"localhost:{server.port}"


def _limits(count, threshold, most):
    return {
        "score_threshold": np.full(count, threshold, np.float32),
        "max_instances": np.full(count, most, np.int64),
    }


def test_limits_are_optional_inputs_with_and_without_batching(folder):
    for batching in (False, True):
        with connected(model_base_path=folder, enable_batching=batching) as connection:

            def scores(inputs, connection=connection):
                answer = connection.predict(inputs, signature="find_instances")
                return tf.make_ndarray(answer.outputs["scores"])

            np.testing.assert_array_equal(scores({"image": [LIGHT]}), [toy.SCORES])
            kept = scores({"image": [LIGHT, LIGHT], **_limits(2, [0.5, 0.1], [5, 1])})
            np.testing.assert_array_equal(kept > 0, [[1, 1, 0, 0], [1, 0, 0, 0]])
            inputs = {"image": [LIGHT, DARK, LIGHT], "score_threshold": np.float32([0.5])}
            if batching:
                code, text = connection.refusal(inputs, signature="find_instances")
                assert code == grpc.StatusCode.INVALID_ARGUMENT
                assert "expected the same batch size in all" in text
            else:
                np.testing.assert_array_equal(scores(inputs) > 0, [[1, 1, 0, 0], [0] * 4, [1, 1, 0, 0]])


def test_a_limit_leaves_nothing_of_an_instance(target):
    with grpc.insecure_channel(target) as channel:
        request = predict_request({"image": [LIGHT], **_limits(1, 0.5, 9)}, signature="find_instances")
        answer = PredictionServiceStub(channel).Predict(request, timeout=20)

    found = {name: tf.make_ndarray(tensor)[0] for name, tensor in answer.outputs.items()}
    assert found["classes"].tolist() == [1, 1, -1, -1]
    np.testing.assert_allclose(found["boxes"], [*(2 * toy.BOXES[:2]), [0] * 4, [0] * 4], rtol=1e-6)
    assert [png == b"" for png in found["instance_png_bytes"]] == [False, False, True, True]


def test_the_client_returns_instances_with_names_and_masks(target):
    with Client(target, model="toy") as client:
        answer = client.segment(LIGHT)
        nothing, broken, again = client.segment_batch([DARK, LIGHT[:60], LIGHT])

    assert isinstance(answer, InstanceSegmentation)
    assert answer.names == ["box", "box", "stripe"]
    assert answer.class_count == {"box": 2, "stripe": 1}
    np.testing.assert_array_equal(answer.scores, toy.SCORES[:3])
    np.testing.assert_allclose(answer.boxes, 2 * toy.BOXES[:3], rtol=1e-6)
    expected = np.zeros((3, 48, 64), bool)
    for mask, (top, left, bottom, right) in zip(expected, (2 * toy.BOXES[:3]).astype(int), strict=True):
        mask[top:bottom, left:right] = True
    np.testing.assert_array_equal(answer.masks, expected)
    # Two boxes that do not overlap.
    assert answer.class_share["box"] == pytest.approx(expected[:2].mean(axis=(1, 2)).sum())
    assert answer.confidence == pytest.approx(0.6)
    assert (answer.version, answer.legend) == (7, toy.CLASS_MAP)
    assert (nothing.names, nothing.masks.shape, nothing.confidence) == ([], (0, 0, 0), 0)
    assert set(nothing.class_share.values()) == {0}
    assert isinstance(broken, Refused)
    np.testing.assert_array_equal(again.masks, answer.masks)


def test_parallel_requests_detect_the_kind_of_model(target):
    with Client(target, model="toy", batch_size=1, concurrency=4) as client:
        answers = client.segment_batch([LIGHT] * 8)

    assert [answer.class_count for answer in answers] == [{"box": 2, "stripe": 1}] * 8


@pytest.mark.parametrize(
    ("limits", "count"), [({"score_threshold": 0.5}, 2), ({"max_instances": 1}, 1), ({"score_threshold": 1.0}, 0)]
)
def test_clients_and_local_models_take_the_same_limits(target, folder, limits, count):
    async def ask():
        async with AsyncClient(target, model="toy", **limits) as client:
            return await client.segment_batch([LIGHT, LIGHT])

    with Client(target, model="toy", **limits) as client:
        answers = client.segment_batch([LIGHT, LIGHT])
    answers += asyncio.run(ask())
    local = LocalModel(Predictor(str(folder)), InstanceLimits(**limits))
    answers += [result for _, result in local.segment_all(enumerate([LIGHT, LIGHT]))]

    for answer in answers:
        assert answer.names == ["box", "box", "stripe"][:count]
        assert answer.class_share == answers[0].class_share


@pytest.mark.parametrize("limits", [{"score_threshold": 1.5}, {"score_threshold": -0.1}, {"max_instances": 0}])
def test_invalid_limits_are_rejected(limits):
    with pytest.raises(UsageError, match=next(iter(limits))):
        Client("localhost:1", **limits)


def test_rest_answers_rows_and_takes_all_limits(server):
    url = f"http://localhost:{server.rest_port}/v1/models/toy:predict"
    image = {"b64": base64.b64encode(LIGHT).decode()}

    def ask(row, **about):
        answer = httpx.post(url, json={"instances": [row], **about}, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["predictions"]
        return found

    found = ask(image)
    assert found["classes"] == [1, 1, 2, -1]
    png = base64.b64decode(found["instance_png_bytes"][0]["b64"])
    assert Image.open(io.BytesIO(png)).size == (64, 48)
    limited = {"image": image, "score_threshold": 0.5, "max_instances": 1}
    assert ask(limited, signature_name="find_instances")["classes"] == [1, -1, -1, -1]


def _predict(*words):
    return CliRunner().invoke(app, ["predict", *map(str, words)], catch_exceptions=False)


def test_predict_writes_json_with_coco_masks_and_an_overlay(target, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "dark.png").write_bytes(DARK)
    (images / "light.png").write_bytes(LIGHT)
    out = tmp_path / "out"
    words = ("--server", target, "--model-name", "toy", "--out", out, images, "--json")

    first = json.loads(_predict(*words).stdout)["images"]

    assert {path.name for path in out.iterdir()} == {
        f"{name}_{kind}" for name in ("dark", "light") for kind in ("overlay.png", "instances.json")
    }
    assert first[1]["class_count"] == {"box": 2, "stripe": 1}
    told = json.loads((out / "light_instances.json").read_text())
    assert (told["model"], told["version"]) == ("toy", 7)
    assert [(row["class"], row["score"]) for row in told["instances"]] == [("box", 0.9), ("box", 0.6), ("stripe", 0.3)]
    row = told["instances"][0]
    assert row["box"] == [0, 0, 24, 32]
    mask = coco.decode(coco.frPyObjects(row["segmentation"], *row["segmentation"]["size"]))
    expected = np.zeros((48, 64), np.uint8)
    expected[:24, :32] = 1
    np.testing.assert_array_equal(mask, expected)
    assert json.loads((out / "dark_instances.json").read_text())["instances"] == []
    overlay = np.asarray(Image.open(out / "light_overlay.png"))
    assert (overlay[40, 2] == 250).all()
    assert (overlay[20, 30] != 250).any()
    assert [each["kept"] for each in json.loads(_predict(*words).stdout)["images"]] == [True, True]
    # Other limits give other instances.
    anew = json.loads(_predict(*words, "--threshold", 0.5).stdout)["images"]
    assert [(each["kept"], each["class_count"]) for each in anew] == [(False, {}), (False, {"box": 2})]
    again = json.loads(_predict(*words).stdout)["images"]
    assert [each["class_count"] for each in again] == [{}, {"box": 2, "stripe": 1}]


def test_predict_counts_instances_and_refuses_boxes_of_masks(folder, tmp_path):
    (tmp_path / "light.png").write_bytes(LIGHT)
    words = ("--model", folder, "--out", tmp_path / "out", tmp_path / "light.png")

    done = _predict(*words, "--max-instances", 2)

    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[-1] for row in rows if row[:1] in (["box"], ["stripe"], ["instances"])] == ["2", "0"]
    with pytest.raises(UsageError, match="--boxes: found mask_rcnn, a model of instances"):
        _predict(*words, "--boxes", "box")


def test_a_video_shows_the_instances(target, tmp_path):
    source, out = str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4")
    with av.open(source, "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(_LIGHT), format="rgb24")))
        output.mux(stream.encode(None))

    with Client(target, model="toy") as client:
        seen = overlay_video(client, source, out)

    assert (seen.frames, seen.versions) == (3, [("toy", 7)])
    assert seen.confidence == pytest.approx(0.6)
    with av.open(out) as video:
        pixels = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    # The first box is coloured, what is below it is not.
    assert np.ptp(pixels[20, 12]) > 30
    assert np.ptp(pixels[44, 4]) < 15


def test_the_page_shows_a_bar_for_each_instance(target):
    page = ui.start(target, port=0, model="toy")
    try:
        with httpx.Client(base_url=page.address, trust_env=False, timeout=60) as http:
            answer, empty = (http.post("/segment", content=image).json() for image in (LIGHT, DARK))
    finally:
        page.stop()

    assert answer["unit"] == "instance"
    assert [each["name"] for each in answer["classes"]] == ["box", "box", "stripe"]
    assert [each["value"] for each in answer["classes"]] == pytest.approx([0.9, 0.6, 0.3])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"].split(",")[1]))))
    assert pixels.shape == (48, 64, 4)
    assert (pixels[40, 4, 3], pixels[20, 4, 3]) == (0, 255)
    color = answer["classes"][0]["color"]
    assert pixels[20, 4, :3].tolist() == [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    assert (empty["size"], empty["classes"]) == ("20 x 30", [])


def test_a_model_of_masks_has_no_limits():
    with (
        serving_masks(ToyModel()) as address,
        Client(address, model="toy", score_threshold=0.5) as client,
        pytest.raises(UsageError, match="a model of the task semantic"),
    ):
        client.segment(picture(200))


def test_each_signature_is_warmed_up(folder):
    records = tf.data.TFRecordDataset(str(folder / "7" / WARMUP_FILE)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]

    asked = [(each.model_spec.signature_name, len(each.inputs["image"].string_val)) for each in requests]
    assert asked == [("serving_default", 1), ("serving_default", 8), ("find_instances", 1)]


def test_watch_reads_logged_requests_and_what_the_model_finds_in_them(folder, tmp_path):
    with connected(model_base_path=folder, request_log_dir=tmp_path / "log") as connection:
        for inputs in ({"image": [LIGHT]}, {"image": [DARK], **_limits(1, 0.5, 1)}):
            connection.predict(inputs, signature="find_instances")

    found = read_source(str(tmp_path / "log"), 10, "train")

    assert (found.kind, sorted(each.image for each in found.images)) == (REQUESTS, sorted([LIGHT, DARK]))
    shares = {
        each.image: each.class_share
        for each in _with_predicted_classes(found.images, LocalModel(Predictor(str(folder))))
    }
    np.testing.assert_allclose(shares[LIGHT], [0, 0.5, 0.125])
    np.testing.assert_array_equal(shares[DARK], [0, 0, 0])
