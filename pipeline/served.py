"""Which version of a model is served: the one with the largest number, unless labels say otherwise."""

from __future__ import annotations

import filecmp
import functools
import os
from collections.abc import Mapping

from components import files
from components.errors import SegpipeError
from components.pusher.versions import find_versions, version_number
from components.pusher.withdrawn import Withdrawal, read_withdrawn
from components.stored_folder import read_manifest
from components.times import utc_text
from serving.release.states import LATEST, WITHDRAWN, ServedBy, ServedState

# A version's number is the time of its push, in seconds since 1970, if it is at least this one (2001).
_OLDEST_TIME = 10**9


def served_instead(version: str) -> str | None:
    """Returns the version that is served in place of another.

    Args:
        version: the other version's directory, local or on an object store.

    Returns:
        The directory. None if `version` itself is served, as it is or as a copy with a larger number, or if there are
        no versions beside it.

    Raises:
        SegpipeError: the object store cannot be read.
    """
    base, _ = os.path.split(version.rstrip("/"))
    versions = find_versions(base)
    served = versions[max(versions)] if versions else version
    return None if served == version or _same_files(version, served) else served


def _same_files(version: str, other: str) -> bool:
    if files.is_remote(version):
        published = find_versions(os.path.dirname(version)).values()
        return version in published and read_manifest(version) == read_manifest(other)
    names = list(files.list_files(version))
    _, different, unreadable = filecmp.cmpfiles(version, other, names, shallow=False)
    return names == list(files.list_files(other)) and not different and not unreadable


class ServedModels:
    """Tells how versions are served; each directory of versions, and each model of a server, is read once."""

    def __init__(self, served_by: ServedBy | None = None) -> None:
        """Takes what the servers or their configuration say; without it, the newest version counts as served."""
        self._folder = functools.cache(_read_folder)
        self._served_by = functools.cache(served_by or (lambda base: {}))

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
        versions, withdrawn, problem = self._folder(base)
        told = self._served_by(base)
        states = list(told.get(number, ())) if told else []
        if told == {} and versions and number == max(versions):
            states.append(ServedState(LATEST, utc_text(number) if number >= _OLDEST_TIME else None))
        if number in withdrawn:
            states.append(ServedState(WITHDRAWN, utc_text(withdrawn[number].when), withdrawn[number].why))
        if not problem and number not in versions:
            states.append(ServedState("removed"))
        return states or ([ServedState("unknown", why=problem)] if problem else [])

    def serves(self, version: str) -> bool:
        """Tells whether the servers know the model that a version is of."""
        return self._served_by(os.path.dirname(version.rstrip("/"))) is not None


def _read_folder(base: str) -> tuple[set[int], Mapping[int, Withdrawal], str]:
    """Returns the numbers of a model's versions, the withdrawn ones, and why neither is known; else an empty text."""
    if not files.is_remote(base) and not os.path.isdir(base):
        return set(), {}, f"{base}: found no such folder on this machine"
    try:
        return set(find_versions(base)), read_withdrawn(base), ""
    except SegpipeError as error:
        return set(), {}, str(error)
