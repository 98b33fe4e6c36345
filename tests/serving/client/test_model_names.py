"""The name of the only model, from servers that list their models and from servers that do not."""

import http.server
import threading

import pytest
from toy_servicer import ToyModel, serving

from components.errors import UsageError
from serving.client import ServerUnavailableError, model_names
from serving.client.model_names import only_model
from serving.client.protocol import MODELS_HEADER


class _NamedModels(ToyModel):
    """Lists its models as `segpipe serve` does."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def GetModelStatus(self, request, context):
        context.set_trailing_metadata(((MODELS_HEADER, "\n".join(self.names).encode()),))
        return super().GetModelStatus(request, context)


class _Metrics(http.server.BaseHTTPRequestHandler):
    """TensorFlow Serving's page after requests for three names, of which one is not served."""

    page = "\n".join(
        (
            "# TYPE :tensorflow:serving:request_count counter",
            ':tensorflow:serving:request_count{model_name="toy",status="OK"} 5',
            ':tensorflow:serving:request_count{model_name="removed \\"since\\"",status="OK"} 1',
            ':tensorflow:serving:request_count{model_name="typo",status="NOT_FOUND"} 2',
        )
    )

    def do_GET(self):
        found = self.path == "/monitoring/prometheus/metrics"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(self.page.encode() if found else b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def metrics(monkeypatch):
    """A REST port with TensorFlow Serving's metrics."""
    with http.server.HTTPServer(("localhost", 0), _Metrics) as server:
        monkeypatch.setattr(model_names, "_REST_PORT", server.server_port)
        threading.Thread(target=server.serve_forever).start()
        yield
        server.shutdown()


@pytest.fixture
def no_metrics(monkeypatch):
    """No REST port."""
    monkeypatch.setattr(model_names, "_REST_PORT", 1)


@pytest.mark.parametrize("names", [("toy",), ("größe",)])
def test_the_only_model_is_taken(names):
    with serving(_NamedModels(*names)) as address:
        assert only_model(address) == names[0]


def test_several_models_are_listed():
    with (
        serving(_NamedModels("fcn8", "unet")) as address,
        pytest.raises(UsageError, match="found the models fcn8, unet"),
    ):
        only_model(address)


def test_the_name_of_an_answered_request_is_found_in_metrics(server, metrics):
    assert only_model(server) == "toy"


@pytest.mark.parametrize("target", ["{}", "dns:///{}"])
def test_a_server_that_lists_no_models_is_explained(server, no_metrics, target):
    with pytest.raises(UsageError, match="TensorFlow Serving has no call for that.*--model-name NAME"):
        only_model(target.format(server))


def test_a_model_called_default_needs_no_lookup():
    class Default(ToyModel):
        def _version(self, spec, context):
            assert (spec.name, spec.WhichOneof("version_choice")) == ("default", None)
            return 3

    with serving(Default()) as address:
        assert only_model(address, version=7) == "default"


def test_an_unreachable_server_is_named():
    with pytest.raises(ServerUnavailableError, match="server localhost:1"):
        only_model("localhost:1", deadline=0.5)
