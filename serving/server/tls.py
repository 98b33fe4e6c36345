"""TLS for the gRPC port, from TensorFlow Serving's `SSLConfig` file: the server's key, and who may connect."""

from __future__ import annotations

import concurrent.futures

import grpc

from components.errors import UsageError
from serving.server.text_protos import SSLConfig, read_text_proto

_FLAG = "--ssl_config_file"


def read_credentials(path: str) -> grpc.ServerCredentials:
    """Reads a text `SSLConfig` with the PEM text of keys and certificates inside.

    With `client_verify`, only clients whose certificate `custom_ca` signed may connect.

    Raises:
        UsageError: the file cannot be read, a field is missing, or the fields do not belong together.
    """
    config = read_text_proto(_FLAG, path, SSLConfig())
    for field in ("server_key", "server_cert", "custom_ca")[: 3 if config.client_verify else 2]:
        if "-----BEGIN" not in getattr(config, field):
            raise UsageError(
                f"{_FLAG} {path}: found no PEM text in {field}, expected the {field} itself, not its file's name"
            )
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    credentials = grpc.ssl_server_credentials(pairs, config.custom_ca.encode() or None, config.client_verify)
    # gRPC reads credentials no sooner than it opens a port, and then does not say which of the two was wrong.
    trial = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    try:
        trial.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError:
        raise UsageError(
            f"{_FLAG} {path}: found a server_key, server_cert or custom_ca that TLS cannot use, expected whole PEM "
            "texts and a server_key that belongs to server_cert; openssl x509 and openssl pkey show what each is"
        ) from None
    # A server that was never started keeps its port.
    trial.start()
    trial.stop(None).wait()
    return credentials
