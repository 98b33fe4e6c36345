"""The client over TLS: certificates of both sides, and the errors if they do not match."""

from pathlib import Path

import grpc
import pytest
from self_signed import issue
from toy_servicer import picture, serving

from components.errors import UsageError
from serving.client import Client, Retries, ServerUnavailableError, Tls

_QUICK = Retries(attempts=4, first_pause=0.01)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """PEM files of a self-signed certificate for localhost and of its key."""
    return tuple(map(str, issue(tmp_path_factory.mktemp("certificates") / "localhost")))


@pytest.fixture
def secure_server(toy, certificates):
    """A server with a certificate that requires one from its clients."""
    cert, key = (Path(file).read_bytes() for file in certificates)
    with serving(toy, grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)) as address:
        yield address


def test_tls_with_client_certificates(secure_server, certificates):
    cert, key = certificates

    with Client(secure_server, model="toy", tls=Tls(ca_file=cert, cert_file=cert, key_file=key)) as client:
        assert client.segment(picture(250)).version == 3


@pytest.mark.parametrize("with_ca", [True, False], ids=["no client certificate", "no TLS"])
def test_a_server_that_requires_other_certificates_rejects_the_client(secure_server, certificates, with_ca):
    tls = Tls(ca_file=certificates[0]) if with_ca else None

    with Client(secure_server, model="toy", tls=tls, retries=_QUICK) as client, pytest.raises(ServerUnavailableError):
        client.segment(picture(250))


@pytest.mark.parametrize(
    ("tls", "message"),
    [(Tls(cert_file="cert.pem"), "found a client certificate alone"), (Tls(ca_file="absent.pem"), "absent.pem: found")],
)
def test_tls_files_are_checked(tls, message):
    with pytest.raises(UsageError, match=message):
        Client("localhost:1", tls=tls)
