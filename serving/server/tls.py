"""TLS for the gRPC port, from TensorFlow Serving's `SSLConfig` file: the server's key, and who may connect."""

from __future__ import annotations

import concurrent.futures

import grpc

from components.errors import UsageError
from serving.server.text_protos import SSLConfig, read_text_proto

_FLAG = "--ssl_config_file"


def read_credentials(path: str) -> grpc.ServerCredentials:
    """Reads keys and certificates, PEM text inside the file.

    Args:
        path: a text `SSLConfig`. With `client_verify`, only clients whose certificate `custom_ca` signed may connect.

    Raises:
        UsageError: the file cannot be read, a field is missing, or the fields do not belong together.
    """
    config = read_text_proto(_FLAG, path, SSLConfig())
    needed = ["server_key", "server_cert", *(["custom_ca"] if config.client_verify else [])]
    for field in needed:
        if "-----BEGIN" not in getattr(config, field):
            raise UsageError(
                f"{_FLAG} {path}: found no PEM text in {field}, expected the {field} itself, not its file's name"
            )
    credentials = grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
    if not _is_usable(credentials):
        raise UsageError(
            f"{_FLAG} {path}: found a server_key, server_cert or custom_ca that TLS cannot use, expected whole PEM "
            "texts and a server_key that belongs to server_cert; openssl x509 and openssl pkey show what each is"
        )
    return credentials


def _is_usable(credentials: grpc.ServerCredentials) -> bool:
    """Tells whether a server takes credentials: gRPC looks into them no sooner, and then says no more of the cause."""
    trial = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    try:
        trial.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError:
        return False
    # A server that was never started keeps its port.
    trial.start()
    trial.stop(None).wait()
    return True
