"""The client and the page against `segpipe serve` with an exported model."""

import threading

import httpx
import pytest
from tiny_export import export_tiny
from toy_servicer import CLASS_MAP, picture

from serving.client import Client, ModelNotFoundError, Refused
from serving.client.model_names import only_model
from serving.server.main import Server
from serving.server.options import ServeOptions
from serving.ui import start


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """HOST:PORT of a server that is ready."""
    ready = threading.Event()
    folder = export_tiny(tmp_path_factory.mktemp("served"))
    options = ServeOptions(model_name="tiny", model_base_path=folder, port=0, enable_model_warmup=False)
    server = Server(options, lambda _: ready.set())
    assert ready.wait(60)
    yield f"127.0.0.1:{server.port}"
    server.stop()


def test_every_call_is_answered(address):
    images = {"a": picture(250, (20, 30)), "broken": b"no image", "b": picture(250, kind="JPEG")}

    with Client(address, model="tiny") as client:
        answers = dict(client.segment_all(images.items()))
        description, status, signatures = client.describe(), client.status(), client.signatures()

    assert isinstance(answers["broken"], Refused)
    assert (answers["a"].class_map.shape, answers["a"].version, answers["a"].legend) == ((20, 30), 7, CLASS_MAP)
    assert answers["b"].class_share == pytest.approx({"sky": 0.5, "road": 0.5, "void": 0.0}, abs=0.05)
    assert (description.version, description.metrics) == (7, {"mean_iou": 0.5})
    assert [(each.version, each.state) for each in status] == [(7, "AVAILABLE")]
    assert set(signatures) == {"serving_default", "describe"}
    assert signatures["serving_default"]["inputs"] == {"image": "string [?]"}


@pytest.mark.parametrize(
    "settings", [{"model": "fcn8"}, {"model": "tiny", "version": 8}, {"model": "tiny", "label": "x"}]
)
@pytest.mark.parametrize("ask", [lambda client: client.segment(picture(250)), lambda client: client.describe()])
def test_an_unserved_model_is_a_usage_error(address, settings, ask):
    with (
        Client(address, **settings) as client,
        pytest.raises(ModelNotFoundError, match="expected model .* Name a "),
    ):
        ask(client)


def test_its_only_model_needs_no_name(address):
    assert only_model(address) == "tiny"


def test_the_page_works_with_the_server(address):
    page = start(address, port=0, model="tiny")
    try:
        answer = httpx.post(f"{page.address}segment", content=picture(250), trust_env=False).json()
    finally:
        page.stop()

    assert (answer["model"], answer["version"]) == ("tiny", 7)
