"""Where the model is, which version is wanted, how the connection is secured, and how much is sent at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import grpc

from components.errors import UsageError
from serving.client.proxies import proxy_options
from serving.client.results import InstanceLimits

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Tls:
    """A connection that is encrypted and whose server is checked.

    Attributes:
        ca_file: PEM file of the authorities that may sign the server's certificate; None for gRPC's own.
        cert_file: PEM file of the client's certificate, where the server asks for one.
        key_file: PEM file of the client's key; goes with `cert_file`.
        server_name: the name in the server's certificate, where it is not the one in the address.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises UsageError where one is missing or a certificate comes without its key."""
        if (self.cert_file is None) != (self.key_file is None):
            alone = "certificate" if self.cert_file else "key"
            raise UsageError(f"TLS: found a client {alone} alone, expected a certificate and its key. Give both files")
        return grpc.ssl_channel_credentials(*(_read(file) for file in (self.ca_file, self.key_file, self.cert_file)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a client talks to a server.

    Attributes:
        target: HOST:PORT, or a name of gRPC's such as `dns:///host:port`; several addresses behind a name take turns.
        model: name of the served model.
        version: the version that must answer; None for the server's choice, the newest.
        label: the label of the version that must answer, such as "stable"; not together with `version`.
        tls: None for a plain connection.
        deadline: seconds for one question, retries included.
        batch_size: most images in one request.
        concurrency: most requests at a time while many images are under way.
        max_message_bytes: largest request sent and largest answer taken; keep it below the server's limit.
        score_threshold: of a model of instances: find those with a higher score alone, 0 to 1; None for the model's own
            `model.min_score`.
        max_instances: likewise: find at most this many in an image; None for the model's own `model.max_instances`.
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
                f"model {self.model}: found version {self.version} and label {self.label}, expected at most one. "
                "Pin one of them"
            )
        for name in ("deadline", "batch_size", "concurrency", "max_message_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected more than 0")
        _ = self.limits  # which checks them

    @property
    def limits(self) -> InstanceLimits:
        """Which instances are wanted."""
        return InstanceLimits(self.score_threshold, self.max_instances)

    @property
    def wanted(self) -> str:
        """The model that must answer, in words."""
        pinned = f" version {self.version}" if self.version is not None else ""
        return f"model {self.model}{pinned or (f' label {self.label}' if self.label is not None else '')}"

    def channel_options(self) -> list[tuple[str, Any]]:
        """Returns gRPC's options for the channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.lb_policy_name", "round_robin"),
            # gRPC's own pauses between connections reach two minutes; a server that restarts is back sooner.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            *proxy_options(self.target),
        ]
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def _read(file: str | None) -> bytes | None:
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"TLS: {file}: found {error.strerror}, expected a readable PEM file") from None
