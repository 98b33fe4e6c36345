"""The options of the commands that look runs up: which metadata, and where to see what is served."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from components.errors import UsageError

if TYPE_CHECKING:
    from pipeline.history.served import ServedModels
    from pipeline.storage.workdir import Workdir
    from serving.client.settings import Tls

Out = Annotated[str, typer.Option(help="Work directory, or kubeflow.root.")]
Config = Annotated[
    str, typer.Option(help="YAML file of settings; its kubeflow.metadata says where the metadata is.", metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[
    str, typer.Option(help="The servers' --model_config_file; its labels say what is served.", metavar="FILE")
]
ConfigMap = Annotated[
    str,
    typer.Option(
        "--configmap", metavar="NAMESPACE/NAME", help="The ConfigMap that the servers mount, to read instead."
    ),
]
Servers = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="HOST:PORT", help="gRPC address of a model server to ask instead; repeatable."),
]


def open_workdir(out: str, config: str) -> Workdir:
    """Returns a work directory whose metadata is where a file of settings says. Raises UsageError."""
    from pipeline.storage.workdir import Workdir

    if not config:
        return Workdir(out)
    from pipeline.configuration.config import load_config, read_config_file

    return Workdir(out, load_config([(config, read_config_file(config))]).kubeflow.metadata)


def served_models(config_file: str, configmap: str, servers: list[str] | None, tls: Tls | None = None) -> ServedModels:
    """Returns what tells how versions are served. Raises UsageError if several are named, ReleaseError."""
    from pipeline.history.served import ServedModels
    from serving.release.states import served_by_configmap, served_by_file, served_by_servers

    if sum(map(bool, (config_file, configmap, servers))) > 1:
        raise UsageError(
            "found several of --config-file, --configmap and --server, expected one: where to see what is served"
        )
    if config_file:
        return ServedModels(served_by_file(config_file))
    if configmap:
        from serving.release.records import cluster

        return ServedModels(served_by_configmap(configmap, cluster()))
    if not servers:
        return ServedModels()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with Console(stderr=True).status("loading TensorFlow Serving's protocol"):
        return ServedModels(served_by_servers(servers, tls))


def check_served(served: ServedModels, pushed: Collection[str]) -> None:
    """Raises UsageError if servers or their configuration know none of the models that some versions are of.

    Args:
        served: what the options --config-file, --configmap and --server lead to.
        pushed: directories of versions.
    """
    if pushed and not any(served.serves(version) for version in pushed):
        names = ", ".join(sorted({os.path.basename(os.path.dirname(version.rstrip("/"))) for version in pushed}))
        raise UsageError(
            f"--config-file, --configmap or --server: found none of the models of these runs, expected one of: {names}"
        )
