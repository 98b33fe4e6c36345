"""The page over a real gRPC server, through HTTP and, if one is installed, in a headless browser."""

import base64
import io
import re
import shutil
import subprocess

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from toy_servicer import picture

from components.errors import UsageError
from serving.ui import start
from serving.ui.app import MAX_UPLOAD


@pytest.fixture
def samples(tmp_path):
    """A folder with a valid sample, a broken one and a file that is not an image."""
    (tmp_path / "frame 1.png").write_bytes(picture(250, (40, 60)))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "secret.txt").write_text("not a sample")
    return str(tmp_path)


@pytest.fixture
def page(server, samples):
    page = start(server, port=0, samples_dir=samples, model="toy")
    yield page
    page.stop()


@pytest.fixture
def http(page):
    with httpx.Client(base_url=page.address, trust_env=False) as http:
        yield http


def test_the_page_offers_the_samples_and_loads_nothing_from_elsewhere(http):
    response = http.get("/")

    assert re.findall(r'data-sample="([^"]+)"', response.text) == ["broken.jpg", "frame 1.png"]
    assert "secret" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for address in re.findall(r'(?:src|href)="(?!data:)([^"]+)"', response.text):
        assert http.get(address).status_code == 200, address


def test_an_upload_returns_a_coloured_mask_with_class_fractions(http):
    answer = http.post("/segment", content=picture(250, (40, 60))).json()

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"].split(",")[1]))))
    assert pixels.shape == (40, 60, 4)
    assert (pixels[0, 0].tolist(), pixels[0, 59].tolist()) == ([128, 64, 128, 255], [0, 0, 255, 255])
    assert [(each["color"], each["value"]) for each in answer["classes"]] == [
        ("#0000ff", 0.5),
        ("#804080", 0.5),
        ("#000000", 0.0),
    ]
    assert (answer["model"], answer["version"], answer["confidence"]) == ("toy", 3, 0.75)
    assert answer["seconds"] > 0


def test_a_sample_is_segmented_by_name(http):
    assert http.post("/segment", params={"sample": "frame 1.png"}).json()["size"] == "60 x 40"
    assert http.get("/samples/frame%201.png").content == picture(250, (40, 60))


@pytest.mark.parametrize("name", ["secret.txt", "absent.png", "../secret.txt", "%2e%2e/secret.txt", "/etc/passwd"])
def test_only_samples_are_served(http, name):
    assert http.post("/segment", params={"sample": name}).status_code == 404
    assert http.get(f"/samples/{name.replace('/', '%2F')}").status_code == 404


def test_the_model_is_described(http):
    assert http.get("/model").json() == {
        "model": "toy",
        "version": 3,
        "classes": 3,
        "input": "32 x 24",
        "mean_iou": 0.5,
        "mask_ap": None,
    }


def test_a_corrupt_image_is_explained(http):
    response = http.post("/segment", content=b"no image")

    assert response.status_code == 422
    assert response.json()["title"] == "The model cannot read this image"
    assert "truncated" in response.json()["detail"]


@pytest.mark.parametrize("tell_the_length", [True, False])
def test_an_upload_over_the_limit_is_rejected(http, toy, tell_the_length):
    body = bytes(MAX_UPLOAD + 1)

    response = http.post("/segment", content=body if tell_the_length else iter([body]))

    assert response.status_code == 413
    assert "at most 20 MiB" in response.json()["detail"]
    assert toy.requests == []


@pytest.mark.parametrize(
    ("code", "status", "title"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "No model server answers"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "The model server is busy"),
        (grpc.StatusCode.NOT_FOUND, 502, "The server does not serve this model"),
        (grpc.StatusCode.INTERNAL, 502, "The model server returned no usable answer"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_failing_server_is_explained(http, toy, code, status, title):
    toy.failures = [(code, "words of the server")] * 9

    response = http.post("/segment", content=picture(250))

    assert (response.status_code, response.json()["title"]) == (status, title)
    assert "words of the server" in response.json()["detail"]


def test_a_port_in_use_and_a_missing_folder_are_explained(page, server):
    with pytest.raises(UsageError, match=f"--ui_port {page.port}: found Address already in use"):
        start(server, port=page.port)
    with pytest.raises(UsageError, match="--ui_samples absent: found no folder"):
        start(server, port=0, samples_dir="absent")


def _document(address, tmp_path):
    """Returns the rendered document as HTML."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on the PATH; install it to test the page in a browser")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [browser, *quiet, f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=10000"]
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_a_browser_shows_the_prediction_of_a_sample(page, tmp_path):
    document = _document(f"{page.address}?sample=frame%201.png", tmp_path)

    assert re.search(r'id="answered-by">toy<', document)
    assert re.search(r'id="version">3<', document)
    assert re.search(r'id="confidence">75\.0 %<', document)
    assert re.search(r'id="seconds">\d+ ms<', document)
    assert 'data-state="done"' in document
    assert re.findall(r"<span>(\w+)</span><span class=\"value\">([\d.]+ %)</span>", document) == [
        ("sky", "50.0 %"),
        ("road", "50.0 %"),
    ]
    assert re.findall(r'class="bar" style="width: ([\d.]+%); background: ([^;]+);', document) == [
        ("50%", "rgb(0, 0, 255)"),
        ("50%", "rgb(128, 64, 128)"),
    ]
    assert "Not found: void" in document
    assert re.search(r'id="overlay-mask"[^>]*src="data:image/png', document)
    assert re.search(r'id="model"[^>]*>toy version 3, 3 classes, input 32 x 24, mean IoU 0\.500<', document)
    assert re.search(r'class="error"[^>]*hidden', document)


def test_a_browser_shows_the_error_of_a_broken_sample(page, tmp_path):
    document = _document(f"{page.address}?sample=broken.jpg", tmp_path)

    assert '<strong id="error-title">The model cannot read this image</strong>' in document
    assert "truncated" in document
    assert not re.search(r'class="error"[^>]*hidden', document)
    assert 'data-state="empty"' in document
