"""Numbered version directories that appear whole or not at all.

A new version is filled in a hidden directory beside the others and then renamed, so a reader, or a
kill at any moment, never meets half of one. TensorFlow Serving ignores names that are no number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator

_STAGING_PREFIX = ".tmp-"
_LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True)
class Version:
    """A version in the making.

    Attributes:
        number: its number.
        staging: the empty directory to fill.
        directory: where it will be served from.
    """

    number: int
    staging: str
    directory: str


def next_version(names: Iterable[str], now: float | None = None) -> int:
    """Returns the time in whole seconds, or one more than the largest version there is, if that is later.

    Args:
        names: names of the entries beside which the version will stand.
        now: seconds since 1970; the current time where None.
    """
    taken = [int(name) for name in (name.removeprefix(_STAGING_PREFIX) for name in names) if _is_number(name)]
    return max(int(time.time() if now is None else now), *(number + 1 for number in taken), 1)


@contextlib.contextmanager
def new_version(base_directory: str) -> Iterator[Version]:
    """Gives a version to fill, which is served once the block ends without an exception.

    Pushes into one directory take turns. What a killed push left behind is removed first: the lock
    dies with its process, so whatever lies there under the lock is nobody's.

    Args:
        base_directory: local directory of the versions, made where it is missing.
    """
    os.makedirs(base_directory, exist_ok=True)
    with open(os.path.join(base_directory, _LOCK_FILE), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = os.listdir(base_directory)
        number = next_version(names)
        for name in names:
            if name.startswith(_STAGING_PREFIX):
                shutil.rmtree(os.path.join(base_directory, name))
        version = Version(
            number,
            os.path.join(base_directory, f"{_STAGING_PREFIX}{number}"),
            os.path.join(base_directory, str(number)),
        )
        os.mkdir(version.staging)
        try:
            yield version
            os.rename(version.staging, version.directory)
        finally:
            shutil.rmtree(version.staging, ignore_errors=True)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
