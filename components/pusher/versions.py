"""Numbered version directories, which on a local disk appear whole or not at all.

A new version is filled in a hidden directory beside the others and then renamed, so a reader, or a kill at any
moment, never meets half of one. TensorFlow Serving ignores names that are not numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator

from filelock import FileLock

from components import files
from components.stored_folder import MANIFEST_SUFFIX, explained

# Name of a version's folder on an object store: see components/pusher/published.py.
STORED_VERSION = re.compile(r"version-([0-9]{1,18})-[0-9a-f]{8}")
_STAGING_PREFIX = ".tmp-"
_LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True)
class Version:
    """A version that is being written.

    Attributes:
        number: its number.
        staging: the empty directory to fill.
        directory: the directory that it will be served from.
    """

    number: int
    staging: str
    directory: str


def is_number(name: str) -> bool:
    """Returns whether a name is a version number: decimal digits alone."""
    return name.isascii() and name.isdigit()


def find_versions(base_directory: str) -> dict[int, str]:
    """Returns a model's versions: directory by number.

    Args:
        base_directory: directory of the versions: a local one, whose numbered folders are the versions, or an object
            store, see `published_versions`.

    Raises:
        SegpipeError: the object store cannot be listed.
    """
    if files.is_remote(base_directory):
        return published_versions(base_directory)
    if not os.path.isdir(base_directory):
        return {}
    folders = {int(name): os.path.join(base_directory, name) for name in os.listdir(base_directory) if is_number(name)}
    return {number: folder for number, folder in folders.items() if os.path.isdir(folder)}


def published_versions(base_directory: str) -> dict[int, str]:
    """Returns the versions on an object store whose manifest was written: directory by number.

    Raises:
        SegpipeError: the store cannot be listed.
    """
    names = stored_names(base_directory)
    folders = sorted(name.removesuffix(MANIFEST_SUFFIX) for name in names if name.endswith(MANIFEST_SUFFIX))
    found = filter(None, map(STORED_VERSION.fullmatch, folders))
    return {int(match[1]): files.join(base_directory, match[0]) for match in found}


def stored_names(base_directory: str) -> list[str]:
    """Returns the names of files and folders in a directory of an object store; none if it does not exist.

    Raises:
        SegpipeError: the store cannot be listed.
    """
    with explained(base_directory):
        return files.list_names(base_directory)


def version_number(directory: str) -> int | None:
    """Returns the number of a version by the name of its directory, local or on an object store; None if none."""
    name = directory.rstrip("/").rpartition("/")[2]
    if is_number(name):
        return int(name)
    match = STORED_VERSION.fullmatch(name)
    return int(match[1]) if match else None


def next_version(names: Iterable[str], now: float | None = None) -> int:
    """Returns the time in whole seconds, or one more than the largest version if that is later.

    Args:
        names: names of the entries beside which the version will stand.
        now: seconds since 1970; None for the current time.
    """
    taken = [number for number in map(version_number, names) if number is not None]
    return max(int(time.time() if now is None else now), *(number + 1 for number in taken), 1)


@contextlib.contextmanager
def new_version(base_directory: str, number: int | None = None) -> Iterator[Version]:
    """Yields a version to fill, which is served once the block ends without an exception; not if it is left empty.

    Writers into one directory take turns.

    Args:
        base_directory: local directory of the versions, made if missing.
        number: the version's number; None for the next one.
    """
    with _locked(base_directory):
        number = next_version(os.listdir(base_directory)) if number is None else number
        version = Version(
            number,
            os.path.join(base_directory, f"{_STAGING_PREFIX}{number}"),
            os.path.join(base_directory, str(number)),
        )
        os.mkdir(version.staging)
        try:
            yield version
            if os.listdir(version.staging):
                os.rename(version.staging, version.directory)
        finally:
            shutil.rmtree(version.staging, ignore_errors=True)


def remove_version(base_directory: str, number: int, is_wanted: Callable[[], bool] = lambda: False) -> bool:
    """Removes a version in one step: renames it, then deletes its files.

    Args:
        base_directory: local directory of the versions.
        number: the version.
        is_wanted: asked before and after the renaming; if it says yes, the version stays.

    Returns:
        Whether the version was removed.
    """
    with _locked(base_directory):
        directory = os.path.join(base_directory, str(number))
        removed = os.path.join(base_directory, f"{_STAGING_PREFIX}{number}")
        if is_wanted():
            return False
        os.rename(directory, removed)
        if is_wanted():
            os.rename(removed, directory)
            return False
        shutil.rmtree(removed)
        return True


@contextlib.contextmanager
def _locked(base_directory: str) -> Iterator[None]:
    """Holds a directory of versions, made if missing, and removes what a killed writer left in it.

    The lock ends with its process, so no writer owns the hidden directories found under the lock.
    """
    os.makedirs(base_directory, exist_ok=True)
    with FileLock(os.path.join(base_directory, _LOCK_FILE)):
        for name in os.listdir(base_directory):
            if name.startswith(_STAGING_PREFIX):
                shutil.rmtree(os.path.join(base_directory, name))
        yield
