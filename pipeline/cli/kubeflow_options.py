"""Options of several `segpipe kubeflow` commands: the API server, and the settings that are compiled in."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import UsageError
from pipeline.cli.options import Assignments, ChosenModel, Epochs, Preset, SettingsFile, Size
from pipeline.cli.printing import console

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.kubeflow.connection import Connection
    from pipeline.kubeflow.parameters import Layers

# Secrets stay out of command lines, which every process on a machine can read.
TOKEN_VARIABLE = "SEGPIPE_KUBEFLOW_TOKEN"
COOKIE_VARIABLE = "SEGPIPE_KUBEFLOW_COOKIE"

PipelineFile = Annotated[
    str, typer.Option("--pipeline", help="Pipeline that `segpipe kubeflow compile` wrote.", metavar="FILE")
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        help="Set a parameter of the pipeline, as epochs=20; repeatable.",
        metavar="NAME=VALUE",
        show_default="the compiled values",
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credentials:
    """The options of the connection to an API server, besides its address."""

    namespace: Annotated[str, typer.Option(help="Your profile's namespace, in multi-user installations.")] = ""
    token_file: Annotated[
        str,
        typer.Option(help=f"File with a bearer token; or set {TOKEN_VARIABLE} or {COOKIE_VARIABLE}.", metavar="FILE"),
    ] = ""
    ca: Annotated[
        str, typer.Option("--ca", help="PEM file of the CA certificates.", metavar="FILE", show_default="public ones")
    ] = ""

    def connection(self, host: str) -> Connection:
        """Returns how to reach an API server. Raises UsageError if the token file cannot be read."""
        from pipeline.kubeflow.connection import Connection

        token = os.environ.get(TOKEN_VARIABLE, "")
        if self.token_file:
            try:
                token = Path(self.token_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
                raise UsageError(
                    f"--token-file {self.token_file}: cannot be read ({reason}); expected a file with a bearer token"
                ) from None
        return Connection(host, self.namespace, token, os.environ.get(COOKIE_VARIABLE, ""), self.ca)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiServerOptions(Credentials):
    """The API server."""

    host: Annotated[
        str, typer.Option(help="Address of the API server, as http://localhost:8888.", envvar="KF_PIPELINES_ENDPOINT")
    ]

    def connect(self) -> Kubeflow:
        """Connects to the API server. Raises UsageError or SegpipeError if it cannot."""
        return connect(self.connection(self.host))


def connect(connection: Connection) -> Kubeflow:
    """Connects to an API server. Raises UsageError or SegpipeError if it cannot."""
    with console(stderr=True).status("connecting"):
        from pipeline.kubeflow.client import Kubeflow

        return Kubeflow(connection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledOptions:
    """The settings to compile into a pipeline, and the defaults of its parameters."""

    model: ChosenModel = None
    preset: Preset = "cpu"
    size: Size = None
    epochs: Epochs = None
    assignments: Assignments = None
    config: SettingsFile = None

    def read(self, data: str) -> tuple[Layers, dict[str, Any]]:
        """Returns the settings to compile in, and the parameters' default values. Raises UsageError."""
        from pipeline.kubeflow.parameters import compiled_in, defaults

        model, layers = compiled_in(self.model, self.config, self.assignments or [])
        return layers, defaults(data, model, self.preset, self.size, self.epochs)
