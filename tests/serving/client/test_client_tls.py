"""The client over TLS: certificates of both sides, and what is said where they do not agree."""

import datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from toy_servicer import picture, serving

from components.errors import UsageError
from serving.client import Client, Retries, ServerUnavailableError, Tls

_QUICK = Retries(attempts=4, first_pause=0.01)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """PEM files of a certificate for localhost that signs itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificates")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture
def secure_server(toy, certificates):
    """A server that shows a certificate and asks for one."""
    cert, key = (Path(file).read_bytes() for file in certificates)
    with serving(toy, grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)) as address:
        yield address


def test_tls_with_client_certificates(secure_server, certificates):
    cert, key = certificates

    with Client(secure_server, model="toy", tls=Tls(ca_file=cert, cert_file=cert, key_file=key)) as client:
        assert client.segment(picture(250)).version == 3


@pytest.mark.parametrize("with_ca", [True, False], ids=["no client certificate", "no TLS"])
def test_a_server_that_asks_for_more_refuses(secure_server, certificates, with_ca):
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
