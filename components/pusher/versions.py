"""Numbered version directories, which appear atomically on a local disk.

A new version is filled in a hidden directory beside the others and then renamed, so that readers never see half of one,
even after a kill. TensorFlow Serving ignores names that are not numbers.
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
class NewVersion:
    """A version that is being written.

    Attributes:
        number: its number.
        staging: the empty directory to fill.
        directory: its final directory.
    """

    number: int
    staging: str
    directory: str


def is_number(name: str) -> bool:
    """Tells whether a name is a version number, which has only decimal digits."""
    return name.isascii() and name.isdigit()


def find_versions(base_directory: str) -> dict[int, str]:
    """Returns the directories of a model's versions by number. Raises SegpipeError if a store cannot be listed."""
    if files.is_remote(base_directory):
        return published_versions(base_directory)
    if not os.path.isdir(base_directory):
        return {}
    folders = {int(name): os.path.join(base_directory, name) for name in os.listdir(base_directory) if is_number(name)}
    return {number: folder for number, folder in folders.items() if os.path.isdir(folder)}


def newest_version(base_directory: str) -> tuple[str, int] | None:
    """Returns directory and number of a model's newest version; None without versions. Raises as `find_versions`."""
    versions = find_versions(base_directory)
    if not versions:
        return None
    newest = max(versions)
    return versions[newest], newest


def published_versions(base_directory: str) -> dict[int, str]:
    """Returns the directories of the versions with a manifest on an object store, by number. Raises SegpipeError."""
    names = stored_names(base_directory)
    folders = sorted(name.removesuffix(MANIFEST_SUFFIX) for name in names if name.endswith(MANIFEST_SUFFIX))
    found = filter(None, map(STORED_VERSION.fullmatch, folders))
    return {int(match[1]): files.join(base_directory, match[0]) for match in found}


def stored_names(base_directory: str) -> list[str]:
    """Lists files and folders in a directory of an object store. Raises SegpipeError if the store cannot be listed."""
    with explained(base_directory):
        return files.list_names(base_directory)


def version_number(directory: str) -> int | None:
    """Returns the number in the name of a version's directory, local or on an object store; None without a number."""
    name = directory.rstrip("/").rpartition("/")[2]
    if is_number(name):
        return int(name)
    match = STORED_VERSION.fullmatch(name)
    return int(match[1]) if match else None


def next_version(names: Iterable[str], now: float | None = None) -> int:
    """Returns the time in whole seconds, or one more than the largest version if that is later.

    Args:
        names: names of the entries beside the new version.
        now: seconds since 1970; None for the current time.
    """
    taken = [number for number in map(version_number, names) if number is not None]
    return max(int(time.time() if now is None else now), *(number + 1 for number in taken), 1)


@contextlib.contextmanager
def new_version(base_directory: str, number: int | None = None) -> Iterator[NewVersion]:
    """Yields a version to fill; it appears when the block ends without an exception, unless it is empty.

    A lock serialises the writers of a directory, which is local and made if missing. Without a number, the version gets
    the next one.
    """
    with _locked(base_directory):
        number = next_version(os.listdir(base_directory)) if number is None else number
        version = NewVersion(
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
    """Removes a version from a local directory atomically: renames it, then deletes its files.

    Returns:
        Whether the version was removed; it stays if `is_wanted`, called before and after the renaming, returns True.
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
    """Locks a directory of versions, made if missing, and removes what a killed writer left in it.

    A lock ends with its process, so the hidden directories found under the lock have no writer.
    """
    os.makedirs(base_directory, exist_ok=True)
    with FileLock(os.path.join(base_directory, _LOCK_FILE)):
        for name in os.listdir(base_directory):
            if name.startswith(_STAGING_PREFIX):
                shutil.rmtree(os.path.join(base_directory, name))
        yield
