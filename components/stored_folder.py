"""Writes folders to an object store atomically, and copies them to the local disk.

An object store cannot rename a folder. So the last write of a folder is one object beside it, its manifest
`FOLDER.json`. A folder without a manifest is ignored: its writer was killed.
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

from components import files
from components.errors import SegpipeError
from components.settings import Settings

MANIFEST_SUFFIX = ".json"
_COPIES_AT_ONCE = 8


class StoredFile(Settings):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Settings):
    """The files of a folder, by path relative to it."""

    files: dict[str, StoredFile]

    @field_validator("files")
    @classmethod
    def _check_paths(cls, value: dict[str, StoredFile]) -> dict[str, StoredFile]:
        """Rejects a path outside the folder."""
        for path in value:
            if os.path.isabs(path) or ".." in path.split("/"):
                raise ValueError(f"found the path {path}, expected one below the folder")
        return value


def manifest_path(folder: str) -> str:
    """Returns the path of a folder's manifest."""
    return folder.rstrip("/") + MANIFEST_SUFFIX


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Publishes a folder by writing its manifest. Raises SegpipeError."""
    path = manifest_path(folder)
    with explained(path):
        files.write_bytes(path, manifest.model_dump_json(indent=1).encode())


def remove(folder: str) -> None:
    """Removes a folder, its manifest first, so that no reader finds half of it. Raises SegpipeError."""
    with explained(folder):
        files.remove(manifest_path(folder))
        files.remove_folder(folder)


def is_published(folder: str) -> bool:
    """Tells whether a folder has a manifest. Raises SegpipeError if the store cannot be asked."""
    with explained(folder):
        return files.exists(manifest_path(folder))


def read_manifest(folder: str) -> Manifest:
    """Returns the manifest of a published folder.

    Raises:
        SegpipeError: the manifest is missing, damaged or cannot be read.
    """
    path = manifest_path(folder)
    with explained(path):
        content = files.read_bytes(path)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SegpipeError(
            f"{path}: found a damaged manifest ({reason}), expected the files of {folder}. "
            "Delete it, then push the model or run the pipeline again"
        ) from None


def copy_files(source: str, target: str) -> dict[str, StoredFile]:
    """Copies a folder's files in parallel; both folders are local or on an object store.

    Returns:
        Size and hash of each file, by path relative to the folder.

    Raises:
        SegpipeError: a file cannot be read or written.
    """
    return _copy_paths(_list_paths(source), source, target)


def copy_published(folder: str, manifest: Manifest, target: str) -> None:
    """Copies the files of a folder's manifest as `copy_files` does.

    Raises:
        SegpipeError: a file cannot be read or written, or differs from its entry in the manifest.
    """
    for path, found in _copy_paths(list(manifest.files), folder, target).items():
        expected = manifest.files[path]
        if found != expected:
            raise SegpipeError(
                f"{files.join(folder, path)}: found {found.size} bytes with SHA-256 {found.sha256}, expected "
                f"{expected.size} bytes with {expected.sha256}, as in its manifest. Push the model again, or run the "
                "pipeline again"
            )


def _copy_paths(paths: list[str], source: str, target: str) -> dict[str, StoredFile]:
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        copied = pool.map(lambda path: _copy_file(files.join(source, path), files.join(target, path)), paths)
        return dict(zip(paths, copied, strict=True))


def _copy_file(source: str, target: str) -> StoredFile:
    content = _Hashed(source)
    with explained(target):
        files.write_chunks(target, iter(content))
    return content.result()


def hash_files(folder: str) -> dict[str, StoredFile]:
    """Returns size and hash of a folder's files, by path relative to it. Raises SegpipeError."""
    found = {}
    for path in _list_paths(folder):
        content = _Hashed(files.join(folder, path))
        for _ in content:
            pass
        found[path] = content.result()
    return found


class _Hashed:
    """The chunks of a file; size and hash after they were read. Reading raises SegpipeError."""

    def __init__(self, path: str) -> None:
        self._path, self._digest, self._size = path, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        with explained(self._path):
            for chunk in files.chunks(self._path):
                self._digest.update(chunk)
                self._size += len(chunk)
                yield chunk

    def result(self) -> StoredFile:
        return StoredFile(size=self._size, sha256=self._digest.hexdigest())


def scratch_path(folder: str) -> str:
    """Returns the path of the local copy of a folder on an object store, equal for all processes of a user.

    It lies in `segpipe-UID` of the folder for temporary files (environment variable TMPDIR).
    """
    return os.path.join(_scratch_root(), *folder.rstrip("/").replace("://", "/").split("/"))


def fetch(folder: str) -> str:
    """Returns a local copy of a published folder; a local folder is returned itself, an unchanged copy is kept.

    Raises:
        SegpipeError: the folder has no manifest, differs from it, or cannot be copied.
    """
    if not files.is_remote(folder):
        return folder
    local = scratch_path(folder)
    manifest = read_manifest(folder)
    make_scratch(os.path.dirname(local))
    with FileLock(local + ".lock"):
        if not _is_copy(local, manifest):
            drop_copy(folder)
            copy_published(folder, manifest, local)
            os.makedirs(local, exist_ok=True)
            write_manifest(local, manifest)
    return local


def drop_copy(folder: str) -> None:
    """Removes the local copy of a folder on an object store."""
    remove(scratch_path(folder))


def make_scratch(path: str) -> None:
    """Makes a folder for local copies that only its owner may enter. Raises SegpipeError if it is another user's."""
    root = _scratch_root()
    os.makedirs(root, mode=0o700, exist_ok=True)
    if os.stat(root).st_uid != os.getuid():
        raise SegpipeError(f"{root}: found a folder of another user, expected your own. Set TMPDIR to another folder")
    os.makedirs(path, exist_ok=True)


def _scratch_root() -> str:
    return os.path.join(tempfile.gettempdir(), f"segpipe-{os.getuid()}")


def _is_copy(local: str, manifest: Manifest) -> bool:
    """Tells whether a local folder has all files of a manifest; a cleaner of temporary files may remove some."""
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
            f"{error.filename or path}: {error.strerror or error}. Check the path and its permissions, then try again"
        ) from error


def _list_paths(folder: str) -> list[str]:
    """Returns the paths of the files below a folder, relative to it, sorted."""
    with explained(folder):
        return sorted(info.path for info in files.scan(folder))
