"""Which version of a model is served: the one with the largest number among the versions beside each other."""

from __future__ import annotations

import filecmp
import os

from components import files
from components.pusher.versions import find_versions


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
        from components.pusher.published import read_manifest  # here, because it imports TensorFlow

        published = find_versions(os.path.dirname(version)).values()
        return version in published and read_manifest(version) == read_manifest(other)
    names = list(files.list_files(version))
    _, different, unreadable = filecmp.cmpfiles(version, other, names, shallow=False)
    return names == list(files.list_files(other)) and not different and not unreadable
