"""What a release is: the versions behind the labels `stable`, `canary` and `previous` of a served model.

Every step returns a new release and touches no server, so the rules can be read and tested by themselves.
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

    The canary's label always leads somewhere: without a canary it leads to the stable version, so
    a client that sends a share of its requests to `canary` needs no change between two releases.

    Attributes:
        stable: the version that clients get.
        canary: the version on trial, or the stable one.
        previous: the version that was stable before, kept loaded for a rollback; None without one.
    """

    stable: int
    canary: int
    previous: int | None = None

    @property
    def on_trial(self) -> bool:
        """Whether the canary is another version than the stable one."""
        return self.canary != self.stable

    def labels(self) -> dict[str, int]:
        """Returns the version behind each label."""
        labels = {STABLE: self.stable, CANARY: self.canary}
        return labels if self.previous is None else {**labels, PREVIOUS: self.previous}


def from_labels(labels: Mapping[str, int]) -> Release | None:
    """Returns the release that a model's labels describe, or None where none is labelled stable."""
    if STABLE not in labels:
        return None
    stable = labels[STABLE]
    return Release(stable, labels.get(CANARY, stable), labels.get(PREVIOUS))


def start_canary(release: Release | None, version: int) -> Release:
    """Puts a version on trial, in the place of a canary there may be. Raises ReleaseError without a stable version."""
    if release is None:
        raise ReleaseError(
            f"canary {version}: found no stable version, expected one for clients without a part in the trial. "
            "Label one first: segpipe release promote VERSION"
        )
    if version == release.stable:
        raise ReleaseError(
            f"canary {version}: it is the stable version already. Name another, or end a trial with --withdraw"
        )
    return dataclasses.replace(release, canary=version)


def withdraw_canary(release: Release | None) -> Release:
    """Ends the trial; the canary's label leads to the stable version. Raises ReleaseError where none is on trial."""
    if release is None or not release.on_trial:
        raise ReleaseError("--withdraw: found no canary on trial; there is nothing to withdraw")
    return dataclasses.replace(release, canary=release.stable)


def promote(release: Release | None, version: int | None) -> Release:
    """Makes a version stable and keeps the one before for a rollback.

    Args:
        release: what is served; None before the first release.
        version: the version to make stable; None for the canary.

    Raises:
        ReleaseError: no version is named and none is on trial, or it is stable already.
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
        raise ReleaseError(f"promote {version}: it is the stable version already; nothing was changed")
    return Release(version, version, release.stable)


def rollback(release: Release | None) -> Release:
    """Makes the previous version stable again; one still on trial stays so.

    Raises:
        ReleaseError: no previous version is kept. A rollback keeps none, so a second one in a row
            cannot bring the bad version back.
    """
    if release is None or release.previous is None:
        raise ReleaseError(
            "rollback: found no version labelled previous. Name the version that shall be stable: "
            "segpipe release canary VERSION, then segpipe release promote"
        )
    canary = release.canary if release.on_trial else release.previous
    return Release(release.previous, canary)
