"""Rolls a release out to the servers: loads its versions first, then moves the labels.

TensorFlow Serving rejects a whole configuration if a label points to a version that is not loaded yet
(`ServerCore::ReloadConfig`). So a version is loaded in one step and labelled in another.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import ReleaseError
from serving.client.results import VersionStatus
from serving.release.configuration import find_model, load_also, set_release
from serving.release.labels import Release
from serving.release.records import FinalError, Record
from serving.release.servers import Fleet, ModelServer

_POLL_SECONDS = 0.25


def require_available(fleet: Fleet, model: str, version: int, timeout: float) -> None:
    """Waits while a version is loading. Raises ReleaseError if a server does not make it available."""

    def check(server: ModelServer) -> str:
        status = server.versions(model).get(version)
        if status is not None and status.available:
            return ""
        problem = f"version {version} of {model} is {_describe(status)}, expected AVAILABLE"
        if status is not None and status.state in ("START", "LOADING"):
            return problem
        raise ReleaseError(f"--server {server.address}: {problem}. Load it first: segpipe release canary {version}")

    _await(fleet, check, timeout, "The server's log shows what it waits for")


def roll_out(
    record: Record, before: ModelServerConfig, fleet: Fleet, model: str, release: Release, timeout: float
) -> None:
    """Loads the versions of a release, moves the labels, and unloads the versions without a label.

    If a version does not load, or a label cannot be moved on every server, restores the record.

    Args:
        record: the configuration that the servers follow.
        before: what was read from it.
        fleet: all servers that follow it.
        model: name of the model.
        release: the versions behind the labels.
        timeout: seconds for a version to load, and for a label to move.

    Raises:
        ReleaseError: a version failed to load, the record could not be written, or a server did not follow in time.
    """
    states = {server.address: server.versions(model) for server in fleet.servers}
    available = [{number for number, status in found.items() if status.available} for found in states.values()]
    wanted = set(release.labels().values())
    missing = {version for version in wanted if not all(version in numbers for numbers in available)}
    current = copy.deepcopy(before)
    if missing:
        load_also(find_model(current, model), wanted.union(*available))
    after = copy.deepcopy(current)
    set_release(find_model(after, model), release)
    try:
        if missing:
            record.write(current)
            _await_versions(fleet, model, missing, states, timeout)
        record.write(after)
    except FinalError:
        raise
    except ReleaseError as error:
        _restore(record, before, error)
        raise ReleaseError(f"{error}. The configuration and the labels are unchanged") from error
    except KeyboardInterrupt as interrupt:
        _restore(record, before, interrupt)
        raise
    _await_labels(fleet, model, release, timeout)


def _restore(record: Record, before: ModelServerConfig, reason: BaseException) -> None:
    """Writes the previous configuration. Raises ReleaseError with the reason for it if that fails too."""
    try:
        record.write(before)
    except ReleaseError as error:
        raise ReleaseError(
            f"{str(reason) or 'interrupted'}. The previous configuration could not be restored: {error}. "
            "Run segpipe release status to see each server's labels, then repeat the command with --server for the "
            "servers that are behind"
        ) from reason


def _await_versions(
    fleet: Fleet,
    model: str,
    versions: set[int],
    before: dict[str, dict[int, VersionStatus]],
    timeout: float,
) -> None:
    def check(server: ModelServer) -> str:
        states = server.versions(model)
        for version in sorted(versions):
            status = states.get(version)
            # A server keeps the error of an earlier attempt until it tries again.
            if status is not None and status.error and status != before[server.address].get(version):
                raise ReleaseError(
                    f"--server {server.address}: version {version} of {model} failed to load: {status.error}"
                )
            if status is None or not status.available:
                return f"version {version} of {model} is {_describe(status)}, expected AVAILABLE"
        return ""

    _await(fleet, check, timeout, "Check that its folder is complete and that the server follows the configuration")


def _await_labels(fleet: Fleet, model: str, release: Release, timeout: float) -> None:
    def check(server: ModelServer) -> str:
        found = server.labels(model)
        for label, version in release.labels().items():
            if found.get(label) != version:
                return f"label {label} of {model} points to {found.get(label, 'no version')}, expected {version}"
        return ""

    _await(fleet, check, timeout, "The configuration is written; the server's log shows why it does not follow")


def _await(fleet: Fleet, check: Callable[[ModelServer], str], timeout: float, advice: str) -> None:
    """Checks each server until it has no problem. Raises ReleaseError with the problem after the timeout."""
    deadline = time.monotonic() + timeout
    for server in fleet.servers:
        while problem := check(server):
            if time.monotonic() >= deadline:
                raise ReleaseError(f"--server {server.address}: after {timeout:g} s, {problem}. {advice}")
            time.sleep(_POLL_SECONDS)


def _describe(status: VersionStatus | None) -> str:
    if status is None:
        return "unknown"
    return f"{status.state} ({status.error})" if status.error else status.state
