"""TLS and client certificates from an SSLConfig file, with generated certificates."""

import datetime
import ipaddress
import os
import pathlib
import socket

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from toy_models import Channel, push, serving

from components.errors import UsageError
from serving.server.configuration import read_credentials

_X = {"x": np.ones((1, 2), np.float32)}


class _Authority:
    """A certificate authority of one test."""

    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = _pem(self._sign(self._name, self._key.public_key(), is_authority=True))

    def issue(self, name):
        """Returns key and certificate, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return private, _pem(self._sign(subject, key.public_key(), is_authority=False))

    def _sign(self, subject, public_key, is_authority):
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _first_half(pem):
    lines = pem.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


def _field(name, pem):
    lines = "".join(f'"{line}\\n"\n' for line in pem.decode().splitlines())
    return f"{name}: {lines}"


@pytest.fixture(scope="module")
def authority():
    return _Authority("authority")


def _config(path, authority, more=""):
    key, certificate = authority.issue("localhost")
    path.write_text(_field("server_key", key) + _field("server_cert", certificate) + more)
    return path


def test_tls_server_is_verified_by_its_ca_and_rejects_plain_text(toys, tmp_path, authority):
    push(toys, tmp_path, 1)
    config = _config(tmp_path / "ssl.config", authority)
    with serving(model_base_path=tmp_path, ssl_config_file=config) as server:
        trusted = Channel(server.port, grpc.ssl_channel_credentials(authority.certificate))
        stranger = Channel(server.port, grpc.ssl_channel_credentials(_Authority("other").certificate))

        assert trusted.predict(_X).model_spec.version.value == 1
        assert stranger.refusal(_X, timeout=5)[0] == grpc.StatusCode.UNAVAILABLE
        assert Channel(server.port).refusal(_X, timeout=5)[0] == grpc.StatusCode.UNAVAILABLE


def test_only_clients_with_a_certificate_of_the_ca_can_connect(toys, tmp_path, authority):
    push(toys, tmp_path, 1)
    more = _field("custom_ca", authority.certificate) + "client_verify: true\n"
    config = _config(tmp_path / "ssl.config", authority, more)
    with serving(model_base_path=tmp_path, ssl_config_file=config) as server:
        member = Channel(server.port, grpc.ssl_channel_credentials(authority.certificate, *authority.issue("client")))
        forged = Channel(
            server.port, grpc.ssl_channel_credentials(authority.certificate, *_Authority("other").issue("client"))
        )
        nameless = Channel(server.port, grpc.ssl_channel_credentials(authority.certificate))

        assert member.predict(_X).model_spec.version.value == 1
        assert forged.refusal(_X, timeout=5)[0] == grpc.StatusCode.UNAVAILABLE
        assert nameless.refusal(_X, timeout=5)[0] == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "field"),
    [('server_key: "server.key"', "server_key"), ('server_key: "-----BEGIN KEY-----"', "server_cert")],
)
def test_config_without_pem_text_is_a_usage_error(tmp_path, text, field):
    (tmp_path / "ssl.config").write_text(text)

    with pytest.raises(UsageError, match=f"no PEM text in {field}"):
        read_credentials(str(tmp_path / "ssl.config"))


def test_trying_a_certificate_leaves_no_port_open(tmp_path, authority):
    key, certificate = authority.issue("localhost")
    (tmp_path / "ssl.config").write_text(_field("server_key", key) + _field("server_cert", certificate))
    before = _listening()

    read_credentials(str(tmp_path / "ssl.config"))

    assert _listening() <= before


def _listening():
    """Returns the inodes of this process's listening sockets."""
    tables = (pathlib.Path("/proc/self/net", name) for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    ours = {os.path.basename(os.path.realpath(entry)) for entry in os.scandir("/proc/self/fd")}
    return {row[9] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in ours}


@pytest.mark.parametrize("issue", ["another key", "short key", "short certificate", "short authority"])
def test_mismatched_keys_are_not_reported_as_a_port_in_use(toys, tmp_path, authority, issue):
    push(toys, tmp_path, 1)
    key, certificate = authority.issue("localhost")
    custom = authority.certificate
    if issue == "another key":
        key, _ = authority.issue("localhost")
    elif issue == "short key":
        key = _first_half(key)
    elif issue == "short certificate":
        certificate = _first_half(certificate)
    else:
        custom = _first_half(custom)
    config = tmp_path / "ssl.config"
    fields = {"server_key": key, "server_cert": certificate, "custom_ca": custom}
    config.write_text("".join(_field(name, pem) for name, pem in fields.items()) + "client_verify: true\n")

    with (
        pytest.raises(UsageError, match=f"--ssl_config_file {config}: found a server_key, server_cert or custom_ca"),
        serving(model_base_path=tmp_path, ssl_config_file=config),
    ):
        pass


def test_a_port_in_use_is_named_with_tls(toys, tmp_path, authority):
    push(toys, tmp_path, 1)
    config = _config(tmp_path / "ssl.config", authority)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match=f"--port {taken.getsockname()[1]}: could not listen"),
        serving(model_base_path=tmp_path, ssl_config_file=config, host="127.0.0.1", port=taken.getsockname()[1]),
    ):
        pass
