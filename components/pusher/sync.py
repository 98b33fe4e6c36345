"""Copies the published versions of an object store into a local directory that TensorFlow Serving reads."""

from __future__ import annotations

import dataclasses

from components.errors import SegpipeError, UsageError
from components.pusher.versions import find_versions, new_version, published_versions, remove_version
from components.stored_folder import copy_published, read_manifest


@dataclasses.dataclass(frozen=True)
class Synced:
    """Version numbers that one pass copied and removed, and a message for each failure."""

    copied: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()


def sync(source: str, destination: str, remove: bool = False) -> Synced:
    """Copies each published version that is missing, the newest first.

    A version appears by one rename, after each file's size and SHA-256 were compared with the manifest. Existing
    versions are kept unchanged. The next pass removes what a killed one left.

    Args:
        source: directory of the versions, on an object store.
        destination: local directory, made if missing.
        remove: whether to remove versions that are no longer published, except the newest local one. Nothing is
            removed if the source lists no version.

    Returns:
        What was done. If the source cannot be listed or a version cannot be copied, `errors` says so; the other
        versions are still copied.

    Raises:
        UsageError: the source has an unknown scheme.
    """
    try:
        published = published_versions(source)
    except UsageError:
        raise
    except SegpipeError as error:
        return Synced(errors=(str(error),))
    copied, removed, errors = [], [], []
    for number in sorted(set(published) - set(find_versions(destination)), reverse=True):
        try:
            _copy_version(published[number], destination, number)
            copied.append(number)
        except (OSError, SegpipeError) as error:
            errors.append(f"version {number} was not copied: {error}")
    if remove and published:
        local = find_versions(destination)
        for number in sorted(set(local) - set(published) - {max(local, default=0)}):
            remove_version(destination, number)
            removed.append(number)
    return Synced(tuple(copied), tuple(removed), tuple(errors))


def _copy_version(directory: str, destination: str, number: int) -> None:
    """Copies one version. Raises SegpipeError if a file differs from the manifest."""
    manifest = read_manifest(directory)
    if not manifest.files:
        raise SegpipeError(f"{directory}: found a manifest without files, expected a model's files. Push it again")
    with new_version(destination, number) as version:
        copy_published(directory, manifest, version.staging)
