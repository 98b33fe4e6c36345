"""A model, its versions and their states. The registry's lock guards them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.release.configuration import choose_versions
from serving.server.session import SavedModelSession

_LOG = logging.getLogger("segpipe.serving")
State = ModelVersionStatus.State
START, LOADING, AVAILABLE = State.START, State.LOADING, State.AVAILABLE
UNLOADING, END = State.UNLOADING, State.END


@dataclasses.dataclass(eq=False)
class Servable:
    """A version of a model, with TensorFlow Serving's states."""

    model: str
    version: int
    directory: str
    state: int = START
    error: tuple[grpc.StatusCode, str] | None = None  # of the last failed load
    session: SavedModelSession | None = None  # set from AVAILABLE until it is closed
    users: int = 0  # requests in progress
    attempts: int = 0  # failed loads
    retry_at: float | None = None  # `time.monotonic()` of the next load after a failure

    def __str__(self) -> str:
        return f"{self.model} version {self.version}"


@dataclasses.dataclass(eq=False)
class Model:
    """A configured or removed model."""

    name: str
    config: Any = None  # `ModelConfig`; None once removed
    awaited: bool = False  # a reload waits for it
    polled: bool = False  # the base path was listed, or could not be
    found: Mapping[int, str] | None = None  # version folders by number; None before the first listing
    wanted: set[int] | None = None  # versions that the policy selected; None before that
    versions: dict[int, Servable] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> dict[str, int]:
        """The configured versions by label."""
        return dict(self.config.version_labels) if self.config is not None else {}

    @property
    def serving(self) -> dict[int, Servable]:
        """The available versions, oldest first."""
        versions = sorted(self.versions.items())
        return {number: servable for number, servable in versions if servable.state == AVAILABLE}

    @property
    def is_settled(self) -> bool:
        """Whether the model is available, or has no version left that may become available."""
        pending = not self.polled or any(map(self._is_pending, self.versions))
        return self.config is None or bool(self.serving) or not pending

    def configure(self, config: Any) -> None:
        """Sets the `ModelConfig`; None removes the model. A new base path takes effect once it has been listed."""
        if config is None or self.config is None or config.base_path != self.config.base_path:
            self.polled, self.found, self.wanted = False, None, None
        self.awaited = config is not None and (self.awaited or self.config is None)
        self.config = config

    def plan(self) -> None:
        """Adds the versions that the policy selects and marks others for unloading.

        As in TensorFlow Serving's availability-preserving policy, the last available version stays until a successor is
        available, and the number identifies a version: a loaded version stays if its folder changes.
        """
        if self.config is not None and self.found is None:
            return
        found = self.found or {}
        wanted = choose_versions(self.config, found) if self.config is not None else set()
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
        # A failed version is retried from the start if its folder changed or it was selected again.
        reset = present is None or moved or present.error is None or number not in (before or ())
        if present is None or present.state == END or present.retry_at is not None:
            if reset:
                self.versions[number] = Servable(self.name, number, directory)
        elif moved and before is None and present.state != UNLOADING:
            _LOG.warning(
                f"{present} is still served from {present.directory}, not from {directory}: both have the same version "
                "number. Give the new one another number"
            )

    def _is_pending(self, number: int) -> bool:
        servable = self.versions[number]
        # A version selected again while it unloads is loaded again afterwards.
        reloads = servable.state == UNLOADING and number in (self.wanted or ())
        return reloads or (servable.state in (START, LOADING) and servable.error is None)


def version_status(servable: Servable) -> ModelVersionStatus:
    """Returns a version's entry in GetModelStatus."""
    code, message = servable.error or (grpc.StatusCode.OK, "")
    status = ModelVersionStatus(version=servable.version, state=servable.state)
    # Setting the fields, even to their defaults, makes the status present in JSON.
    status.status.error_code = code.value[0]
    status.status.error_message = message
    return status
