"""The serving states of a model's versions, from the servers' configuration or from the servers themselves."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.times import utc_text
from serving.release.labels import CANARY, STABLE, from_labels

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from serving.client.settings import Tls

LATEST, LOADING, LOADED, FAILED, WITHDRAWN = "latest", "loading", "loaded", "failed", "withdrawn"


@dataclasses.dataclass(frozen=True)
class ServedState:
    """One serving state of a version; a version may have several.

    Attributes:
        state: a label (`stable`, `canary`, `previous`); `latest` for the newest version, which a server without labels
            serves; `loading`; `loaded` without a label; `failed` to load; `withdrawn`; `removed`; or `unknown`.
        since: ISO 8601 in UTC; None if unknown.
        why: the reason, if recorded.
        by: who moved the label, as USER@HOST or a pod's name; None if not recorded.
    """

    state: str
    since: str | None = None
    why: str | None = None
    by: str | None = None


# Maps the folder of a model's versions to their states by number. Returns None for a model that is not served, and an
# empty mapping if the newest version is served.
ServedBy = Callable[[str], Mapping[int, list[ServedState]] | None]


def served_by_file(path: str) -> ServedBy:
    """Reads the states from the file of the servers' --model_config_file.

    A label points to its version at least since the file was last changed. A model is found by its name, which must be
    that of the versions' folder, or by the last part of its `base_path`. Raises ReleaseError if the file cannot be read
    or is not a configuration.
    """
    from serving.release.records import FileRecord

    config = FileRecord(path).read()
    return _served_by(config, utc_text(os.stat(path).st_mtime))


def served_by_configmap(name: str, api: Any) -> ServedBy:
    """Reads the states from the ConfigMap NAMESPACE/NAME that servers mount. Like `served_by_file`, without times.

    `api` is the cluster's CoreV1Api.
    """
    from serving.release.records import ConfigMapRecord

    return _served_by(ConfigMapRecord(name, api).read(), None)


def _served_by(config: ModelServerConfig, changed: str | None) -> ServedBy:
    models = config.model_config_list.config

    def states(base: str) -> dict[int, list[ServedState]] | None:
        name = _name(base)
        found = [model for model in models if model.name == name]
        found = found or [model for model in models if _name(model.base_path) == name]
        if not found:
            return None
        release = from_labels(found[0].version_labels)
        by_version = _labels_by_version(release.labels() if release else {})
        result = {version: [ServedState(label, changed) for label in labels] for version, labels in by_version.items()}
        for version in found[0].model_version_policy.specific.versions:
            result.setdefault(version, [ServedState(LOADED, changed)])
        return result

    return states


def served_by_servers(addresses: Sequence[str], tls: Tls | None = None) -> ServedBy:
    """Reads the states from model servers, without times. The name of a model is that of its versions' folder.

    If the servers differ, a version has the states of all of them. The result raises ReleaseError if a server does not
    answer.
    """
    from serving.release.servers import Fleet

    def states(base: str) -> dict[int, list[ServedState]] | None:
        model = _name(base)
        result: dict[int, list[ServedState]] = {}
        with Fleet(addresses, tls) as fleet:
            for server in fleet.servers:
                by_version = _labels_by_version(server.labels(model))
                for version, status in server.versions(model).items():
                    if status.error:
                        found = [ServedState(FAILED, why=f"{server.address}: {status.error}")]
                    elif status.available:
                        found = [ServedState(label) for label in by_version.get(version, [LOADED])]
                    else:
                        found = [ServedState(LOADING)] if status.state in ("START", "LOADING") else []
                    known = result.setdefault(version, [])
                    known += [state for state in found if state not in known]
        return result or None

    return states


def _labels_by_version(labels: Mapping[str, int]) -> dict[int, list[str]]:
    """Returns the labels of each version, without `canary` if it points to the stable version."""
    result: dict[int, list[str]] = {}
    for label, version in labels.items():
        if label != CANARY or version != labels.get(STABLE):
            result.setdefault(version, []).append(label)
    return result


def _name(directory: str) -> str:
    return directory.rstrip("/").rpartition("/")[2]
