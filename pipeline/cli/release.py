"""`segpipe release`: canary, promote and roll back the versions of a served model, by version labels."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import typer

from components.errors import ReleaseError, UsageError
from pipeline.cli.lookup import load_serving_protocol
from pipeline.cli.options import AsJson, TlsOptions, with_options
from pipeline.cli.printing import console, print_json, table
from pipeline.cli.release_session import Servers, Session
from pipeline.cli.release_withdraw import withdraw
from serving.release import labels

app = typer.Typer(
    help="Canary, promote, roll back and withdraw the versions of a served model, by the labels stable and canary.",
    epilog="What is served is changed in --config-file or --configmap, which the servers follow, or, with "
    "--base-path, by sending the servers a new configuration.",
    no_args_is_help=True,
)


@app.command()
@with_options
def canary(
    session: Session,
    version: Annotated[int | None, typer.Argument(help="The version to put on trial.", show_default=False)] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="End the trial; canary leads to stable again.")] = False,
) -> None:
    """Load a version beside the stable one and label it canary."""
    if (version is None) != withdraw:
        raise UsageError("canary: expected either a VERSION to put on trial or --withdraw")
    if version is None:
        session.change(labels.withdraw_canary)
    else:
        session.change(functools.partial(labels.start_canary, version=version))


@app.command()
@with_options
def promote(
    session: Session,
    version: Annotated[int | None, typer.Argument(help="A loaded version.", show_default="the canary")] = None,
) -> None:
    """Make the canary, or a named version, stable; the one before stays loaded for a rollback."""
    session.change(functools.partial(labels.promote, version=version), must_be_available=True)


@app.command()
@with_options
def rollback(
    session: Session,
    why: Annotated[str, typer.Option(help="Record why the version is rolled back.")] = "rolled back",
) -> None:
    """Make the previous stable version stable again; unload and withdraw the one that was promoted."""
    session.change(labels.rollback, must_be_available=True, withdrawn_because=why)


app.command()(withdraw)


@app.command()
@with_options
def status(
    server: Servers,
    model: Annotated[str, typer.Option(help="Name of the model.")],
    as_json: AsJson = False,
    *,
    tls: TlsOptions,
) -> None:
    """Show the versions of a model on each server: their states, labels and errors."""
    load_serving_protocol()
    from serving.release.servers import Fleet

    rows: list[dict[str, Any]] = []
    with Fleet(server, tls.tls_settings()) as fleet:
        for one in fleet.servers:
            labelled = one.labels(model)
            rows += [
                {
                    "server": one.address,
                    "version": version,
                    "state": state.state,
                    "labels": [name for name, target in labelled.items() if target == version],
                    "error": state.error,
                }
                for version, state in sorted(one.versions(model).items())
            ]
    if not rows:
        raise ReleaseError(f"--model {model}: no server knows it; check the name against the servers' configuration")
    if as_json:
        print_json(rows)
        return
    shown = table(*rows[0], fold=["error"])
    for row in rows:
        shown.add_row(row["server"], str(row["version"]), row["state"], ", ".join(row["labels"]), row["error"])
    console().print(shown)
