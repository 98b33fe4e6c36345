"""The client's settings: server, model and version, TLS, timeouts and sizes of requests."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Any

import grpc

from components.errors import UsageError
from serving.client.results import InstanceLimits

_MIB = 1 << 20
_SCHEME = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:)", re.IGNORECASE)
_PORT = re.compile(r":\d*$")


@dataclasses.dataclass(frozen=True)
class Tls:
    """TLS settings of a connection.

    Attributes:
        ca_file: PEM file of CA certificates to verify the server with; None for gRPC's own.
        cert_file: PEM file of the client's certificate, if the server requires one.
        key_file: PEM file of the client's key; required with `cert_file`.
        server_name: the name in the server's certificate, if it is not the host in the address.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises UsageError if one cannot be read, or a certificate has no key or the reverse."""
        if (self.cert_file is None) != (self.key_file is None):
            alone = "certificate" if self.cert_file else "key"
            raise UsageError(f"TLS: found a client {alone} alone, expected a certificate and its key. Set both files")
        return grpc.ssl_channel_credentials(*(_read(file) for file in (self.ca_file, self.key_file, self.cert_file)))


@dataclasses.dataclass(frozen=True)
class ClientSettings:
    """Settings of a client.

    Attributes:
        target: HOST:PORT, or a gRPC name such as `dns:///host:port`; requests rotate over all addresses of a name.
        model: name of the served model.
        version: version of the model; None for the server's default, the newest.
        label: label of the version, such as "stable"; excludes `version`.
        tls: None for an unencrypted connection.
        deadline: seconds for one call, including retries.
        batch_size: largest number of images in a request.
        concurrency: largest number of parallel requests for many images.
        max_message_bytes: largest request and response; must not exceed the server's limit.
        score_threshold: for instance models: return only instances with a higher score, 0 to 1; None for the model's
            `model.min_score`.
        max_instances: for instance models: largest number of instances per image; None for the model's
            `model.max_instances`.
    """

    target: str
    model: str = "default"
    version: int | None = None
    label: str | None = None
    tls: Tls | None = None
    deadline: float = 60.0
    batch_size: int = 8
    concurrency: int = 2
    max_message_bytes: int = 64 * _MIB
    score_threshold: float | None = None
    max_instances: int | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise UsageError(
                f"model {self.model}: found version {self.version} and label {self.label}, expected at most one of them"
            )
        for name in ("deadline", "batch_size", "concurrency", "max_message_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected more than 0")
        _ = self.limits  # checks them

    @property
    def limits(self) -> InstanceLimits:
        """The limits on instances."""
        return InstanceLimits(self.score_threshold, self.max_instances)

    @property
    def wanted(self) -> str:
        """The model, with its version or label, for messages."""
        pinned = f" version {self.version}" if self.version is not None else ""
        return f"model {self.model}{pinned or (f' label {self.label}' if self.label is not None else '')}"

    def open_channel(self, module: Any = grpc) -> Any:
        """Opens a channel of `grpc`, or of `grpc.aio`. Raises UsageError if a TLS file cannot be read."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.lb_policy_name", "round_robin"),
            # By default, gRPC waits up to two minutes between connections; servers restart faster.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            *proxy_options(self.target),
        ]
        if self.tls is None:
            return module.insecure_channel(self.target, options)
        if self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return module.secure_channel(self.target, self.tls.credentials(), options)


def proxy_options(target: str) -> list[tuple[str, int]]:
    """Returns the channel options that disable the proxy if the target is on this machine.

    Unless `no_proxy` lists it, gRPC sends even 127.0.0.1 to the proxy of `http_proxy`, where it is another machine. The
    target is HOST:PORT, or a gRPC name such as `dns:///HOST:PORT`.
    """
    return [("grpc.enable_http_proxy", 0)] if _is_loopback(_SCHEME.sub("", target, count=1)) else []


def _is_loopback(address: str) -> bool:
    host = _PORT.sub("", address).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read(file: str | None) -> bytes | None:
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"TLS: {file}: found {error.strerror}, expected a readable PEM file") from None
