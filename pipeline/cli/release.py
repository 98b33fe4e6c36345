"""`segpipe release`: canary, promote and roll back the versions of a served model, by version labels."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components import files
from components.errors import ReleaseError, SegpipeError, UsageError
from pipeline.cli.options import AsJson, TlsOptions, with_options
from pipeline.cli.printing import console, print_json, say, table
from pipeline.cli.release_withdraw import withdraw
from serving.release import labels
from serving.release.labels import CANARY, STABLE, Release, from_labels

if TYPE_CHECKING:
    from serving.release.records import Record
    from serving.release.servers import Fleet

app = typer.Typer(
    help="Canary, promote, roll back and withdraw the versions of a served model, by the labels stable and canary.",
    epilog="What is served is changed in --config-file or --configmap, which the servers follow, or, with "
    "--base-path, by sending the servers a new configuration.",
    no_args_is_help=True,
)

Servers = Annotated[
    list[str],
    typer.Option("--server", metavar="HOST:PORT", help="gRPC address of a model server; repeatable. Name every one."),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session(TlsOptions):
    """The model servers, and the place of their configuration: a file, a ConfigMap or the servers themselves."""

    server: Servers
    model: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the only one in the servers' configuration")
    ] = None
    config_file: Annotated[
        str | None, typer.Option(help="Change this file, the servers' --model_config_file.", metavar="FILE")
    ] = None
    configmap: Annotated[
        str | None, typer.Option(help="Change the ConfigMap that the servers mount.", metavar="NAMESPACE/NAME")
    ] = None
    base_path: Annotated[
        str | None,
        typer.Option(
            help="Make the servers serve --model alone, from this directory of versions as they see it.", metavar="DIR"
        ),
    ] = None
    versions: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Record moves of labels in this folder of the model's versions, on this machine or an object store.",
            show_default="the base path in the servers' configuration",
        ),
    ] = ""
    timeout: Annotated[float, typer.Option(help="Seconds for a version to load or a label to move.", min=0)] = 300.0
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration it would end in; change nothing.")
    ] = False

    def change(
        self,
        step: Callable[[Release | None], Release],
        must_be_available: bool = False,
        withdrawn_because: str = "",
    ) -> None:
        """Moves labels on all servers, records the moves and prints them.

        Args:
            step: returns the next release for the current one.
            must_be_available: whether the stable version must be loaded already.
            withdrawn_because: why the version that was stable is withdrawn; empty if it is not.

        Raises:
            UsageError: no place of the configuration is named, or several are.
            ReleaseError: a server or the release does not allow the step.
        """
        self._check()
        from serving.release.configuration import find_model, set_release, to_text
        from serving.release.rollout import require_available, roll_out
        from serving.release.servers import Fleet

        with Fleet(self.server, self.tls_settings()) as fleet:
            record = self._open_record(fleet)
            config = record.read()
            model = find_model(config, self.model)
            before = from_labels(model.version_labels)
            after = step(before)
            was = before.labels() if before else {}
            base = self.versions.rstrip("/") or model.base_path.rstrip("/")
            if files.is_remote(base) or os.path.isdir(base):
                _refuse_withdrawn(base, {after.labels()[label] for label in (STABLE, CANARY)} - set(was.values()))
            if must_be_available:
                require_available(fleet, model.name, after.stable, self.timeout)
            if self.dry_run:
                set_release(model, after)
                print(to_text(config), end="")
                return
            with console(stderr=True).status(f"waiting for {len(fleet.servers)} servers"):
                roll_out(record, config, fleet, model.name, after, self.timeout)
        moved = [
            f"{label} {version}" + (f" (was {was[label]})" if was.get(label, version) != version else "")
            for label, version in after.labels().items()
        ]
        say(f"{model.name}: {', '.join(moved)}")
        _record(base, was, after.labels(), withdrawn_because)

    def _check(self) -> None:
        given = sum(option is not None for option in (self.config_file, self.configmap, self.base_path))
        if given != 1:
            raise UsageError(
                f"found {given} of --config-file, --configmap and --base-path, expected one: where the served "
                "configuration is kept"
            )
        if self.base_path is not None and self.model is None:
            raise UsageError("--base-path: expected --model as well, because servers do not list their models")

    def _open_record(self, fleet: Fleet) -> Record:
        from serving.release.records import ConfigMapRecord, FileRecord, ServerRecord, cluster

        if self.config_file is not None:
            return FileRecord(self.config_file)
        if self.configmap is not None:
            return ConfigMapRecord(self.configmap, cluster())
        return ServerRecord(fleet, str(self.model), str(self.base_path))


@app.command()
@with_options
def canary(
    session: Session,
    version: Annotated[int | None, typer.Argument(help="The version to put on trial.", show_default=False)] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="End the trial; canary leads to stable again.")] = False,
) -> None:
    """Load a version beside the stable one and label it canary."""
    if (version is None) != withdraw:
        found = "neither" if version is None else "both"
        raise UsageError(f"release canary: found {found} of VERSION and --withdraw, expected one of them")
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


def _refuse_withdrawn(base: str, versions: Collection[int]) -> None:
    """Raises ReleaseError if one of the versions is withdrawn."""
    from components.pusher.withdrawn import read_withdrawn

    for version, withdrawal in read_withdrawn(base).items():
        if version in versions:
            raise ReleaseError(
                f"version {version}: found that it was withdrawn ({withdrawal.why}), expected one that was not. Name "
                f"another, or allow it first: segpipe release withdraw {version} --undo --versions {shlex.quote(base)}"
            )


def _record(base: str, before: Mapping[str, int], after: Mapping[str, int], withdrawn_because: str) -> None:
    """Records moves of labels, and withdraws a version that was rolled back; prints what cannot be recorded."""
    from components.pusher.moves import record_moves
    from components.pusher.withdrawn import withdraw

    try:
        if not files.is_remote(base) and not os.path.isdir(base):
            raise SegpipeError(f"{base}: found no such folder on this machine")
        record_moves(base, before, after)
        if withdrawn_because:
            withdraw(base, before[STABLE], withdrawn_because)
    except SegpipeError as error:
        say(f"The release is done, but not recorded beside the versions: {error}", stderr=True)
        if withdrawn_because:
            options = shlex.join([str(before[STABLE]), "--versions", base, "--why", withdrawn_because])
            say(f"Where that directory is, run: segpipe release withdraw {options}", stderr=True)
        else:
            say("Next time, name the directory of the versions as this machine sees it: --versions DIR", stderr=True)
