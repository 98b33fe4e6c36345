"""Which version of a model is served: of those beside each other the one with the largest number."""

from __future__ import annotations

import filecmp
import os

from components import files


def served_instead(version: str) -> str | None:
    """Returns the version that is served in place of another.

    Args:
        version: the other one's directory.

    Returns:
        The directory; None where `version` itself is served, as it is or as a copy with a larger number, and where
        that cannot be told: on an object store, or with no versions left beside it.
    """
    base, number = os.path.split(version)
    if files.is_remote(version) or not os.path.isdir(base):
        return None
    newest = max((name for name in os.listdir(base) if name.isdigit()), key=int, default=number)
    served = os.path.join(base, newest)
    return None if newest == number or _same_files(version, served) else served


def _same_files(folder: str, other: str) -> bool:
    names = list(files.list_files(folder))
    _, different, unreadable = filecmp.cmpfiles(folder, other, names, shallow=False)
    return names == list(files.list_files(other)) and not different and not unreadable
