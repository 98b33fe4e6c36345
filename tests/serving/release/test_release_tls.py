"""`segpipe release` over TLS, with verified certificates of server and client."""

import ipaddress

import grpc
import pytest
from cryptography import x509
from self_signed import issue
from toy_model_server import ToyModelServer
from typer.testing import CliRunner

from components.errors import ReleaseError, UsageError
from pipeline.cli.main import app
from serving.client import Tls
from serving.release.servers import ModelServer

_CONFIG = 'model_config_list { config { name: "fcn8" base_path: "/models/fcn8" model_platform: "tensorflow" } }'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificates and keys of a server and of clients, by name."""
    folder = tmp_path_factory.mktemp("certificates")
    numbers = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return {
        "server": issue(folder / "server"),
        "numbers": issue(folder / "numbers", numbers),
        "client": issue(folder / "client"),
        "stranger": issue(folder / "stranger"),
    }


@pytest.fixture
def start(files):
    """Starts servers of version 12 and 13 that ask for the client's certificate."""
    started = []

    def start_one(certificate="server"):
        cert, key = (file.read_bytes() for file in files[certificate])
        allowed = files["client"][0].read_bytes()
        credentials = grpc.ssl_server_credentials([(key, cert)], allowed, require_client_auth=True)
        started.append(ToyModelServer({12, 13}, credentials=credentials))
        return started[-1]

    yield start_one
    for server in started:
        server.stop()


def _options(files, ca="server", client="client"):
    cert, key = files[client]
    return ["--tls", "--tls-ca", str(files[ca][0]), "--tls-cert", str(cert), "--tls-key", str(key)]


def _release(*words):
    return CliRunner().invoke(app, ["release", *words])


def test_a_release_over_tls(start, files, tmp_path):
    server = start()
    config = tmp_path / "models.config"
    config.write_text(_CONFIG)
    server.follow(config.read_text)
    # The certificate names the host, and the command connects to each of its addresses.
    where = ["--server", f"localhost:{server.port}", *_options(files)]

    done = [_release(*words, *where, "--config-file", str(config)) for words in (["promote", "13"], ["canary", "12"])]
    done += [_release("promote", *where, "--config-file", str(config))]
    done += [_release("rollback", *where, "--config-file", str(config))]
    status = _release("status", *where, "--model", "fcn8", "--json")

    assert [one.exit_code for one in (*done, status)] == [0] * 5
    assert server.labels == {"stable": 13, "canary": 13}


def test_a_certificate_may_name_an_address(start, files):
    server = start("numbers")
    server.start_with(_CONFIG)

    done = _release("status", "--server", server.address, "--model", "fcn8", *_options(files, ca="numbers"))

    assert done.exit_code == 0, done.exception


@pytest.mark.parametrize(("ca", "client"), [("stranger", "client"), ("server", "stranger")])
def test_mismatched_certificates_are_rejected(start, files, ca, client):
    server = start()
    server.start_with(_CONFIG)

    refused = _release(
        "status", "--server", f"localhost:{server.port}", "--model", "fcn8", *_options(files, ca, client)
    )

    assert isinstance(refused.exception, ReleaseError)
    assert "a model server there speaks TLS with these certificates" in str(refused.exception)


def test_a_certificate_of_another_host_is_refused(start, files):
    server = start("numbers")
    server.start_with(_CONFIG)

    where = ["--server", f"localhost:{server.port}", *_options(files, ca="numbers")]

    assert isinstance(_release("status", *where, "--model", "fcn8").exception, ReleaseError)


def test_plain_text_to_a_server_with_tls_is_explained(start):
    server = start()

    with pytest.raises(ReleaseError, match=r"speaks plain text \(for TLS, give --tls-ca\)"):
        ModelServer(server.address).versions("fcn8")


def test_a_missing_file_and_a_certificate_without_its_key_are_named(files, tmp_path):
    where = ["status", "--server", "localhost:1", "--model", "fcn8"]

    absent = _release(*where, "--tls-ca", str(tmp_path / "absent.pem"))
    alone = _release(*where, "--tls-cert", str(files["client"][0]))

    assert isinstance(absent.exception, UsageError)
    assert "absent.pem: found No such file" in str(absent.exception)
    assert isinstance(alone.exception, UsageError)
    assert "found a client certificate alone" in str(alone.exception)


def test_the_server_name_in_the_settings_overrides_the_address(start, files):
    server = start()
    server.start_with(_CONFIG)
    cert, key = map(str, files["client"])

    named = ModelServer(server.address, tls=Tls(str(files["server"][0]), cert, key, server_name="localhost"))

    assert named.versions("fcn8")[13].available
    named.close()
