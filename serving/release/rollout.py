"""Brings a release to the servers: versions are loaded first, labels move after that.

TensorFlow Serving refuses a configuration whole when it moves a label to a version that is not loaded
yet (`ServerCore::ReloadConfig`), so a version comes in one step and its label in another.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import ReleaseError
from serving.release.configuration import find_model, load_also, set_release
from serving.release.labels import Release
from serving.release.records import Record
from serving.release.servers import Fleet, ModelServer, VersionState


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for the servers, and how often to ask them, both in seconds."""

    timeout: float = 300.0
    interval: float = 0.25


def require_available(fleet: Fleet, model: str, version: int) -> None:
    """Raises ReleaseError that names a server where a version does not answer requests."""
    for server in fleet.servers:
        state = server.versions(model).get(version)
        if state is None or not state.available:
            raise ReleaseError(
                f"--server {server.address}: version {version} of {model} is {_describe(state)}, expected AVAILABLE. "
                f"Load it first: segpipe release canary {version}"
            )


def roll_out(
    record: Record, before: ModelServerConfig, fleet: Fleet, model: str, release: Release, patience: Patience
) -> None:
    """Loads what the release needs, then moves the labels and unloads what no label leads to.

    Where a version does not load, the record gets back what it held, and no label has moved.

    Args:
        record: holds the configuration that the servers follow.
        before: what was read from it.
        fleet: every server that follows it.
        model: name of the model.
        release: the versions behind the labels.
        patience: how long a version may take to load, and a label to move.

    Raises:
        ReleaseError: a version failed to load or a server did not follow in time.
    """
    states = {server.address: server.versions(model) for server in fleet.servers}
    wanted = set(release.labels().values())
    missing = {version for found in states.values() for version in wanted if not _available(found, version)}
    current = before
    if missing:
        current = _copy(before)
        loaded = {version for found in states.values() for version in found if _available(found, version)}
        load_also(find_model(current, model), wanted | loaded)
        record.write(current)
        try:
            _await_versions(fleet, model, missing, states, patience)
        except (ReleaseError, KeyboardInterrupt):
            record.write(before)
            raise
    after = _copy(current)
    set_release(find_model(after, model), release)
    record.write(after)
    _await_labels(fleet, model, release, patience)


def _await_versions(
    fleet: Fleet,
    model: str,
    versions: set[int],
    before: dict[str, dict[int, VersionState]],
    patience: Patience,
) -> None:
    """Waits until every server has every version."""

    def lacking(server: ModelServer) -> str:
        states = server.versions(model)
        for version in sorted(versions):
            state = states.get(version)
            # A server remembers an earlier failure until it tries again.
            if state is not None and state.error and state != before[server.address].get(version):
                raise ReleaseError(
                    f"--server {server.address}: version {version} of {model} failed to load: {state.error}. "
                    "The configuration is as it was before, and no label has moved"
                )
            if state is None or not state.available:
                return f"version {version} of {model} is {_describe(state)}, expected AVAILABLE"
        return ""

    advice = "Is its directory complete, and does the server follow the configuration? That is as it was before"
    _await(fleet, lacking, patience, advice)


def _await_labels(fleet: Fleet, model: str, release: Release, patience: Patience) -> None:
    """Waits until every server answers to every label with its version."""

    def lacking(server: ModelServer) -> str:
        for label, version in release.labels().items():
            found = server.labelled(model, label)
            if found != version:
                return f"label {label} of {model} leads to {found or 'no version'}, expected {version}"
        return ""

    _await(fleet, lacking, patience, "The configuration is written; see the server's log for why it does not follow")


def _await(fleet: Fleet, lacking: Callable[[ModelServer], str], patience: Patience, advice: str) -> None:
    """Asks each server until it lacks nothing. Raises ReleaseError with what it lacks at the end."""
    deadline = time.monotonic() + patience.timeout
    for server in fleet.servers:
        while lack := lacking(server):
            if time.monotonic() >= deadline:
                raise ReleaseError(f"--server {server.address}: after {patience.timeout:g} s, {lack}. {advice}")
            time.sleep(patience.interval)


def _available(states: dict[int, VersionState], version: int) -> bool:
    return version in states and states[version].available


def _describe(state: VersionState | None) -> str:
    if state is None:
        return "unknown to it"
    return f"{state.state} ({state.error})" if state.error else state.state


def _copy(config: ModelServerConfig) -> ModelServerConfig:
    copy = ModelServerConfig()
    copy.CopyFrom(config)
    return copy
