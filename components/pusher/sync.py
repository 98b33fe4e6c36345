"""Copies the published versions of an object store into a local directory that TensorFlow Serving reads."""

from __future__ import annotations

import dataclasses

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher.versions import find_versions, new_version, published_versions, remove_version
from components.stored_folder import check, copy_paths, read_manifest


@dataclasses.dataclass(frozen=True)
class Synced:
    """Result of one pass.

    Attributes:
        copied: numbers of the versions that were copied.
        removed: numbers of the versions that were removed.
        errors: what failed, a text each.
    """

    copied: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()


def sync(source: str, destination: str, remove: bool = False) -> Synced:
    """Copies each published version that is missing, the newest first.

    A version appears by one rename, after size and SHA-256 of each file were compared with its manifest. Versions that
    exist already are kept as they are. What a killed pass left is removed by the next one.

    Args:
        source: directory of the versions, on an object store.
        destination: local directory, made if missing.
        remove: whether to remove versions that are no longer published, except for the newest local one. Nothing is
            removed while the source lists no version.

    Returns:
        What was done. A source that cannot be listed is an error in it, as is a version that cannot be copied; the
        other versions are copied all the same.

    Raises:
        UsageError: the source has a scheme that segpipe does not know.
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
        raise SegpipeError(f"{directory}: found a manifest without files, expected those of a model. Push it again")
    with new_version(destination, number) as version:
        for path, found in copy_paths(list(manifest.files), directory, version.staging).items():
            check(files.join(directory, path), found, manifest.files[path])
