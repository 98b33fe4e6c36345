"""How the versions of a model are served, as a server's configuration file or the servers themselves tell it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.times import utc_text
from serving.release.labels import CANARY, PREVIOUS, STABLE

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from serving.client.settings import Tls
    from serving.release.labels import Release

LATEST, LOADING, LOADED, FAILED, WITHDRAWN = "latest", "loading", "loaded", "failed", "withdrawn"


@dataclasses.dataclass(frozen=True)
class ServedState:
    """One thing to know about how a version is served.

    Attributes:
        state: a label (`stable`, `canary`, `previous`); `latest` for the newest version, which a server without labels
            serves; `loading`; `loaded` without a label; `failed` to load; `withdrawn`; `removed`; or `unknown`.
        since: ISO 8601 in UTC; None if it is not known.
        why: the reason, if one is recorded.
        by: who moved the label: USER@HOST, or a pod's name; None if it is not recorded.
    """

    state: str
    since: str | None = None
    why: str | None = None
    by: str | None = None


# The states of a model's versions by number, given the directory of the versions. None for a model that is not served;
# an empty mapping if the newest version is served.
ServedBy = Callable[[str], Mapping[int, list[ServedState]] | None]


def served_by_file(path: str) -> ServedBy:
    """Reads the file that servers take as --model_config_file.

    A label's version is served at least since the file was last changed. Models are found by name, which is that of the
    versions' directory, or by the last part of `base_path`.

    Raises:
        ReleaseError: the file cannot be read, or is no configuration.
    """
    from serving.release.records import FileRecord

    config = FileRecord(path).read()
    return _served_by(config, utc_text(os.stat(path).st_mtime))


def served_by_configmap(name: str, api: Any) -> ServedBy:
    """Reads the ConfigMap that servers mount, as `served_by_file` reads a file; it tells no times.

    Args:
        name: NAMESPACE/NAME.
        api: the cluster's CoreV1Api.

    Raises:
        ReleaseError: the ConfigMap cannot be read, or holds no configuration.
    """
    from serving.release.records import ConfigMapRecord

    return _served_by(ConfigMapRecord(name, api).read(), None)


def _served_by(config: ModelServerConfig, changed: str | None) -> ServedBy:
    from serving.release.configuration import release_of

    models = config.model_config_list.config

    def states(base: str) -> dict[int, list[ServedState]] | None:
        name = _name(base)
        found = [model for model in models if model.name == name] or [m for m in models if _name(m.base_path) == name]
        if not found:
            return None
        labels = _labels(release_of(found[0]))
        result = {version: [ServedState(label, changed) for label in named] for version, named in labels.items()}
        for version in found[0].model_version_policy.specific.versions:
            result.setdefault(version, [ServedState(LOADED, changed)])
        return result

    return states


def served_by_servers(addresses: Sequence[str], tls: Tls | None = None) -> ServedBy:
    """Asks model servers, which know their models by the name of the versions' directory.

    Servers tell no times. If they differ, a version has the states of all of them.

    Args:
        addresses: HOST:PORT of their gRPC ports.
        tls: None for plain connections.

    Raises:
        ReleaseError: on a call, if a server does not answer.
    """
    from serving.release.servers import Fleet

    def states(base: str) -> dict[int, list[ServedState]] | None:
        model = _name(base)
        result: dict[int, list[ServedState]] = {}
        with Fleet(addresses, tls) as fleet:
            for server in fleet.servers:
                labels = {label: server.labelled(model, label) for label in (STABLE, CANARY, PREVIOUS)}
                if labels[CANARY] == labels[STABLE]:
                    del labels[CANARY]
                for version, told in server.versions(model).items():
                    if told.error:
                        own = [ServedState(FAILED, why=f"{server.address}: {told.error}")]
                    elif told.available:
                        own = [ServedState(label) for label, target in labels.items() if target == version]
                        own = own or [ServedState(LOADED)]
                    else:
                        own = [ServedState(LOADING)] if told.state in ("START", "LOADING") else []
                    known = result.setdefault(version, [])
                    known += [state for state in own if state not in known]
        return result or None

    return states


def _labels(release: Release | None) -> dict[int, list[str]]:
    """Returns the labels of each version; without a trial, no version is a canary."""
    result: dict[int, list[str]] = {}
    for label, version in release.labels().items() if release else ():
        if label != CANARY or (release and release.on_trial):
            result.setdefault(version, []).append(label)
    return result


def _name(directory: str) -> str:
    return directory.rstrip("/").rpartition("/")[2]
