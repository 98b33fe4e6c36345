"""Reads, writes and lists files on a local disk or an object store.

components/object_store.py handles the addresses of object stores; local paths do not import its library.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from filelock import FileLock
from tenacity import before_sleep_log, retry, retry_if_exception, stop_after_attempt, wait_exponential

from components import object_store
from components.errors import SegpipeError, UsageError

_PATTERN = re.compile(r"[*?[\\]")
_TRIES = 5
_LONGEST_PAUSE = 8  # seconds; the pauses are 1, 2, 4 and 8
_BROKEN_LINK = {errno.ENOENT, errno.ELOOP}
# Errors that a retry cannot fix.
_PERMANENT = {*_BROKEN_LINK, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
_CHUNK_BYTES = 4 << 20


def is_remote(path: str) -> bool:
    """Tells whether a path has a scheme, as in `gs://bucket/folder`."""
    return "://" in path


def pattern_character(path: str) -> str:
    """Returns the first character of a path that TensorFlow and Beam read as a wildcard; empty if it has none.

    The documentation of `tf.io.gfile.glob` lists the characters; TensorFlow matches patterns when it restores weights
    and lists examples. Beam's `FileSystem.translate_pattern` has the same ones except the backslash.
    """
    found = _PATTERN.search(path)
    return found[0] if found else ""


def refuse_pattern(where: str, path: str) -> None:
    """Raises UsageError if TensorFlow and Beam would read the (absolute) path of an option or setting as a pattern."""
    absolute = path if is_remote(path) else os.path.abspath(path)
    found = pattern_character(absolute)
    if found:
        raise UsageError(
            f"{where}: found {absolute}, expected a path without {found}, which TensorFlow and Beam read as a pattern. "
            "Rename the folder, or make a link to it without *, ?, [ and \\ in its path, and pass the link"
        )


def join(root: str, *parts: str) -> str:
    """Joins the parts of a local path or an address with slashes."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def _is_temporary(error: BaseException) -> bool:
    """Tells whether to retry a failed read; obstore retries those of an object store itself."""
    return isinstance(error, OSError) and error.errno not in _PERMANENT and not is_remote(str(error.filename))


@retry(
    retry=retry_if_exception(_is_temporary),
    wait=wait_exponential(max=_LONGEST_PAUSE),
    stop=stop_after_attempt(_TRIES),
    before_sleep=before_sleep_log(logging.getLogger(__name__), logging.WARNING),
    reraise=True,
)
def read_bytes(path: str) -> bytes:
    """Returns a file's content.

    A temporary error, such as a timeout or a store's 503, is retried, with pauses of 15 seconds in total. Raises
    OSError.
    """
    if is_remote(path):
        return object_store.read(path)
    with open(path, "rb") as file:
        return file.read()


def chunks(path: str) -> Iterator[bytes]:
    """Yields a file's content in chunks. Raises OSError."""
    if is_remote(path):
        yield from object_store.chunks(path)
        return
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def write_chunks(path: str, content: Iterator[bytes]) -> None:
    """Writes a file in chunks; it appears when all are written. Raises OSError."""
    if is_remote(path):
        object_store.write_chunks(path, content)
        return
    with created(path) as file:
        file.writelines(content)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to read bytes; an object is copied to the local disk first. Raises OSError."""
    if not is_remote(path):
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        copy.writelines(object_store.chunks(path))
        copy.seek(0)
        yield copy


@contextlib.contextmanager
def created(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to write bytes; it appears when the block ends without an exception. Raises OSError."""
    if is_remote(path):
        with tempfile.TemporaryFile() as copy:
            yield copy
            copy.seek(0)
            object_store.write(path, copy)
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Containers that share a volume may have equal process ids.
    partial = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def read_data_file(path: str) -> bytes:
    """Returns the content of a file of a data set.

    Raises:
        OSError: the file is a broken link, an issue of the data set: the pair goes to the quarantine.
        SegpipeError: the file cannot be read for any other reason, which stops the run.
    """
    try:
        return read_bytes(path)
    except OSError as error:
        if error.errno in _BROKEN_LINK and os.path.islink(path):
            raise
        raise SegpipeError(
            f"{path}: cannot be read ({type(error).__name__}: {error.strerror or error}), expected every file of the "
            "data set to be readable. Check the disk or store, the network and the permissions, then run the same "
            "command again"
        ) from error


def write_bytes(path: str, content: bytes) -> None:
    """Writes a file atomically and makes its folder if it is missing. Raises OSError."""
    write_chunks(path, iter([content]))


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Changes a small file atomically; concurrent writers lose nothing.

    On a disk, a hidden lock file serialises the writers. An object store refuses the write if the object changed since
    it was read; the change is then applied to the new content.

    Args:
        path: the file, in a folder that exists.
        change: returns the new content; takes the old one, or None if there is no file. It must be idempotent, because
            it may be called several times.

    Raises:
        OSError: the file cannot be read or written.
    """
    if is_remote(path) and not path.startswith("file://"):
        object_store.update(path, change)
        return
    folder, name = os.path.split(path.removeprefix("file://"))
    with FileLock(os.path.join(folder, f".{name}.lock")):
        write_bytes(path, change(read_bytes(path) if exists(path) else None))


def exists(path: str) -> bool:
    """Tells whether a file exists. Raises OSError if an object store cannot be asked."""
    return object_store.exists(path) if is_remote(path) else os.path.exists(path)


def list_names(folder: str) -> list[str]:
    """Returns the sorted names of files and folders directly in a folder, which may be missing. Raises OSError."""
    if is_remote(folder):
        folders, names = object_store.children(folder)
        return sorted({*folders, *names})
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def list_folders(folder: str) -> list[str]:
    """Returns the names of the folders directly in a folder, sorted; empty if it does not exist. Raises OSError."""
    if is_remote(folder):
        return sorted(object_store.children(folder)[0])
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if os.path.isdir(folder) else []


def remove(path: str) -> None:
    """Removes a file if it exists. Raises OSError."""
    if is_remote(path):
        object_store.remove(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def remove_folder(folder: str) -> None:
    """Removes a folder and its content if it exists. Raises OSError."""
    if is_remote(folder):
        object_store.remove_folder(folder)
    elif os.path.isdir(folder):
        shutil.rmtree(folder)


class FileInfo(NamedTuple):
    """A file: path relative to the listed folder, size in bytes, modification time in seconds since 1970."""

    path: str
    size: int
    modified: float


def scan(folder: str, missing_ok: bool = False) -> Iterator[FileInfo]:
    """Yields every file below a folder, hidden ones too, without following links; skips files that vanish meanwhile.

    With `missing_ok`, local folders may be missing too. Raises OSError if a folder cannot be listed.
    """
    if is_remote(folder):
        for meta in object_store.objects(folder):
            yield FileInfo(meta["path"], meta["size"], meta["last_modified"].timestamp())
        return
    for parent, _, names in os.walk(folder, onerror=_ignore_missing if missing_ok else _raise):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                yield FileInfo(_relative(path, folder), status.st_size, status.st_mtime)


@dataclasses.dataclass(frozen=True)
class Usage:
    """Number of files, their bytes, and the newest modification time in seconds since 1970 (0 without files)."""

    files: int = 0
    bytes: int = 0
    changed: float = 0.0


def usage(path: str) -> Usage:
    """Returns the usage of a file, or of a folder and its content, without following links. Raises OSError."""
    if is_remote(path) or (os.path.isdir(path) and not os.path.islink(path)):
        found = [(info.size, info.modified) for info in scan(path, missing_ok=True)]
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            return Usage(1, status.st_size, status.st_mtime)
        return Usage()
    return Usage(len(found), sum(size for size, _ in found), max((changed for _, changed in found), default=0.0))


def checksums(root: str) -> dict[str, str]:
    """Returns the checksums that an object store's listing gives for the files below a folder.

    A checksum begins with its kind. `etag:` changes whenever an object is written anew; on S3 it is the MD5 of an
    object that was uploaded in one piece.

    Returns:
        Checksum by path, for the files that `list_files` yields, in their order. It is empty for a local file, and if
        the store lists none.

    Raises:
        OSError: a folder cannot be listed, so that files could be missing.
        UsageError: TensorFlow and Beam would read the path of a remote folder as a pattern.
    """
    if is_remote(root):
        refuse_pattern("folder", root)
        tags = {meta["path"]: (meta["e_tag"] or "").strip('"') for meta in object_store.objects(root)}
    else:
        tags = dict.fromkeys(_walk(root), "")
    return {path: tag and f"etag:{tag}" for path, tag in sorted(tags.items()) if not _is_hidden(path)}


def list_files(root: str) -> Iterator[str]:
    """Yields the paths of all files below a folder, relative to it, in sorted order.

    Skips hidden files and folders (a leading dot), `lost+found`, and symlink cycles. A missing folder has no files.
    Raises what `checksums` raises.
    """
    yield from checksums(root)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _walk(root: str) -> Iterator[str]:
    """Yields the paths of the files below a local folder, relative to it, in any order; follows links."""
    for folder, folders, names in os.walk(root, onerror=_ignore_missing, followlinks=True):
        yield from (_relative(os.path.join(folder, name), root) for name in names)
        folders[:] = [name for name in folders if not is_system_folder(name) and not _is_cycle(folder, name)]


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _raise(error: OSError) -> None:
    raise error


def _ignore_missing(error: OSError) -> None:
    """Raises the error unless the folder does not exist."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def is_system_folder(name: str) -> bool:
    """Tells whether a folder never holds data, by its name: hidden folders, and `lost+found` of a file system."""
    return name.startswith(".") or name == "lost+found"


def _is_cycle(folder: str, name: str) -> bool:
    """Tells whether a folder is a link to one of its own parents."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    parents = (os.path.realpath(parent) for parent in pathlib.Path(path).parents)
    return any(os.path.commonpath([target, parent]) == target for parent in parents)
