"""Groups of options that several commands share."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated

import typer
from typer.testing import CliRunner

from pipeline.cli.options import with_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection:
    secure: Annotated[bool, typer.Option("--secure")] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server(Connection):
    host: Annotated[str, typer.Option(help="Address.")]
    port: int = 80


@with_options
def ask(question: str, server: Server, loud: bool = False) -> None:
    """Ask a server."""
    print(question, server, loud)


def test_a_command_has_the_options_of_a_dataclass_in_its_place_inherited_ones_last():
    assert list(inspect.signature(ask).parameters) == ["question", "host", "port", "secure", "loud"]


def test_a_command_gets_the_dataclass():
    app = typer.Typer()
    app.command()(ask)

    done = CliRunner().invoke(app, ["why", "--host", "h", "--secure", "--loud"])

    assert done.output.strip() == "why Server(secure=True, host='h', port=80) True"
    assert "Missing option '--host'" in CliRunner().invoke(app, ["why"]).output
