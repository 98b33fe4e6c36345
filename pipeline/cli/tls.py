"""The options of an encrypted connection to a model server, which several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.client import Tls

Encrypt = Annotated[bool, typer.Option("--tls", help="Encrypt the connection; implied by the three files.")]
CaFile = Annotated[
    str | None,
    typer.Option("--tls-ca", help="PEM file of the CA certificates that sign servers'; default: gRPC's own."),
]
CertFile = Annotated[str | None, typer.Option("--tls-cert", help="PEM file of the client's certificate.")]
KeyFile = Annotated[str | None, typer.Option("--tls-key", help="PEM file of the client's key.")]


def settings(tls: bool, ca: str | None, cert: str | None, key: str | None) -> Tls | None:
    """Returns the settings that the options stand for, or None for a plain connection."""
    from serving.client import Tls

    return Tls(ca, cert, key) if tls or ca or cert or key else None
