"""The model servers that a release talks to, over TensorFlow Serving's ModelService and GetModelMetadata."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterable
from types import TracebackType

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import ReleaseError, UsageError
from serving.client.proxies import proxy_options
from serving.client.settings import Tls

_State = get_model_status_pb2.ModelVersionStatus
# TensorFlow Serving's answers for a label it does not know, and for one whose version is not loaded.
_NO_SUCH_LABEL = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@dataclasses.dataclass(frozen=True)
class VersionState:
    """What a server says of a version.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why it failed to load; empty where it did not.
    """

    state: str
    error: str = ""

    @property
    def available(self) -> bool:
        """Whether the version answers requests."""
        return self.state == "AVAILABLE"


class ModelServer:
    """One server; a failed call raises ReleaseError with its address.

    Args:
        address: HOST:PORT of its gRPC port.
        timeout: seconds for one call.
        tls: None for a plain connection.
    """

    def __init__(self, address: str, timeout: float = 10.0, tls: Tls | None = None) -> None:
        self.address = address
        self._timeout = timeout
        self._tls = tls
        self._channel = _connect(address, tls)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def versions(self, model: str) -> dict[int, VersionState]:
        """Returns the state of every version that the server knows of; empty for a model it does not know."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self._models.GetModelStatus(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise self._failure("GetModelStatus", error) from None
        return {
            status.version: VersionState(_State.State.Name(status.state), status.status.error_message)
            for status in answer.model_version_status
        }

    def labelled(self, model: str, label: str) -> int | None:
        """Returns the version that answers to a label, or None where no loaded version does."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        request.model_spec.version_label = label
        try:
            answer = self._predictions.GetModelMetadata(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() in _NO_SUCH_LABEL:
                return None
            raise self._failure("GetModelMetadata", error) from None
        return answer.model_spec.version.value

    def reload(self, config: ModelServerConfig) -> None:
        """Makes the server serve this configuration, and nothing besides."""
        request = model_management_pb2.ReloadConfigRequest(config=config)
        try:
            answer = self._models.HandleReloadConfigRequest(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._failure("HandleReloadConfigRequest", error) from None
        if answer.status.error_code:
            raise ReleaseError(f"--server {self.address}: HandleReloadConfigRequest: {answer.status.error_message}")

    def _failure(self, call: str, error: grpc.RpcError) -> ReleaseError:
        expected = "speaks TLS with these certificates" if self._tls else "speaks plain text (for TLS, give --tls-ca)"
        if error.code() == grpc.StatusCode.PERMISSION_DENIED:
            advice = "The proxy in front of the server refuses the call; use --configmap or --config-file"
        else:
            advice = f"Check that this machine may reach the address, and that a model server there {expected}"
        return ReleaseError(
            f"--server {self.address}: {call} answered {error.code().name} ({error.details()}). {advice}"
        )


class Fleet:
    """The servers of one model, closed together.

    Args:
        addresses: HOST:PORT each; a name with several addresses, such as that of a headless Service,
            stands for the server behind each of them.
        tls: None for plain connections. A server behind a name shows a certificate of that name.
    """

    def __init__(self, addresses: Iterable[str], tls: Tls | None = None) -> None:
        found = {single: address for address in addresses for single in resolve(address)}
        self.servers = [ModelServer(single, tls=_named(tls, address)) for single, address in found.items()]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.close()


def resolve(address: str) -> list[str]:
    """Returns HOST:PORT of every server behind an address.

    A name keeps its IPv4 addresses where it has any, for the server may listen on those alone.

    Raises:
        UsageError: no port is given, or the name is not known.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--server {address}: expected HOST:PORT, such as localhost:8500")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--server {address}: {error.strerror}. Check the name, and where this command runs") from None
    by_family: dict[int, dict[str, None]] = {}
    for family, _, _, _, place in found:
        by_family.setdefault(family, {})[str(place[0])] = None
    hosts = by_family.get(socket.AF_INET) or {f"[{host}]": None for host in by_family[socket.AF_INET6]}
    return [f"{host}:{port}" for host in sorted(hosts)]


def _named(tls: Tls | None, address: str) -> Tls | None:
    """Returns the settings for a server behind an address, whose host the server's certificate must name."""
    if tls is None or tls.server_name is not None:
        return tls
    return dataclasses.replace(tls, server_name=address.rpartition(":")[0].strip("[]"))


def _connect(address: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address, proxy_options(address))
    name = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(address, tls.credentials(), [*proxy_options(address), *name])
