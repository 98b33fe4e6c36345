"""Versions on an object store, which readers see whole or not at all.

An object store cannot rename a folder, and TensorFlow Serving takes any folder whose name is a number for a version
(AspireLatestVersions in tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc, 2.20). So a push
writes to `BASE/version-NUMBER-SUFFIX/`, and its last write is one object, the manifest
`BASE/version-NUMBER-SUFFIX.json`. A folder without its manifest is not a version. `segpipe models sync` copies
published versions to where TensorFlow Serving reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator

import tensorflow as tf
from pydantic import Field, ValidationError, field_validator

from components import files
from components.errors import SegpipeError, UsageError
from components.pusher.versions import STORED_VERSION, next_version
from components.settings import Settings

_MANIFEST_SUFFIX = ".json"
# A folder of a push that is older and has no manifest was left by a push that was killed.
_LEFTOVER_SECONDS = 24 * 3600
_CHUNK_BYTES = 4 << 20


class StoredFile(Settings):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Settings):
    """The files of a published version by their path below its folder."""

    files: dict[str, StoredFile] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _check_paths(cls, value: dict[str, StoredFile]) -> dict[str, StoredFile]:
        """Refuses a path that leads out of the folder."""
        for path in value:
            if os.path.isabs(path) or ".." in path.split("/"):
                raise ValueError(f"found the path {path}, expected one below the version's folder")
        return value


def published_versions(base_directory: str) -> dict[int, str]:
    """Returns the published versions below a directory of an object store: directory by number.

    Raises:
        SegpipeError: the store cannot be listed.
    """
    return _versions(base_directory, _list(base_directory))


def read_manifest(directory: str) -> Manifest:
    """Returns what a version consists of.

    Args:
        directory: the version's directory, as `published_versions` returns it.

    Raises:
        SegpipeError: the manifest is missing, damaged or cannot be read.
    """
    path = directory + _MANIFEST_SUFFIX
    with explained(path), tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise SegpipeError(
            f"{path}: found a damaged manifest ({reason}), expected the files of a version. Delete it and push again"
        ) from None


def publish(model_path: str, base_directory: str) -> tuple[str, int]:
    """Copies a SavedModel to an object store as a new version, and removes what killed pushes left there.

    Args:
        model_path: the SavedModel's directory, local or on an object store.
        base_directory: directory of the versions.

    Returns:
        The version's directory and number.

    Raises:
        SegpipeError: the store fails, or another push published the same number meanwhile.
    """
    names = _list(base_directory)
    _remove_leftovers(base_directory, names)
    number = next_version(name.removesuffix(_MANIFEST_SUFFIX) for name in names)
    directory = files.join(base_directory, f"version-{number}-{uuid.uuid4().hex[:8]}")
    manifest = Manifest(files=copy_files(model_path, directory))
    if number in published_versions(base_directory):
        raise SegpipeError(
            f"{base_directory}: found version {number}, which another push published meanwhile, expected to be the "
            "only one to push this number. Run the same command again"
        )
    path = directory + _MANIFEST_SUFFIX
    with explained(path), tf.io.gfile.GFile(path, "wb") as file:
        file.write(manifest.model_dump_json(indent=1).encode())
    return directory, number


def copy_files(source: str, target: str) -> dict[str, StoredFile]:
    """Copies a folder's files, from and to local disks or object stores.

    Returns:
        What was copied, by path below the folder.

    Raises:
        SegpipeError: a file cannot be read or written.
    """
    return {path: copy_file(files.join(source, path), files.join(target, path)) for path in _walk(source)}


def copy_file(source: str, target: str) -> StoredFile:
    """Copies a file and makes the folder of the copy. Returns what was read. Raises SegpipeError."""
    with explained(target):
        tf.io.gfile.makedirs(os.path.dirname(target))
        with tf.io.gfile.GFile(target, "wb") as writer:
            writer.write(b"")  # GFile makes no file if nothing is written.
            return _measure(_chunks(source), writer.write)


def hash_files(folder: str) -> dict[str, StoredFile]:
    """Returns size and hash of a folder's files by path below it. Raises SegpipeError."""
    return {path: _measure(_chunks(files.join(folder, path))) for path in _walk(folder)}


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns TensorFlow's errors about a file or folder into SegpipeError, or UsageError for an unknown scheme."""
    try:
        yield
    except tf.errors.UnimplementedError as error:
        raise UsageError(
            f"{path}: TensorFlow {tf.__version__} has no file system for it ({error.message}), expected a local path "
            "or gs://. Mount the store, or install a package that brings its file system"
        ) from error
    except tf.errors.OpError as error:
        raise SegpipeError(
            f"{path}: {type(error).__name__}: {error.message}. Check the path and the right to it, then try again"
        ) from error


def _chunks(path: str) -> Iterator[bytes]:
    """Yields a file's content. Raises SegpipeError."""
    with explained(path), tf.io.gfile.GFile(path, "rb") as reader:
        while chunk := reader.read(_CHUNK_BYTES):
            yield chunk


def _measure(chunks: Iterator[bytes], write: Callable[[bytes], None] | None = None) -> StoredFile:
    """Returns size and hash of chunks, and passes each to `write` if given."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if write is not None:
            write(chunk)
    return StoredFile(size=size, sha256=digest.hexdigest())


def _walk(folder: str) -> list[str]:
    """Returns the paths of the files below a folder, relative to it, sorted."""
    root = folder.rstrip("/")
    with explained(root):
        found = [files.join(where, name) for where, _, names in tf.io.gfile.walk(root) for name in names if name]
    return sorted(path.removeprefix(root + "/") for path in found)


def _list(base_directory: str) -> list[str]:
    """Returns the names of files and folders in a directory; none if it does not exist."""
    with explained(base_directory):
        if not tf.io.gfile.exists(base_directory):
            return []
        return [name.rstrip("/") for name in tf.io.gfile.listdir(base_directory)]


def _versions(base_directory: str, names: list[str]) -> dict[int, str]:
    """Returns the published versions among the names in a directory."""
    folders = sorted(name.removesuffix(_MANIFEST_SUFFIX) for name in names if name.endswith(_MANIFEST_SUFFIX))
    found = filter(None, map(STORED_VERSION.fullmatch, folders))
    return {int(match[1]): files.join(base_directory, match[0]) for match in found}


def _remove_leftovers(base_directory: str, names: list[str]) -> None:
    """Removes old folders without a manifest; a store that refuses keeps them."""
    oldest = time.time() - _LEFTOVER_SECONDS
    for name in names:
        match = STORED_VERSION.fullmatch(name)
        if match and name + _MANIFEST_SUFFIX not in names and int(match[1]) < oldest:
            try:
                tf.io.gfile.rmtree(files.join(base_directory, name))
            except tf.errors.OpError as error:
                logging.getLogger(__name__).warning("%s was not removed: %s", name, error.message)
