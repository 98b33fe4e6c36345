"""Which models, versions and labels there are at this moment, and the lending of versions to requests."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from serving.server.errors import failed_precondition, invalid_argument, not_found
from serving.server.model_config import labels_of
from serving.server.servable import AVAILABLE, LOADING, START, UNLOADING, Servable


class ModelRegistry:
    """The models of a server. Requests read it, the manager's threads change it.

    Attributes:
        changed: the lock of every other attribute, notified of every change.
        models: the configured models, `ModelConfig`, by name.
        found: the version folders of each, by number; of those models whose folders could be read.
        looked_at: the models whose folders the manager has tried to read.
        servables: the versions of each that were ever loaded, or tried, by number.
        wanted: the numbers that each one's policy asks for; of those models that the manager has decided on.
        dirty: whether something changed that the manager has not looked at.
        closed: whether the manager has ended, and nothing will change any more.
    """

    def __init__(self, allow_labels_for_unavailable: bool = False) -> None:
        """Starts without models.

        Args:
            allow_labels_for_unavailable: whether a new label may point to a version that does not serve.
        """
        self.changed = threading.Condition()
        self.models: dict[str, Any] = {}
        self.found: dict[str, Mapping[int, str]] = {}
        self.looked_at: set[str] = set()
        self.servables: dict[str, dict[int, Servable]] = {}
        self.wanted: dict[str, set[int]] = {}
        self.dirty = False
        self.closed = False
        self._labels: dict[str, dict[str, int]] = {}
        self._considered: set[str] = set()
        self._awaited: set[str] = set()
        self._allow_labels_for_unavailable = allow_labels_for_unavailable

    def configure(self, models: list[Any]) -> list[str]:
        """Replaces the configured models, `ModelConfig`, and their labels; all or nothing.

        Returns:
            The names to wait for: those that were not configured before, and those that an earlier call waits for.

        Raises:
            ServingError: FAILED_PRECONDITION; a label points to a version that does not serve.
        """
        with self.changed:
            labels = labels_of(models)
            for name, versions in labels.items():
                self._check_labels(name, versions)
            added = {model.name for model in models if model.name not in self.models}
            moved = {model.name for model in models if not self._stays(model)}
            self.models = {model.name: model for model in models}
            # Folders that were found elsewhere say nothing; until the new place was looked at, all stays as it is.
            stay = self.models.keys() - moved
            self.found = {name: found for name, found in self.found.items() if name in stay}
            self.wanted = {name: wanted for name, wanted in self.wanted.items() if name in stay}
            self.looked_at -= moved
            self._considered -= moved
            self._labels = labels
            self.wake()
            self._awaited = added | (self._awaited & self.models.keys())
            return sorted(self._awaited)

    @contextlib.contextmanager
    def use(self, spec: Any) -> Iterator[Servable]:
        """Lends the version that a `ModelSpec` names, which is not unloaded until it is given back.

        Raises:
            ServingError: INVALID_ARGUMENT for no name or an unknown label, NOT_FOUND where no such version serves.
        """
        with self.changed:
            servable = self._find(spec)
            servable.users += 1
        try:
            yield servable
        finally:
            with self.changed:
                servable.users -= 1
                if servable.state == UNLOADING:
                    self.wake()

    def versions(self, model: str) -> list[Servable]:
        """Returns copies of a model's versions, the newest first."""
        with self.changed:
            versions = self.servables.get(model, {})
            return [dataclasses.replace(versions[number]) for number in sorted(versions, reverse=True)]

    def model_names(self) -> list[str]:
        """Returns the names of the configured models."""
        with self.changed:
            return list(self.models)

    def labels(self) -> dict[str, dict[str, int]]:
        """Returns each model's version labels."""
        with self.changed:
            return {name: dict(labels) for name, labels in self._labels.items()}

    def is_available(self, model: str) -> bool:
        """Tells whether a model has a version that serves."""
        with self.changed:
            return any(servable.state == AVAILABLE for servable in self.servables.get(model, {}).values())

    def wait_until_settled(self, models: list[str]) -> None:
        """Waits until each model serves, or has no version that still might: no folder, or only broken ones.

        Where the server ends meanwhile, it waits no longer.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closed or all(self._is_settled(model) for model in models))
            self._awaited -= set(models)

    def all_servables(self) -> list[Servable]:
        """Returns every version of every model. The caller holds the lock."""
        return [servable for versions in self.servables.values() for servable in versions.values()]

    def mark_considered(self) -> None:
        """Says that the manager has decided on all that it knows. The caller holds the lock."""
        self._considered = set(self.looked_at)
        self.changed.notify_all()

    def reconsider(self, model: str) -> None:
        """Says that the manager has to decide again on a model. The caller holds the lock."""
        self._considered.discard(model)
        self.wake()

    def wake(self) -> None:
        """Has the manager look again. The caller holds the lock."""
        self.dirty = True
        self.changed.notify_all()

    def _stays(self, model: Any) -> bool:
        return model.name in self.models and self.models[model.name].base_path == model.base_path

    def _find(self, spec: Any) -> Servable:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        versions = self.servables.get(spec.name, {})
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            available = [number for number, servable in versions.items() if servable.state == AVAILABLE]
            if not available:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            return versions[max(available)]
        number = spec.version.value if choice == "version" else self._labelled(spec.name, spec.version_label)
        if number not in versions or versions[number].state != AVAILABLE:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return versions[number]

    def _labelled(self, model: str, label: str) -> int:
        labels = self._labels.get(model, {})
        if label not in labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _check_labels(self, model: str, labels: Mapping[str, int]) -> None:
        versions = self.servables.get(model, {})
        present = self._labels.get(model, {})
        for label, number in labels.items():
            if number in versions and versions[number].state == AVAILABLE:
                continue
            if not self._allow_labels_for_unavailable or present.get(label, number) != number:
                raise failed_precondition(
                    f"Request to assign label to version {number} of model {model}, "
                    "which is not currently available for inference"
                )

    def _is_settled(self, model: str) -> bool:
        if model not in self.models:
            return True
        versions = self.servables.get(model, {}).values()
        serves = any(servable.state == AVAILABLE for servable in versions)
        return serves or (model in self._considered and not any(map(self._may_serve, versions)))

    def _may_serve(self, servable: Servable) -> bool:
        # A version that is wanted again while its last requests run is loaded anew after them.
        if servable.state == UNLOADING:
            return servable.version in self.wanted.get(servable.model, ())
        return servable.state in (START, LOADING) and not servable.broken
