"""Tells which version of a model is served: the newest one, unless a label says otherwise."""

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
from components.pusher.versions import find_versions, newest_version, version_number
from components.pusher.withdrawn import Withdrawal, read_withdrawn
from components.stored_folder import read_manifest
from components.times import utc_text
from pipeline.configuration.presets import PRESETS
from serving.release.labels import CANARY, PREVIOUS, STABLE
from serving.release.states import LATEST, WITHDRAWN, ServedBy, ServedState

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig
    from pipeline.storage.workdir import Workdir

# A version number of at least this one (the year 2001) is the time of its push, in seconds since 1970.
_OLDEST_TIME = 10**9


def served_instead(version: str) -> str | None:
    """Returns the directory of the version that is served instead of another, local or on an object store.

    It is None if `version` is served, directly or as a copy with a larger number, if it is stable, or if its folder has
    no versions.

    Raises:
        SegpipeError: the object store cannot be read.
    """
    base, _ = os.path.split(version.rstrip("/"))
    served, _ = newest_version(base) or (version, None)
    return None if served == version or is_stable(version) or _same_files(version, served) else served


def is_served(version: str) -> bool:
    """Tells whether a pushed version is served: it is stable or, if no version is, `served_instead` returns None.

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
    """Checks that clients still find the served model, which older versions of segpipe named after its architecture.

    Raises:
        UsageError: only models named after an architecture have versions.
    """
    serving, name = workdir.serving(config.serving_dir), config.served_name
    if config.serving_name or find_versions(files.join(serving, name)):
        return
    earlier = [model for model in PRESETS["source"] if find_versions(files.join(serving, model))]
    if earlier:
        raise UsageError(
            f"serving_name: found versions of {', '.join(earlier)} in {serving} and none of {name}, "
            "expected the name that clients use, because served models are now named after the project, not the "
            f"architecture. Set serving_name={earlier[0]} to keep that name, or serving_name={name} to start a new one"
        )


class ServedModels:
    """The serving states of versions. Reads each directory of versions, and each model of a server, once."""

    def __init__(self, served_by: ServedBy | None = None) -> None:
        """Sets the source of the states: servers or their configuration.

        Without it, labels are as `segpipe release` recorded them. Without a record, the newest version is served.
        """
        self._folder = functools.cache(_read_folder)
        self._served_by = functools.cache(served_by or (lambda base: _by_moves(self._folder(base).moves)))

    def states(self, version: str) -> list[ServedState]:
        """Returns the states of a version that the Pusher recorded; empty if it exists and is not served.

        Raises:
            SegpipeError: a server does not answer.
        """
        base, number = os.path.dirname(version.rstrip("/")), version_number(version)
        if number is None:
            return []
        folder, served = self._folder(base), self._served_by(base)
        recorded = {state.state: state for state in _by_moves(folder.moves).get(number, ())}
        states = [recorded.get(state.state, state) for state in (served or {}).get(number, ())]
        if served == {} and number == max(folder.versions, default=None):
            states.append(ServedState(LATEST, utc_text(number) if number >= _OLDEST_TIME else None))
        if withdrawal := folder.withdrawn.get(number):
            states.append(ServedState(WITHDRAWN, utc_text(withdrawal.when), withdrawal.why))
        if not folder.problem and number not in folder.versions:
            states.append(ServedState("removed"))
        return states or ([ServedState("unknown", why=folder.problem)] if folder.problem else [])

    def serves(self, version: str) -> bool:
        """Tells whether the servers know the model of a version."""
        return self._served_by(os.path.dirname(version.rstrip("/"))) is not None


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The versions in a directory and their records, or the problem that prevented reading them."""

    versions: frozenset[int] = frozenset()
    withdrawn: Mapping[int, Withdrawal] = dataclasses.field(default_factory=dict)
    moves: Mapping[str, Move] = dataclasses.field(default_factory=dict)
    problem: str = ""


def _read_folder(base: str) -> _Folder:
    if not files.is_remote(base) and not os.path.isdir(base):
        return _Folder(problem=f"{base}: folder not found on this machine")
    try:
        return _Folder(frozenset(find_versions(base)), read_withdrawn(base), newest_moves(base))
    except SegpipeError as error:
        return _Folder(problem=str(error))


def _by_moves(moves: Mapping[str, Move]) -> dict[int, list[ServedState]]:
    """Returns the states of the labelled versions, as `segpipe release` recorded them.

    A version that is both canary and stable is only stable.
    """
    states: dict[int, list[ServedState]] = {}
    stable = moves[STABLE].version if STABLE in moves else None
    for label in (STABLE, CANARY, PREVIOUS):
        move = moves.get(label)
        if move and move.version and (label != CANARY or move.version != stable):
            state = ServedState(label, utc_text(move.when), by=move.by)
            states.setdefault(move.version, []).append(state)
    return states
