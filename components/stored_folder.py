"""Folders on an object store that readers see whole or not at all, and copies of them on the local disk.

An object store cannot rename a folder. So the last write of a folder is one object beside it, `FOLDER.json`, the
manifest. A folder without its manifest does not count: a writer that was killed left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from filelock import FileLock
from pydantic import Field, ValidationError, field_validator

from components import files, object_store
from components.errors import SegpipeError
from components.settings import Settings

MANIFEST_SUFFIX = ".json"
_COPIES_AT_ONCE = 8


class StoredFile(Settings):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Settings):
    """The files of a folder by their path below it."""

    files: dict[str, StoredFile]

    @field_validator("files")
    @classmethod
    def _check_paths(cls, value: dict[str, StoredFile]) -> dict[str, StoredFile]:
        """Refuses a path that leads out of the folder."""
        for path in value:
            if os.path.isabs(path) or ".." in path.split("/"):
                raise ValueError(f"found the path {path}, expected one below the folder")
        return value


def publish(folder: str, manifest: Manifest) -> None:
    """Makes the files of a folder count, by writing its manifest. Raises SegpipeError."""
    path = folder.rstrip("/") + MANIFEST_SUFFIX
    with explained(path):
        files.write_bytes(path, manifest.model_dump_json(indent=1).encode())


def withdraw(folder: str) -> None:
    """Removes a folder, its manifest first, so that no reader finds half of it. Raises SegpipeError."""
    with explained(folder):
        files.remove(folder.rstrip("/") + MANIFEST_SUFFIX)
        files.remove_folder(folder)


def is_published(folder: str) -> bool:
    """Tells whether a folder has its manifest. Raises SegpipeError if the store does not say."""
    with explained(folder):
        return files.exists(folder.rstrip("/") + MANIFEST_SUFFIX)


def read_manifest(folder: str) -> Manifest:
    """Returns what a published folder consists of.

    Raises:
        SegpipeError: the manifest is missing, damaged or cannot be read.
    """
    path = folder.rstrip("/") + MANIFEST_SUFFIX
    with explained(path):
        content = files.read_bytes(path)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SegpipeError(
            f"{path}: found a damaged manifest ({reason}), expected the files of {folder}. "
            "Delete it, then write the folder again: push the model, or run the pipeline"
        ) from None


def copy_files(source: str, target: str) -> dict[str, StoredFile]:
    """Copies a folder's files, from and to local disks or object stores, several at once.

    Returns:
        What was copied, by path below the folder.

    Raises:
        SegpipeError: a file cannot be read or written.
    """
    return copy_paths(_walk(source), source, target)


def copy_paths(paths: list[str], source: str, target: str) -> dict[str, StoredFile]:
    """Copies some files of a folder, given by their path below it, as `copy_files` does. Raises SegpipeError."""
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        copied = pool.map(lambda path: copy_file(files.join(source, path), files.join(target, path)), paths)
        return dict(zip(paths, copied, strict=True))


def copy_file(source: str, target: str) -> StoredFile:
    """Copies a file and makes the folder of the copy. Returns what was read. Raises SegpipeError."""
    measure = _Measure()
    with explained(target):
        files.write_chunks(target, measure.watch(_chunks(source)))
    return measure.result()


def hash_files(folder: str) -> dict[str, StoredFile]:
    """Returns size and hash of a folder's files by path below it. Raises SegpipeError."""
    found = {}
    for path in _walk(folder):
        measure = _Measure()
        for _ in measure.watch(_chunks(files.join(folder, path))):
            pass
        found[path] = measure.result()
    return found


def check(source: str, found: StoredFile, expected: StoredFile) -> None:
    """Compares a file that was copied with its entry in the manifest. Raises SegpipeError if they differ."""
    if found != expected:
        raise SegpipeError(
            f"{source}: found {found.size} bytes with SHA-256 {found.sha256}, expected {expected.size} bytes with "
            f"{expected.sha256}, as its manifest says. Push the model again, or run the pipeline again"
        )


def scratch_path(folder: str) -> str:
    """Returns where the local copy of a folder on an object store lies; the same for each process of a user.

    It is below `segpipe-UID` in the system's folder for temporary files, which the variable TMPDIR names.
    """
    root = os.path.join(tempfile.gettempdir(), f"segpipe-{os.getuid()}")
    return os.path.join(root, *folder.rstrip("/").replace("://", "/").split("/"))


def fetch(folder: str) -> str:
    """Returns a local folder with the files of a published one; what is unchanged is not copied again.

    A local folder is returned as it is.

    Raises:
        SegpipeError: the folder was never published, differs from its manifest, or cannot be copied.
    """
    if not files.is_remote(folder):
        return folder
    local = scratch_path(folder)
    manifest = read_manifest(folder)
    make_scratch(os.path.dirname(local))
    with FileLock(local + ".lock"):
        if not _is_copy(local, manifest):
            drop_copy(folder)
            copied = copy_paths(list(manifest.files), folder, local)
            for path, found in copied.items():
                check(files.join(folder, path), found, manifest.files[path])
            os.makedirs(local, exist_ok=True)
            publish(local, manifest)
    return local


def drop_copy(folder: str) -> None:
    """Removes the local copy of a folder on an object store."""
    withdraw(scratch_path(folder))


def make_scratch(path: str) -> None:
    """Makes a folder for local copies, which only its owner may enter. Raises SegpipeError if it is another user's."""
    root = os.path.join(tempfile.gettempdir(), f"segpipe-{os.getuid()}")
    os.makedirs(root, mode=0o700, exist_ok=True)
    if os.stat(root).st_uid != os.getuid():
        raise SegpipeError(f"{root}: found a folder of another user, expected one's own. Set TMPDIR to another folder")
    os.makedirs(path, exist_ok=True)


def _is_copy(local: str, manifest: Manifest) -> bool:
    """Tells whether a local folder has all files of a manifest: a cleaner of temporary files removes single ones."""
    if not is_published(local) or read_manifest(local) != manifest:
        return False
    paths = {os.path.join(local, path): file.size for path, file in manifest.files.items()}
    return all(os.path.isfile(path) and os.path.getsize(path) == size for path, size in paths.items())


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns errors about a file or folder into SegpipeError."""
    try:
        yield
    except OSError as error:
        raise SegpipeError(
            f"{error.filename or path}: {error.strerror or error}. Check the path and the right to it, then try again"
        ) from error


def _chunks(path: str) -> Iterator[bytes]:
    """Yields a file's content. Raises SegpipeError."""
    with explained(path):
        yield from files.chunks(path)


class _Measure:
    """Size and hash of chunks that pass."""

    def __init__(self) -> None:
        self._digest, self._size = hashlib.sha256(), 0

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._digest.update(chunk)
            self._size += len(chunk)
            yield chunk

    def result(self) -> StoredFile:
        return StoredFile(size=self._size, sha256=self._digest.hexdigest())


def _walk(folder: str) -> list[str]:
    """Returns the paths of the files below a folder, relative to it, sorted; hidden ones too."""
    with explained(folder):
        if files.is_remote(folder):
            return sorted(meta["path"] for meta in object_store.objects(folder))
        found = [os.path.join(where, name) for where, _, names in os.walk(folder, onerror=_refuse) for name in names]
        return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)


def _refuse(error: OSError) -> None:
    raise error
