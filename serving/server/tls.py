"""Reads the TLS credentials of the gRPC port from TensorFlow Serving's `SSLConfig` file."""

from __future__ import annotations

import concurrent.futures

import grpc

from components.errors import UsageError
from serving.server.text_protos import SSLConfig, read_text_proto

_FLAG = "--ssl_config_file"


def read_credentials(path: str) -> grpc.ServerCredentials:
    """Reads a text `SSLConfig` that contains keys and certificates as PEM text.

    With `client_verify`, clients need a certificate that `custom_ca` signed. Raises UsageError if the file cannot be
    read, a field is missing, or key and certificate do not match.
    """
    config = read_text_proto(_FLAG, path, SSLConfig())
    for field in ("server_key", "server_cert", "custom_ca")[: 3 if config.client_verify else 2]:
        if "-----BEGIN" not in getattr(config, field):
            raise UsageError(
                f"{_FLAG} {path}: found no PEM text in {field}, expected the {field} itself, not a file name"
            )
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    credentials = grpc.ssl_server_credentials(pairs, config.custom_ca.encode() or None, config.client_verify)
    # gRPC parses credentials only when it opens a port, with the same error as for a port in use. So try them first.
    trial = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    try:
        trial.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError:
        raise UsageError(
            f"{_FLAG} {path}: found a server_key, server_cert or custom_ca that TLS cannot use, expected complete PEM "
            "texts and a server_key that matches server_cert; check them with openssl x509 and openssl pkey"
        ) from None
    # gRPC frees the port only of a server that was started.
    trial.start()
    trial.stop(None).wait()
    return credentials
