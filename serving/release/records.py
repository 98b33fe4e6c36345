"""Stores the served configuration: in a file, in a ConfigMap, or only in the servers themselves.

Files and ConfigMaps are replaced atomically, and only if nobody changed them since they were read. Servers are
configured one after the other; if one fails, the previous configuration can be restored on the others.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, Protocol

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components import files
from components.errors import ReleaseError, UsageError
from serving.release.configuration import find_model, load_also, parse, to_text

if TYPE_CHECKING:
    from serving.release.servers import Fleet

_CONFIG_MAP_KEY = "models.config"
_CONFLICT = 409
_CHANGED = "it was changed while this command ran; check it and run the command again"


class FinalError(ReleaseError):
    """A write failed, and the current configuration must stay: another user's, or one that every server has."""


def cluster() -> Any:
    """Returns the CoreV1Api of the kubeconfig's current context, else of this pod's cluster; else raises UsageError."""
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
                "Set KUBECONFIG, or run the command inside the cluster"
            ) from None
    return client.CoreV1Api()


class Record(Protocol):
    """A store of the configuration."""

    def read(self) -> ModelServerConfig:
        """Returns the configuration. Raises ReleaseError if it cannot be read."""

    def write(self, config: ModelServerConfig) -> None:
        """Replaces the configuration that was read or written last.

        Raises:
            ReleaseError: it could not be written, or only in part.
            FinalError: the current configuration must stay, so the previous one must not be restored.
        """


class FileRecord:
    """The file of a server's `--model_config_file`.

    Servers need `--model_config_file_poll_wait_seconds` to follow its changes.
    """

    def __init__(self, path: str) -> None:
        # Replace the target of a symlink, not the link.
        self._path = os.path.realpath(path)
        self._name = path
        self._text = ""

    def read(self) -> ModelServerConfig:
        """Returns the file's configuration."""
        self._text = self._load()
        return parse(self._text, self._name)

    def write(self, config: ModelServerConfig) -> None:
        """Replaces the file atomically, with its mode and owner, if the configuration differs."""
        if self._load() != self._text:
            raise FinalError(f"{self._name}: {_CHANGED}")
        if parse(self._text, self._name) == config:
            return
        text = to_text(config, like=self._text)
        try:
            before = os.stat(self._path)
            with files.created(self._path) as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                # The server may have access through the group only.
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
        except OSError as error:
            raise ReleaseError(
                f"--config-file {self._name}: {error.strerror}; expected a folder in which this command can create a "
                "file with the same owner and group, to replace the old one"
            ) from None
        self._text = text

    def _load(self) -> str:
        try:
            with open(self._path, encoding="utf-8") as file:
                return file.read()
        except OSError as error:
            raise ReleaseError(f"--config-file {self._name}: {error.strerror}; expected a readable file") from None


class ConfigMapRecord:
    """The key `models.config` of a ConfigMap that the servers' pods mount.

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
            keys = ", ".join(found.data or {}) or "(none)"
            raise ReleaseError(f"{self._label}: found the keys {keys}, expected {_CONFIG_MAP_KEY}")
        return parse(self._text, self._label)

    def write(self, config: ModelServerConfig) -> None:
        """Patches the ConfigMap if the configuration differs; the API server rejects it if it was changed meanwhile."""
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
                raise FinalError(f"{self._label}: {_CHANGED}") from None
            raise ReleaseError(
                f"{self._label}: the cluster answered {error.status} {error.reason}. Check the name and your "
                "permissions to get and patch it: kubectl auth can-i patch configmap"
            ) from None
        except HTTPError as error:
            raise ReleaseError(f"{self._label}: the cluster cannot be reached ({error}). Check the context") from None


class ServerRecord:
    """The servers themselves, if they serve only one model.

    A server returns its versions and labels, but not its other models, their base paths or its version policy. So the
    base path is an argument, a write replaces all models of the server, and a model without labels is assumed to
    follow the latest version.

    Args:
        fleet: the servers.
        model: name of the model.
        base_path: folder of the model's versions, as the servers see it.
    """

    def __init__(self, fleet: Fleet, model: str, base_path: str) -> None:
        self._fleet = fleet
        self._model = model
        self._base_path = base_path
        self._labelled: set[int] = set()

    def read(self) -> ModelServerConfig:
        """Returns the configuration of the servers. Raises ReleaseError if they differ."""
        answers = {server.address: server.labels(self._model) for server in self._fleet.servers}
        labels = next(iter(answers.values()))
        if any(answer != labels for answer in answers.values()):
            found = "; ".join(f"{address}: {answer or 'no labels'}" for address, answer in answers.items())
            raise ReleaseError(
                f"--server: found servers with different labels ({found}), expected the same on all. Repeat the last "
                "command with --server for the servers that are behind; see segpipe release status"
            )
        config = ModelServerConfig()
        model = config.model_config_list.config.add(
            name=self._model, base_path=self._base_path, model_platform="tensorflow"
        )
        if labels:
            model.version_labels.update(labels)
            statuses = [status for server in self._fleet.servers for status in server.versions(self._model).values()]
            load_also(model, {status.version for status in statuses if status.available})
        self._labelled = set(labels.values())
        return config

    def write(self, config: ModelServerConfig) -> None:
        """Sends the configuration to every server, even if one rejects it.

        Raises:
            ReleaseError: a server rejected it; the message lists the servers of both kinds.
            FinalError: every server has the labels, but one did not unload the versions without a label.
        """
        kept = copy.deepcopy(config)
        if self._labelled:
            # Keep the old versions until every server has the labels, so that the labels can be moved back.
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
                "every server has the labels, but some did not unload the versions without a label: "
                f"{'; '.join(failures.values())}. The next release unloads them"
            )

    def _send(self, config: ModelServerConfig) -> dict[str, str]:
        """Sends a configuration to every server; returns the errors by address."""
        failures = {}
        for server in self._fleet.servers:
            try:
                server.reload(config)
            except ReleaseError as error:
                failures[server.address] = str(error)
        return failures
