"""Where the served configuration is kept: a file, a ConfigMap, or nowhere but in the servers themselves.

A file or a ConfigMap is written whole or not at all, and only where it is still as it was read. Servers are written
one after the other; where one fails, the others can be given back what was read.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import ReleaseError, UsageError
from serving.release.configuration import copy_of, find_model, load_also, parse, to_text
from serving.release.labels import CANARY, PREVIOUS, STABLE

if TYPE_CHECKING:
    from serving.release.servers import Fleet, ModelServer

_CONFIG_MAP_KEY = "models.config"
_CONFLICT = 409


class FinalError(ReleaseError):
    """A write failed, and what is there shall stay: the work of somebody else, or labels that every server has."""


def cluster() -> Any:
    """Returns the cluster's CoreV1Api: of the kubeconfig's current context, or the one this pod runs in.

    Raises:
        UsageError: there is neither.
    """
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


class Record(Protocol):
    """A place that holds the configuration."""

    def read(self) -> ModelServerConfig:
        """Returns what is served. Raises ReleaseError where that cannot be read."""

    def write(self, config: ModelServerConfig) -> None:
        """Replaces what was read or written last.

        Raises:
            ReleaseError: it could not be written, or not everywhere.
            FinalError: what is there now must not be replaced, by what was read neither.
        """


class FileRecord:
    """The file that `--model_config_file` of a server names.

    The server follows it where it runs with `--model_config_file_poll_wait_seconds`.
    """

    def __init__(self, path: str) -> None:
        # A link is kept: what it leads to is replaced.
        self._path = os.path.realpath(path)
        self._name = path
        self._text = ""

    def read(self) -> ModelServerConfig:
        """Returns the file's configuration."""
        self._text = self._load()
        return parse(self._text, self._name)

    def write(self, config: ModelServerConfig) -> None:
        """Replaces the file in one step, with mode and owner kept; one that says the same already stays as it is."""
        if self._load() != self._text:
            raise FinalError(f"{self._name}: it was changed while this command ran; look at it and run it again")
        if parse(self._text, self._name) == config:
            return
        text = to_text(config, like=self._text)
        try:
            self._replace(text)
        except OSError as error:
            raise ReleaseError(
                f"--config-file {self._name}: {error.strerror}; expected a folder in which a new file of the same "
                "owner and group can be written, which then takes the place of the old one"
            ) from None
        self._text = text

    def _replace(self, text: str) -> None:
        descriptor, staged = tempfile.mkstemp(dir=os.path.dirname(self._path), prefix=".models-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            before = os.stat(self._path)
            # The server may read the file by its group alone.
            os.chown(staged, before.st_uid, before.st_gid)
            os.chmod(staged, before.st_mode & 0o777)
            os.replace(staged, self._path)
        except BaseException:
            os.unlink(staged)
            raise

    def _load(self) -> str:
        try:
            with open(self._path) as file:
                return file.read()
        except OSError as error:
            raise ReleaseError(f"--config-file {self._name}: {error.strerror}; expected a readable file") from None


class ConfigMapRecord:
    """The key `models.config` of a ConfigMap, which the pods mount and their servers follow.

    Args:
        name: NAMESPACE/NAME.
        api: the cluster's CoreV1Api.
    """

    def __init__(self, name: str, api: Any) -> None:
        self._label = f"--configmap {name}"
        self._namespace, _, self._name = name.partition("/")
        if not self._namespace or not self._name:
            raise UsageError(f"{self._label}: expected NAMESPACE/NAME")
        self._api = api
        self._text = ""
        self._version = ""

    def read(self) -> ModelServerConfig:
        """Returns the ConfigMap's configuration."""
        found = self._ask(self._api.read_namespaced_config_map)
        self._version = found.metadata.resource_version
        self._text = (found.data or {}).get(_CONFIG_MAP_KEY, "")
        if not self._text:
            keys = ", ".join(found.data or {}) or "none"
            raise ReleaseError(f"{self._label}: found the keys {keys}, expected {_CONFIG_MAP_KEY}")
        return parse(self._text, self._label)

    def write(self, config: ModelServerConfig) -> None:
        """Patches the ConfigMap, unless it says the same; the API server refuses one that was changed meanwhile."""
        if parse(self._text, self._label) == config:
            return
        text = to_text(config, like=self._text)
        patch = {"metadata": {"resourceVersion": self._version}, "data": {_CONFIG_MAP_KEY: text}}
        patched = self._ask(self._api.patch_namespaced_config_map, patch)
        self._version, self._text = patched.metadata.resource_version, text

    def _ask(self, call: Any, *arguments: Any) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(self._name, self._namespace, *arguments)
        except ApiException as error:
            if error.status == _CONFLICT:
                raise FinalError(
                    f"{self._label}: it was changed while this command ran; look at it and run it again"
                ) from None
            raise ReleaseError(
                f"{self._label}: the cluster answered {error.status} {error.reason}. Check the name, and that "
                "you may get and patch it: kubectl auth can-i patch configmap"
            ) from None
        except HTTPError as error:
            raise ReleaseError(f"{self._label}: the cluster cannot be reached ({error}). Check the context") from None


class ServerRecord:
    """The servers themselves, for one model that they serve alone.

    A server tells its versions and labels but neither where its models lie nor which others it has,
    so the directory must be given, and what is written replaces every model that it serves. Nor does it
    tell its version policy: one without labels is taken to follow the latest version.

    Args:
        fleet: the servers.
        model: name of the model.
        base_path: directory of the model's versions, as the servers see it.
    """

    def __init__(self, fleet: Fleet, model: str, base_path: str) -> None:
        self._fleet = fleet
        self._model = model
        self._base_path = base_path
        self._labelled: set[int] = set()

    def read(self) -> ModelServerConfig:
        """Returns the configuration that the servers' answers amount to. Raises ReleaseError where they differ."""
        answers = {server.address: self._labels(server) for server in self._fleet.servers}
        labels = next(iter(answers.values()))
        if any(answer != labels for answer in answers.values()):
            found = "; ".join(f"{address}: {answer or 'no labels'}" for address, answer in answers.items())
            raise ReleaseError(
                f"--server: found servers with different labels ({found}), expected the same on each. Name those alone "
                "that lack a step, and take it with them; segpipe release status shows all"
            )
        config = ModelServerConfig()
        model = config.model_config_list.config.add(
            name=self._model, base_path=self._base_path, model_platform="tensorflow"
        )
        if labels:
            model.version_labels.update(labels)
            load_also(model, (version for server in self._fleet.servers for version in self._loaded(server)))
        self._labelled = set(labels.values())
        return config

    def write(self, config: ModelServerConfig) -> None:
        """Sends the configuration to every server, also after one that does not take it.

        Raises:
            ReleaseError: a server did not take it; names those that did and those that did not.
            FinalError: every server has the labels, and one did not unload what no label leads to.
        """
        kept = copy_of(config)
        if self._labelled:
            # No version goes before every server has the labels: they could not be moved back to it.
            model = find_model(kept, self._model)
            load_also(model, {*model.model_version_policy.specific.versions, *self._labelled})
        failures = self._send(kept)
        if failures:
            taken = [server.address for server in self._fleet.servers if server.address not in failures]
            raise ReleaseError(
                f"not every server took the configuration. Taken by: {', '.join(taken) or 'none'}. "
                f"Not taken: {'; '.join(failures.values())}"
            )
        failures = self._send(config) if kept != config else {}
        if failures:
            raise FinalError(
                "every server has the labels, but not every one unloaded what no label leads to: "
                f"{'; '.join(failures.values())}. The next release does that"
            )

    def _send(self, config: ModelServerConfig) -> dict[str, str]:
        """Returns why a server did not take the configuration, by address."""
        failures = {}
        for server in self._fleet.servers:
            try:
                server.reload(config)
            except ReleaseError as error:
                failures[server.address] = str(error)
        return failures

    def _loaded(self, server: ModelServer) -> list[int]:
        return [version for version, state in server.versions(self._model).items() if state.available]

    def _labels(self, server: ModelServer) -> dict[str, int]:
        found = {label: server.labelled(self._model, label) for label in (STABLE, CANARY, PREVIOUS)}
        return {label: version for label, version in found.items() if version is not None}
