"""A version of a model, and a model with its versions. The registry's lock guards both."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.server.session import SavedModelSession
from serving.server.version_policy import choose_versions

_LOG = logging.getLogger("segpipe.serving")
State = ModelVersionStatus.State
START, LOADING, AVAILABLE = State.START, State.LOADING, State.AVAILABLE
UNLOADING, END = State.UNLOADING, State.END


@dataclasses.dataclass(eq=False)
class Servable:
    """A version of a model; its states are TensorFlow Serving's."""

    model: str
    version: int
    directory: str
    state: int = START
    error: tuple[grpc.StatusCode, str] | None = None  # of the last load, if it failed
    session: SavedModelSession | None = None  # from AVAILABLE until it is closed
    users: int = 0  # requests in progress
    attempts: int = 0  # loads that failed
    retry_at: float | None = None  # `time.monotonic()` of the next load after a failed one

    def __str__(self) -> str:
        return f"{self.model} version {self.version}"


@dataclasses.dataclass(eq=False)
class Model:
    """A model that is configured, or was."""

    name: str
    config: Any = None  # `ModelConfig`, None once the model is removed
    awaited: bool = False  # whether a call waits for it
    polled: bool = False  # whether the base path was listed, or could not be
    found: Mapping[int, str] | None = None  # the folders below the base path by number, None until they were listed
    wanted: set[int] | None = None  # what the policy chose from them, None until it did
    versions: dict[int, Servable] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> dict[str, int]:
        """The configured versions by label."""
        return dict(self.config.version_labels) if self.config is not None else {}

    @property
    def serving(self) -> dict[int, Servable]:
        """The versions that serve, the oldest first."""
        return {number: each for number, each in sorted(self.versions.items()) if each.state == AVAILABLE}

    @property
    def is_settled(self) -> bool:
        """Whether the model serves, or has no version that still might: no folder, or only broken ones."""
        may_serve = not self.polled or any(map(self._may_serve, self.versions))
        return self.config is None or bool(self.serving) or not may_serve

    def configure(self, config: Any) -> None:
        """Takes a `ModelConfig`, or None. At a new base path, all stays as it is until that has been listed."""
        if config is None or self.config is None or config.base_path != self.config.base_path:
            self.polled, self.found, self.wanted = False, None, None
        self.awaited = config is not None and (self.awaited or self.config is None)
        self.config = config

    def plan(self) -> None:
        """Adds the versions that should serve, and lets those go that should not.

        As with TensorFlow Serving's availability-preserving policy, the last version that serves goes only once a
        successor serves. As there too, a version is known by its number: one that serves stays if its folder changes.
        """
        if self.config is not None and self.found is None:
            return
        found = self.found or {}
        wanted = choose_versions(self.config.model_version_policy, found) if self.config is not None else set()
        before, self.wanted = self.wanted, wanted
        for number in wanted:
            self._add(number, found[number], before)
        for number, servable in self.versions.items():
            if number not in wanted and servable.retry_at is not None:
                servable.state, servable.retry_at = END, None
        surplus = [number for number in self.serving if number not in wanted]
        for number in surplus[:-1] if wanted and len(surplus) == len(self.serving) else surplus:
            self.versions[number].state = UNLOADING

    def _add(self, number: int, directory: str, before: set[int] | None) -> None:
        present = self.versions.get(number)
        moved = present is not None and present.directory != directory
        # A version that failed gets all its attempts again if its folder changed or it is asked for anew.
        anew = present is None or moved or present.error is None or number not in (before or ())
        if present is None or present.state == END or present.retry_at is not None:
            if anew:
                self.versions[number] = Servable(self.name, number, directory)
        elif moved and before is None and present.state != UNLOADING:
            _LOG.warning(
                f"{present} continues from {present.directory}; {directory} is not loaded, because a version is known "
                "by its number. Give it another"
            )

    def _may_serve(self, number: int) -> bool:
        servable = self.versions[number]
        # A version that is wanted again while its last requests run is loaded anew after them.
        again = servable.state == UNLOADING and number in (self.wanted or ())
        return again or (servable.state in (START, LOADING) and servable.error is None)


def version_status(servable: Servable) -> ModelVersionStatus:
    """Returns what GetModelStatus says of a version."""
    code, message = servable.error or (grpc.StatusCode.OK, "")
    status = ModelVersionStatus(version=servable.version, state=servable.state)
    # Setting a field to its default also says that there is a status, which JSON shows only then.
    status.status.error_code = code.value[0]
    status.status.error_message = message
    return status
