"""`segpipe release`: canary, promote and roll back the versions of a served model, by version labels.

The servers are asked before anything moves; what they serve is kept in a file, a ConfigMap or themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.errors import ReleaseError, UsageError
from pipeline.cli import tls as tls_options

if TYPE_CHECKING:
    from serving.client import Tls
    from serving.release.labels import Release
    from serving.release.records import Record
    from serving.release.servers import Fleet

app = typer.Typer(
    help="Canary, promote and roll back the versions of a served model, by the labels stable and canary.",
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
    with _session(server, model, config_file, configmap, base_path, connection) as session:
        session.change(step, timeout, dry_run)


@app.command()
def promote(
    server: _Servers,
    version: Annotated[int | None, typer.Argument(help="A loaded version; default: the canary.")] = None,
    model: _Model = None,
    config_file: _ConfigFile = None,
    configmap: _ConfigMap = None,
    base_path: _BasePath = None,
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
    with _session(server, model, config_file, configmap, base_path, connection) as session:
        session.change(step, timeout, dry_run, must_be_available=True)


@app.command()
def rollback(
    server: _Servers,
    model: _Model = None,
    config_file: _ConfigFile = None,
    configmap: _ConfigMap = None,
    base_path: _BasePath = None,
    timeout: _Timeout = 300.0,
    dry_run: _DryRun = False,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
) -> None:
    """Make the version that was stable before stable again, and unload the one that was promoted."""

    def step(release: Release | None) -> Release:
        from serving.release import labels

        return labels.rollback(release)

    connection = tls_options.settings(tls, tls_ca, tls_cert, tls_key)
    with _session(server, model, config_file, configmap, base_path, connection) as session:
        session.change(step, timeout, dry_run, must_be_available=True)


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
    from serving.release.labels import CANARY, PREVIOUS, STABLE
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


class _Session:
    """The record and the servers of one command."""

    def __init__(self, record: Record, fleet: Fleet, model: str | None) -> None:
        self._record = record
        self._fleet = fleet
        self._model = model

    def change(
        self,
        step: Callable[[Release | None], Release],
        timeout: float,
        dry_run: bool,
        must_be_available: bool = False,
    ) -> None:
        """Takes a step from the release there is to the next, and says what came of it."""
        from serving.release.configuration import find_model, release_of, set_release, to_text
        from serving.release.rollout import Patience, require_available, roll_out

        config = self._record.read()
        model = find_model(config, self._model)
        before, after = release_of(model), step(release_of(model))
        if must_be_available:
            require_available(self._fleet, model.name, after.stable)
        if dry_run:
            set_release(model, after)
            print(to_text(config), end="")
            return
        with Console(stderr=True).status(f"waiting for {len(self._fleet.servers)} servers"):
            roll_out(self._record, config, self._fleet, model.name, after, Patience(timeout))
        was = before.labels() if before else {}
        moved = [
            f"{label} {version}" + (f" (was {was[label]})" if was.get(label, version) != version else "")
            for label, version in after.labels().items()
        ]
        Console(highlight=False, soft_wrap=True).print(f"{model.name}: {', '.join(moved)}")


@contextlib.contextmanager
def _session(
    servers: list[str],
    model: str | None,
    config_file: str | None,
    configmap: str | None,
    base_path: str | None,
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
    from serving.release.records import ConfigMapRecord, FileRecord, ServerRecord
    from serving.release.servers import Fleet

    with Fleet(servers, tls) as fleet:
        record: Record
        if config_file is not None:
            record = FileRecord(config_file)
        elif configmap is not None:
            record = ConfigMapRecord(configmap, _cluster())
        else:
            record = ServerRecord(fleet, str(model), str(base_path))
        yield _Session(record, fleet, model)


def _load_protocol() -> None:
    """Imports TensorFlow Serving's stubs, which bring TensorFlow with them, while a spinner turns."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with Console(stderr=True).status("loading TensorFlow Serving's protocol"):
        import serving.release.servers  # noqa: F401


def _cluster() -> Any:
    """Returns the cluster's CoreV1Api: the one this pod runs in, or the kubeconfig's current context."""
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_kube_config()
    except ConfigException:
        try:
            config.load_incluster_config()
        except ConfigException:
            raise UsageError(
                "--configmap: found neither a kubeconfig nor a pod's service account. "
                "Set KUBECONFIG, or run this inside the cluster"
            ) from None
    return client.CoreV1Api()
