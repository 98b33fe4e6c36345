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
from serving.release.configuration import copy_of, find_model, load_also, set_release
from serving.release.labels import Release
from serving.release.records import FinalError, Record
from serving.release.servers import Fleet, ModelServer, VersionState


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for the servers, and how often to ask them, both in seconds."""

    timeout: float = 300.0
    interval: float = 0.25


def require_available(fleet: Fleet, model: str, version: int, patience: Patience) -> None:
    """Waits for a version that is loading; raises ReleaseError that names a server where it does not answer."""

    def lacking(server: ModelServer) -> str:
        state = server.versions(model).get(version)
        if state is not None and state.available:
            return ""
        lack = f"version {version} of {model} is {_describe(state)}, expected AVAILABLE"
        if state is not None and state.state in ("START", "LOADING"):
            return lack
        raise ReleaseError(f"--server {server.address}: {lack}. Load it first: segpipe release canary {version}")

    _await(fleet, lacking, patience, "See the server's log for what it waits for")


def roll_out(
    record: Record, before: ModelServerConfig, fleet: Fleet, model: str, release: Release, patience: Patience
) -> None:
    """Loads what the release needs, then moves the labels and unloads what no label leads to.

    Where a version does not load, or a label cannot be moved everywhere, the record gets back what it held.

    Args:
        record: holds the configuration that the servers follow.
        before: what was read from it.
        fleet: every server that follows it.
        model: name of the model.
        release: the versions behind the labels.
        patience: how long a version may take to load, and a label to move.

    Raises:
        ReleaseError: a version failed to load, the record could not be written, or a server did not follow in time.
    """
    states = {server.address: server.versions(model) for server in fleet.servers}
    wanted = set(release.labels().values())
    missing = {version for found in states.values() for version in wanted if not _available(found, version)}
    current = before
    if missing:
        current = copy_of(before)
        loaded = {version for found in states.values() for version in found if _available(found, version)}
        load_also(find_model(current, model), wanted | loaded)
    after = copy_of(current)
    set_release(find_model(after, model), release)
    try:
        if missing:
            record.write(current)
            _await_versions(fleet, model, missing, states, patience)
        record.write(after)
    except FinalError:
        raise
    except ReleaseError as error:
        _put_back(record, before, error)
        raise ReleaseError(f"{error}. The configuration and the labels are as they were before") from error
    except KeyboardInterrupt as interrupt:
        _put_back(record, before, interrupt)
        raise
    _await_labels(fleet, model, release, patience)


def _put_back(record: Record, before: ModelServerConfig, reason: BaseException) -> None:
    """Gives the record back what it held. Raises ReleaseError, with the reason for it, where that fails too."""
    try:
        record.write(before)
    except ReleaseError as error:
        raise ReleaseError(
            f"{str(reason) or 'interrupted'}. What was served before could not be put back: {error}. "
            "segpipe release status shows what each server serves; name those alone with --server that lack a step, "
            "and take it with them"
        ) from reason


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
                    f"--server {server.address}: version {version} of {model} failed to load: {state.error}"
                )
            if state is None or not state.available:
                return f"version {version} of {model} is {_describe(state)}, expected AVAILABLE"
        return ""

    _await(
        fleet, lacking, patience, "Check that its directory is complete and that the server follows the configuration"
    )


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
