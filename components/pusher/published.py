"""Publishes versions on an object store atomically.

An object store cannot rename a folder, and TensorFlow Serving takes any folder whose name is a number for a version
(AspireLatestVersions in tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc, 2.20). So a push
writes to `BASE/version-NUMBER-SUFFIX/`, and then the manifest `BASE/version-NUMBER-SUFFIX.json`
(components/stored_folder.py). A folder without a manifest is not a version. `segpipe models sync` copies published
versions to where TensorFlow Serving reads them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from components import files
from components.errors import SegpipeError
from components.pusher.versions import STORED_VERSION, next_version, published_versions, stored_names
from components.stored_folder import (
    MANIFEST_SUFFIX,
    Manifest,
    copy_files,
    explained,
    manifest_path,
    read_manifest,
    remove,
    write_manifest,
)

# An older folder without a manifest is from a push that was killed.
_LEFTOVER_SECONDS = 24 * 3600


def publish(model_path: str, base_directory: str) -> tuple[str, int]:
    """Copies a SavedModel to an object store as a new version, and removes what killed pushes left.

    Returns:
        The version's directory and number.

    Raises:
        SegpipeError: the store fails, or another push published the same number meanwhile.
    """
    names = stored_names(base_directory)
    _remove_leftovers(base_directory, names)
    number = next_version(name.removesuffix(MANIFEST_SUFFIX) for name in names)
    directory = files.join(base_directory, f"version-{number}-{uuid.uuid4().hex[:8]}")
    manifest = Manifest(files=copy_files(model_path, directory))
    if number in published_versions(base_directory):
        raise SegpipeError(
            f"{base_directory}: found version {number}, which another push published meanwhile, expected a new "
            "number. Run the same command again"
        )
    write_manifest(directory, manifest)
    return directory, number


def unpublish(directory: str, is_wanted: Callable[[], bool]) -> bool:
    """Removes a published version, its manifest first.

    Returns:
        Whether the version was removed; it stays if `is_wanted`, called before and after the manifest is removed,
        returns True.

    Raises:
        SegpipeError: the store fails.
    """
    if is_wanted():
        return False
    manifest = read_manifest(directory)
    with explained(directory):
        files.remove(manifest_path(directory))
    if is_wanted():
        write_manifest(directory, manifest)
        return False
    remove(directory)
    return True


def _remove_leftovers(base_directory: str, names: list[str]) -> None:
    """Removes old folders without a manifest; logs those that the store refuses to remove."""
    oldest = time.time() - _LEFTOVER_SECONDS
    for name in names:
        match = STORED_VERSION.fullmatch(name)
        if match and name + MANIFEST_SUFFIX not in names and int(match[1]) < oldest:
            try:
                remove(files.join(base_directory, name))
            except SegpipeError as error:
                logging.getLogger(__name__).warning("%s was not removed: %s", name, error)
