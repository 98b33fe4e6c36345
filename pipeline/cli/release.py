"""`segpipe release`: canary, promote and roll back the versions of a served model, by version labels.

The servers are asked before anything moves; what they serve is kept in a file, a ConfigMap or themselves.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components import files
from components.errors import ReleaseError, SegpipeError, UsageError
from pipeline.cli import lookup
from pipeline.cli import tls as tls_options
from serving.release.labels import CANARY, PREVIOUS, STABLE

if TYPE_CHECKING:
    from pipeline.history.served import ServedModels
    from serving.client import Tls
    from serving.release.labels import Release
    from serving.release.records import Record
    from serving.release.servers import Fleet

app = typer.Typer(
    help="Canary, promote, roll back and withdraw the versions of a served model, by the labels stable and canary.",
    epilog="What is served is changed in --config-file or --configmap, which the servers follow, or, with "
    "--base-path, by sending the servers a new configuration.",
    no_args_is_help=True,
)

_Servers = Annotated[
    list[str],
    typer.Option("--server", metavar="HOST:PORT", help="gRPC address of a model server; repeatable. Name every one."),
]
_Model = Annotated[str | None, typer.Option(help="Name of the model; not needed where only one is configured.")]
_ConfigFile = Annotated[str | None, typer.Option(help="The file that the servers take as --model_config_file.")]
_ConfigMap = Annotated[
    str | None, typer.Option("--configmap", metavar="NAMESPACE/NAME", help="The ConfigMap that the servers mount.")
]
_BasePath = Annotated[
    str | None,
    typer.Option(help="Directory of the model's versions as the servers see it. They then serve this model alone."),
]
_Versions = Annotated[
    str,
    typer.Option(
        "--versions",
        metavar="DIR",
        help="Directory of the model's versions as this machine sees it, local or on an object store, where moves of "
        "labels are recorded; default: the base path in the servers' configuration.",
    ),
]
_Timeout = Annotated[float, typer.Option(help="Seconds for a version to load, and for a label to move.", min=0)]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the configuration it would end in; change nothing.")]


@app.command()
def canary(
    server: _Servers,
    version: Annotated[int | None, typer.Argument(help="The version to put on trial.", show_default=False)] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="End the trial; canary leads to stable again.")] = False,
    model: _Model = None,
    config_file: _ConfigFile = None,
    configmap: _ConfigMap = None,
    base_path: _BasePath = None,
    versions: _Versions = "",
    timeout: _Timeout = 300.0,
    dry_run: _DryRun = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Load a version beside the stable one and label it canary."""
    if (version is None) != withdraw:
        raise UsageError("canary: expected either a VERSION to put on trial or --withdraw")

    def step(release: Release | None) -> Release:
        from serving.release.labels import start_canary, withdraw_canary

        return withdraw_canary(release) if version is None else start_canary(release, version)

    connection = tls_options.settings(tls, tls_ca, tls_cert, tls_key)
    with _session(server, model, config_file, configmap, base_path, versions, connection) as session:
        session.change(step, timeout, dry_run)


@app.command()
def promote(
    server: _Servers,
    version: Annotated[int | None, typer.Argument(help="A loaded version; default: the canary.")] = None,
    model: _Model = None,
    config_file: _ConfigFile = None,
    configmap: _ConfigMap = None,
    base_path: _BasePath = None,
    versions: _Versions = "",
    timeout: _Timeout = 300.0,
    dry_run: _DryRun = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Make the canary, or a version named, stable; the one before stays loaded for a rollback."""

    def step(release: Release | None) -> Release:
        from serving.release import labels

        return labels.promote(release, version)

    connection = tls_options.settings(tls, tls_ca, tls_cert, tls_key)
    with _session(server, model, config_file, configmap, base_path, versions, connection) as session:
        session.change(step, timeout, dry_run, must_be_available=True)


@app.command()
def rollback(
    server: _Servers,
    why: Annotated[str, typer.Option(help="Why the version is rolled back, for the record.")] = "rolled back",
    model: _Model = None,
    config_file: _ConfigFile = None,
    configmap: _ConfigMap = None,
    base_path: _BasePath = None,
    versions: _Versions = "",
    timeout: _Timeout = 300.0,
    dry_run: _DryRun = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Make the version that was stable before stable again; unload and withdraw the one that was promoted."""

    def step(release: Release | None) -> Release:
        from serving.release import labels

        return labels.rollback(release)

    connection = tls_options.settings(tls, tls_ca, tls_cert, tls_key)
    with _session(server, model, config_file, configmap, base_path, versions, connection) as session:
        session.change(step, timeout, dry_run, must_be_available=True, withdrawn_because=why)


@app.command()
def withdraw(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    why: Annotated[str, typer.Option(help="The reason, for those who look the version up.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the version out of the record again.")] = False,
    versions: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Directory of the model's versions, local or on an object store; default: the one below work/serving "
            "that has the version.",
        ),
    ] = "",
    config_file: lookup.ConfigFile = "",
    configmap: lookup.ConfigMap = "",
    server: lookup.Servers = None,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Withdraw a version: it is no longer a baseline or a warm start, and is not pushed again.

    Its files stay. A version that is stable, on trial or loaded is refused. Where labels lead is read from the servers
    or their configuration; without these options, from the record of releases beside the versions.
    """
    from components.pusher import withdrawn
    from components.stored_folder import explained

    if bool(why) == undo:
        raise UsageError("withdraw: expected either --why TEXT or --undo")
    base = versions.rstrip("/") or _versions_of(version)
    with explained(base):
        if not files.list_names(base):
            raise UsageError(f"--versions {base}: found nothing there, expected a model's versions. Check the path")
    say = Console(highlight=False, soft_wrap=True, markup=False).print
    if undo:
        withdrawn.restore(base, version)
        say(f"version {version} of {base} is no longer withdrawn")
        return
    served = lookup.served_models(config_file, configmap, server, tls_options.settings(tls, tls_ca, tls_cert, tls_key))
    _refuse_served(served, files.join(base, str(version)), bool(config_file or configmap or server))
    withdrawn.withdraw(base, version, why)
    say(f"version {version} of {base} is withdrawn")
    states = [state.state for state in served.states(files.join(base, str(version)))]
    if "removed" in states:
        say("Note: it is not in that directory. If the number is wrong, run the same command with --undo")
    if "latest" in states:
        say("Note: servers without labels serve the newest version, which it is. Promote or push another version")


@app.command()
def status(
    server: _Servers,
    model: Annotated[str, typer.Option(help="Name of the model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Show the versions of a model on each server: their states, labels and errors."""
    _load_protocol()
    from serving.release.servers import Fleet

    rows: list[dict[str, Any]] = []
    with Fleet(server, tls_options.settings(tls, tls_ca, tls_cert, tls_key)) as fleet:
        for one in fleet.servers:
            labels = {label: one.labelled(model, label) for label in (STABLE, CANARY, PREVIOUS)}
            for version, state in sorted(one.versions(model).items()):
                named = [label for label, target in labels.items() if target == version]
                rows.append(
                    {
                        "server": one.address,
                        "version": version,
                        "state": state.state,
                        "labels": named,
                        "error": state.error,
                    }
                )
    if not rows:
        raise ReleaseError(f"--model {model}: no server knows it; check the name against the servers' configuration")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("server", "version", "state", "labels", "error"):
        table.add_column(column, no_wrap=column != "error")
    for row in rows:
        table.add_row(row["server"], str(row["version"]), row["state"], ", ".join(row["labels"]), row["error"])
    Console(highlight=False).print(table)


def _versions_of(version: int) -> str:
    """Returns the directory below work/serving that holds a version. Raises UsageError if none or several do."""
    found = [os.path.dirname(path) for path in glob.glob(f"work/serving/*/{version}")]
    if len(found) != 1:
        raise UsageError(
            f"withdraw {version}: found it in {len(found)} directories below work/serving, expected one. Name the "
            "directory of the model's versions: --versions DIR"
        )
    return found[0]


def _refuse_served(served: ServedModels, version: str, told: bool) -> None:
    """Raises ReleaseError if a version is served.

    Args:
        served: tells how versions are served.
        version: the version's directory.
        told: whether the servers or their configuration say so; or else, the newest version may be served or not.
    """
    if told:
        lookup.check_served(served, [version])
    kinds = ("stable", "canary", "loaded", *(["latest"] if told else []))
    found = [state.state for state in served.states(version) if state.state in kinds]
    if found == ["canary"]:
        raise ReleaseError(
            f"withdraw {version}: found it on trial, expected no trial. End it first: segpipe release canary --withdraw"
        )
    if found:
        raise ReleaseError(
            f"withdraw {version}: found it served ({', '.join(found)}), expected another version in its place. "
            "Roll back, which withdraws it too: segpipe release rollback. Or make another stable first: "
            "segpipe release canary VERSION, then segpipe release promote"
        )


class _Session:
    """The record and the servers of one command."""

    def __init__(self, record: Record, fleet: Fleet, model: str | None, versions: str) -> None:
        self._record = record
        self._fleet = fleet
        self._model = model
        self._versions = versions.rstrip("/")

    def change(
        self,
        step: Callable[[Release | None], Release],
        timeout: float,
        dry_run: bool,
        must_be_available: bool = False,
        withdrawn_because: str = "",
    ) -> None:
        """Takes a step from the release there is to the next, records it, and says what came of it.

        Args:
            step: returns the next release.
            timeout: seconds for a version to load, and for a label to move.
            dry_run: whether to print the configuration alone.
            must_be_available: whether the stable version must be loaded already.
            withdrawn_because: why the version that was stable is withdrawn; empty if it is not.
        """
        from serving.release.configuration import find_model, release_of, set_release, to_text
        from serving.release.rollout import Patience, require_available, roll_out

        config = self._record.read()
        model = find_model(config, self._model)
        before, after = release_of(model), step(release_of(model))
        was = before.labels() if before else {}
        base = self._versions or model.base_path.rstrip("/")
        if files.is_remote(base) or os.path.isdir(base):
            _refuse_withdrawn(base, {after.labels()[label] for label in (STABLE, CANARY)} - set(was.values()))
        if must_be_available:
            require_available(self._fleet, model.name, after.stable, Patience(timeout))
        if dry_run:
            set_release(model, after)
            print(to_text(config), end="")
            return
        with Console(stderr=True).status(f"waiting for {len(self._fleet.servers)} servers"):
            roll_out(self._record, config, self._fleet, model.name, after, Patience(timeout))
        moved = [
            f"{label} {version}" + (f" (was {was[label]})" if was.get(label, version) != version else "")
            for label, version in after.labels().items()
        ]
        Console(highlight=False, soft_wrap=True).print(f"{model.name}: {', '.join(moved)}")
        _record(base, was, after.labels(), withdrawn_because)


def _refuse_withdrawn(base: str, versions: Collection[int]) -> None:
    """Raises ReleaseError if one of some versions, which labels would lead to, is withdrawn."""
    from components.pusher.withdrawn import read_withdrawn

    for version, withdrawal in read_withdrawn(base).items():
        if version in versions:
            raise ReleaseError(
                f"version {version}: found that it was withdrawn ({withdrawal.why}), expected one that was not. Name "
                f"another, or allow it first: segpipe release withdraw {version} --undo --versions {shlex.quote(base)}"
            )


def _record(base: str, before: Mapping[str, int], after: Mapping[str, int], withdrawn_because: str) -> None:
    """Records moves of labels, and a version that was rolled back; what cannot be recorded is printed."""
    from components.pusher.moves import record_moves
    from components.pusher.withdrawn import withdraw

    try:
        if not files.is_remote(base) and not os.path.isdir(base):
            raise SegpipeError(f"{base}: found no such folder on this machine")
        record_moves(base, before, after)
        if withdrawn_because:
            withdraw(base, before[STABLE], withdrawn_because)
    except SegpipeError as error:
        say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
        say(f"The release is done, but not recorded beside the versions: {error}")
        if withdrawn_because:
            words = [
                "segpipe",
                "release",
                "withdraw",
                str(before[STABLE]),
                "--versions",
                base,
                "--why",
                withdrawn_because,
            ]
            say(f"Where that directory is, run: {shlex.join(words)}")
        else:
            say("Next time, name the directory of the versions as this machine sees it: --versions DIR")


@contextlib.contextmanager
def _session(
    servers: list[str],
    model: str | None,
    config_file: str | None,
    configmap: str | None,
    base_path: str | None,
    versions: str,
    tls: Tls | None,
) -> Iterator[_Session]:
    """Opens the record that the options name and connects to the servers."""
    given = [option for option in (config_file, configmap, base_path) if option is not None]
    if len(given) != 1:
        raise UsageError(
            f"found {len(given)} of --config-file, --configmap and --base-path, expected one: where the served "
            "configuration is kept"
        )
    if base_path is not None and model is None:
        raise UsageError("--base-path: expected --model as well, because the servers do not tell their models")
    _load_protocol()
    from serving.release.records import ConfigMapRecord, FileRecord, ServerRecord, cluster
    from serving.release.servers import Fleet

    with Fleet(servers, tls) as fleet:
        record: Record
        if config_file is not None:
            record = FileRecord(config_file)
        elif configmap is not None:
            record = ConfigMapRecord(configmap, cluster())
        else:
            record = ServerRecord(fleet, str(model), str(base_path))
        yield _Session(record, fleet, model, versions)


def _load_protocol() -> None:
    """Imports TensorFlow Serving's stubs, which bring TensorFlow with them, while a spinner turns."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with Console(stderr=True).status("loading TensorFlow Serving's protocol"):
        import serving.release.servers  # noqa: F401
