"""The model servers of a release, over TensorFlow Serving's ModelService and GetModelMetadata, without TensorFlow."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterable
from typing import Any

import grpc
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import ReleaseError, UsageError
from serving.client import protocol
from serving.client.protocol import MESSAGES
from serving.client.results import VersionStatus
from serving.client.settings import ClientSettings, Tls
from serving.release.labels import CANARY, PREVIOUS, STABLE

# TensorFlow Serving's answers for an unknown label, and for one whose version is not loaded.
_NO_SUCH_LABEL = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


class ModelServer:
    """One server. A failed call raises ReleaseError with its address.

    Args:
        address: HOST:PORT of its gRPC port.
        timeout: seconds for one call.
        tls: None for an unencrypted connection.
    """

    def __init__(self, address: str, timeout: float = 10.0, tls: Tls | None = None) -> None:
        self.address = address
        self._timeout = timeout
        self._tls = tls
        self._channel = ClientSettings(address, tls=tls).open_channel()
        self._calls = protocol.methods(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def versions(self, model: str) -> dict[int, VersionStatus]:
        """Returns the versions that the server knows, by number; empty for an unknown model."""
        request = MESSAGES["GetModelStatusRequest"](model_spec={"name": model})
        response = self._call(protocol.GET_MODEL_STATUS, request, {grpc.StatusCode.NOT_FOUND})
        statuses = response.model_version_status if response is not None else ()
        return {status.version: VersionStatus.from_proto(status) for status in statuses}

    def labels(self, model: str) -> dict[str, int]:
        """Returns the loaded version behind each of the labels stable, canary and previous."""
        labels = {}
        for label in (STABLE, CANARY, PREVIOUS):
            spec = {"name": model, "version_label": label}
            request = MESSAGES["GetModelMetadataRequest"](model_spec=spec, metadata_field=["signature_def"])
            response = self._call(protocol.GET_MODEL_METADATA, request, _NO_SUCH_LABEL)
            if response is not None:
                labels[label] = response.model_spec.version.value
        return labels

    def reload(self, config: ModelServerConfig) -> None:
        """Replaces the server's configuration, including all other models."""
        request = MESSAGES["ReloadConfigRequest"](config=config.SerializeToString())
        response = self._call(protocol.RELOAD_CONFIG, request)
        if response.status.error_code:
            raise ReleaseError(f"--server {self.address}: HandleReloadConfigRequest: {response.status.error_message}")

    def _call(self, method: str, request: Any, absent: Iterable[grpc.StatusCode] = ()) -> Any:
        """Calls a method; returns None for a status in `absent`. Raises ReleaseError for any other error."""
        try:
            return self._calls[method](request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() in absent:
                return None
            name = type(request).__name__.removesuffix("Request")
            expected = (
                "speaks TLS with these certificates" if self._tls else "speaks plain text (for TLS, give --tls-ca)"
            )
            if error.code() == grpc.StatusCode.PERMISSION_DENIED:
                advice = "A proxy in front of the server rejects the call; use --configmap or --config-file"
            else:
                advice = f"Check that this machine can reach the address, and that a model server there {expected}"
            raise ReleaseError(
                f"--server {self.address}: {name} answered {error.code().name} ({error.details()}). {advice}"
            ) from None


class Fleet:
    """The servers of one model, as a context manager that closes their connections.

    Args:
        addresses: HOST:PORT each. A host name with several addresses, such as a headless Service, stands for one
            server at each address.
        tls: None for unencrypted connections. Servers behind a host name need a certificate for that name.
    """

    def __init__(self, addresses: Iterable[str], tls: Tls | None = None) -> None:
        hosts = {single: address for address in addresses for single in resolve(address)}
        self.servers = [ModelServer(single, tls=_with_server_name(tls, address)) for single, address in hosts.items()]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.close()


def resolve(address: str) -> list[str]:
    """Returns HOST:PORT of every server behind an address. Raises UsageError without a port or for an unknown host.

    Prefers IPv4 addresses, because a server may listen on them only.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--server {address}: expected HOST:PORT, such as localhost:8500")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--server {address}: {error.strerror}. Check the host name and this machine's DNS") from None
    ipv4 = {str(place[0]) for family, _, _, _, place in found if family == socket.AF_INET}
    hosts = ipv4 or {f"[{place[0]}]" for _, _, _, _, place in found}
    return [f"{host}:{port}" for host in sorted(hosts)]


def _with_server_name(tls: Tls | None, address: str) -> Tls | None:
    """Returns the TLS settings with the host of an address as the expected name in the server's certificate."""
    if tls is None or tls.server_name is not None:
        return tls
    return dataclasses.replace(tls, server_name=address.rpartition(":")[0].strip("[]"))
