"""Options of the commands that read recorded runs: the metadata, and the source of what is served."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import UsageError
from pipeline.cli.options import TlsOptions

if TYPE_CHECKING:
    from pipeline.history.served import ServedModels
    from pipeline.storage.workdir import Workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetadataOptions:
    """The work directory, and the place of its metadata."""

    out: Annotated[str, typer.Option(help="Work directory, or kubeflow.root.")] = "work"
    config: Annotated[
        str,
        typer.Option(help="YAML file of settings with the place of the metadata, kubeflow.metadata.", metavar="FILE"),
    ] = ""

    def workdir(self) -> Workdir:
        """Returns the work directory. Raises UsageError for a wrong file of settings."""
        from pipeline.storage.workdir import Workdir

        if not self.config:
            return Workdir(self.out)
        from pipeline.configuration.loading import load_config, read_config_file

        settings = load_config([(self.config, read_config_file(self.config))])
        return Workdir(self.out, settings.kubeflow.metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedOptions(TlsOptions):
    """The source of what is served; by default, the record of releases beside the versions."""

    config_file: Annotated[
        str, typer.Option(help="The servers' --model_config_file; its labels say what is served.", metavar="FILE")
    ] = ""
    configmap: Annotated[
        str, typer.Option(help="Read the ConfigMap that the servers mount instead.", metavar="NAMESPACE/NAME")
    ] = ""
    server: Annotated[
        list[str] | None,
        typer.Option(help="Ask the model server at this gRPC address instead; repeatable.", metavar="HOST:PORT"),
    ] = None

    @property
    def given(self) -> bool:
        """Whether the servers or their configuration are read. Raises UsageError if several places are named."""
        places = sum(map(bool, (self.config_file, self.configmap, self.server)))
        if places > 1:
            raise UsageError(
                "found several of --config-file, --configmap and --server, expected one source of what is served"
            )
        return bool(places)

    def read(self) -> ServedModels:
        """Returns how versions are served. Raises ReleaseError if the servers or their configuration do not answer."""
        from pipeline.history.served import ServedModels
        from serving.release.states import served_by_configmap, served_by_file, served_by_servers

        if not self.given:
            return ServedModels()
        if self.config_file:
            return ServedModels(served_by_file(self.config_file))
        if self.configmap:
            from serving.release.records import cluster

            return ServedModels(served_by_configmap(self.configmap, cluster()))
        return ServedModels(served_by_servers(self.server or [], self.tls_settings()))


def check_known(served: ServedModels, pushed: Collection[str]) -> None:
    """Raises UsageError if the servers know none of the models whose versions are in some directories."""
    if pushed and not any(served.serves(version) for version in pushed):
        names = ", ".join(sorted({os.path.basename(os.path.dirname(version.rstrip("/"))) for version in pushed}))
        raise UsageError(
            f"--config-file, --configmap or --server: found none of the models of these runs, expected one of: {names}"
        )
