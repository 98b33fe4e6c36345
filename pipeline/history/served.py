"""Which version of a model is served: the one with the largest number, unless labels say otherwise."""

from __future__ import annotations

import dataclasses
import filecmp
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher.moves import Move, newest_moves
from components.pusher.versions import find_versions, version_number
from components.pusher.withdrawn import Withdrawal, read_withdrawn
from components.stored_folder import read_manifest
from components.times import utc_text
from pipeline.configuration.presets import PRESETS
from serving.release.labels import CANARY, PREVIOUS, STABLE
from serving.release.states import LATEST, WITHDRAWN, ServedBy, ServedState

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.storage.workdir import Workdir

# A version's number is the time of its push, in seconds since 1970, if it is at least this one (2001).
_OLDEST_TIME = 10**9


def served_instead(version: str) -> str | None:
    """Returns the version that is served in place of another.

    Args:
        version: the other version's directory, local or on an object store.

    Returns:
        The directory. None if `version` itself is served, as it is or as a copy with a larger number, if
        `segpipe release` made it stable, or if there are no versions beside it.

    Raises:
        SegpipeError: the object store cannot be read.
    """
    base, _ = os.path.split(version.rstrip("/"))
    versions = find_versions(base)
    served = versions[max(versions)] if versions else version
    return None if served == version or is_stable(version) or _same_files(version, served) else served


def is_served(version: str) -> bool:
    """Tells whether a pushed version is served: the stable one, or, if no label was moved, what `served_instead` says.

    Raises:
        SegpipeError: the object store cannot be read.
    """
    has_labels = STABLE in newest_moves(os.path.dirname(version.rstrip("/")))
    return is_stable(version) if has_labels else served_instead(version) is None


def is_stable(version: str) -> bool:
    """Tells whether `segpipe release` made a version stable. Raises SegpipeError if the object store cannot be read."""
    base, _ = os.path.split(version.rstrip("/"))
    stable = newest_moves(base).get(STABLE)
    return stable is not None and stable.version == version_number(version)


def _same_files(version: str, other: str) -> bool:
    if files.is_remote(version):
        published = find_versions(os.path.dirname(version)).values()
        return version in published and read_manifest(version) == read_manifest(other)
    names = list(files.list_files(version))
    _, different, unreadable = filecmp.cmpfiles(version, other, names, shallow=False)
    return names == list(files.list_files(other)) and not different and not unreadable


def check_served_name(config: RunConfig, workdir: Workdir) -> None:
    """Checks that clients can still find the served model, which was named after its architecture before.

    Raises:
        UsageError: there are versions of a model that is named after an architecture, and none of the project's.
    """
    serving, name = workdir.serving(config), config.served_name
    if config.serving_name or find_versions(files.join(serving, name)):
        return
    earlier = [model for model in PRESETS["cpu"] if find_versions(files.join(serving, model))]
    if earlier:
        raise UsageError(
            f"serving_name: found versions of {', '.join(earlier)} in {serving} and none of {name}, "
            "expected the name that clients use to be set: a served model is now named after its project, not its "
            "architecture. "
            f"Set serving_name={earlier[0]} to keep that name, or serving_name={name} to start a new one"
        )


class ServedModels:
    """Tells how versions are served; each directory of versions, and each model of a server, is read once."""

    def __init__(self, served_by: ServedBy | None = None) -> None:
        """Takes what the servers or their configuration say.

        Without it, labels are as `segpipe release` recorded them; without a record, the newest version is served.
        """
        self._folder = functools.cache(_read_folder)
        self._served_by = functools.cache(served_by or (lambda base: _by_moves(self._folder(base).moves)))

    def states(self, version: str) -> list[ServedState]:
        """Returns what is known of a pushed version; empty if it is kept and not served.

        Args:
            version: the version's directory, local or on an object store, as the Pusher recorded it.

        Raises:
            SegpipeError: a server does not answer.
        """
        base, number = os.path.dirname(version.rstrip("/")), version_number(version)
        if number is None:
            return []
        folder, told = self._folder(base), self._served_by(base)
        recorded = {state.state: state for state in _by_moves(folder.moves).get(number, ())}
        states = [recorded.get(state.state, state) for state in (told or {}).get(number, ())]
        if told == {} and number == max(folder.versions, default=None):
            states.append(ServedState(LATEST, utc_text(number) if number >= _OLDEST_TIME else None))
        if withdrawal := folder.withdrawn.get(number):
            states.append(ServedState(WITHDRAWN, utc_text(withdrawal.when), withdrawal.why))
        if not folder.problem and number not in folder.versions:
            states.append(ServedState("removed"))
        return states or ([ServedState("unknown", why=folder.problem)] if folder.problem else [])

    def serves(self, version: str) -> bool:
        """Tells whether the servers know the model that a version is of."""
        return self._served_by(os.path.dirname(version.rstrip("/"))) is not None


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The versions in a directory and the records beside them; or the problem why neither is known."""

    versions: frozenset[int] = frozenset()
    withdrawn: Mapping[int, Withdrawal] = dataclasses.field(default_factory=dict)
    moves: Mapping[str, Move] = dataclasses.field(default_factory=dict)
    problem: str = ""


def _read_folder(base: str) -> _Folder:
    if not files.is_remote(base) and not os.path.isdir(base):
        return _Folder(problem=f"{base}: found no such folder on this machine")
    try:
        return _Folder(frozenset(find_versions(base)), read_withdrawn(base), newest_moves(base))
    except SegpipeError as error:
        return _Folder(problem=str(error))


def _by_moves(moves: Mapping[str, Move]) -> dict[int, list[ServedState]]:
    """Returns the states of the labelled versions, as `segpipe release` recorded them; without a trial, no canary."""
    states: dict[int, list[ServedState]] = {}
    stable = moves[STABLE].version if STABLE in moves else None
    for label in (STABLE, CANARY, PREVIOUS):
        move = moves.get(label)
        if move and move.version and (label != CANARY or move.version != stable):
            state = ServedState(label, utc_text(move.when), by=move.by)
            states.setdefault(move.version, []).append(state)
    return states
