"""The rules of a release: which versions the labels `stable`, `canary` and `previous` of a served model point to.

Each function returns a new release and contacts no server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from components.errors import ReleaseError

STABLE = "stable"
CANARY = "canary"
PREVIOUS = "previous"


@dataclasses.dataclass(frozen=True)
class Release:
    """The versions behind the labels.

    Without a trial, the label `canary` points to the stable version, so clients that send a fraction of their requests
    to `canary` need no change between releases.

    Attributes:
        stable: the version for clients.
        canary: the version on trial, else the stable version.
        previous: the previous stable version, kept loaded for a rollback, or None.
    """

    stable: int
    canary: int
    previous: int | None = None

    @property
    def on_trial(self) -> bool:
        """Whether the canary differs from the stable version."""
        return self.canary != self.stable

    def labels(self) -> dict[str, int]:
        """Returns the version behind each label."""
        labels = {STABLE: self.stable, CANARY: self.canary}
        return labels if self.previous is None else {**labels, PREVIOUS: self.previous}


def from_labels(labels: Mapping[str, int]) -> Release | None:
    """Returns the release that a model's labels describe; None without a stable version."""
    if STABLE not in labels:
        return None
    stable = labels[STABLE]
    return Release(stable, labels.get(CANARY, stable), labels.get(PREVIOUS))


def start_canary(release: Release | None, version: int) -> Release:
    """Puts a version on trial, instead of any current canary. Raises ReleaseError without a stable version."""
    if release is None:
        raise ReleaseError(
            f"canary {version}: found no stable version, expected one for the clients outside the trial. "
            "Label one first: segpipe release promote VERSION"
        )
    if version == release.stable:
        raise ReleaseError(
            f"canary {version}: it is already the stable version. Name another, or end a trial with --withdraw"
        )
    return dataclasses.replace(release, canary=version)


def withdraw_canary(release: Release | None) -> Release:
    """Ends the trial: `canary` points to the stable version. Raises ReleaseError without a trial."""
    if release is None or not release.on_trial:
        raise ReleaseError("--withdraw: found no canary on trial, expected one to withdraw")
    return dataclasses.replace(release, canary=release.stable)


def promote(release: Release | None, version: int | None) -> Release:
    """Makes a version stable, by default the canary, and keeps the previous stable version for a rollback.

    Raises ReleaseError if there is neither a version nor a canary, or if it is already stable.
    """
    if version is None:
        if release is None or not release.on_trial:
            raise ReleaseError(
                "promote: found no canary on trial. Start one with segpipe release canary VERSION, "
                "or name the version: segpipe release promote VERSION"
            )
        version = release.canary
    if release is None:
        return Release(version, version)
    if version == release.stable:
        raise ReleaseError(f"promote {version}: it is already the stable version; nothing was changed")
    return Release(version, version, release.stable)


def rollback(release: Release | None) -> Release:
    """Makes the previous version stable again; a canary stays on trial. Raises ReleaseError without a previous version.

    A rollback keeps no previous version, so a second rollback in a row cannot restore the bad version.
    """
    if release is None or release.previous is None:
        raise ReleaseError(
            "rollback: found no version labelled previous. Choose the stable version: "
            "segpipe release canary VERSION, then segpipe release promote"
        )
    canary = release.canary if release.on_trial else release.previous
    return Release(release.previous, canary)
