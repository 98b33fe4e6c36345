"""Reads, writes and lists files on a local disk or on an object store.

Local paths import nothing for it; what an address leads to is read by components/object_store.py.
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
from typing import IO

from filelock import FileLock
from tenacity import before_sleep_log, retry, retry_if_exception, stop_after_attempt, wait_exponential

from components import object_store
from components.errors import SegpipeError, UsageError

_PATTERN = re.compile(r"[*?[\\]")
_TRIES = 5
_LONGEST_PAUSE = 8  # seconds; the pauses are 1, 2, 4 and 8
# Errors that another try cannot mend.
_BROKEN_LINK = {errno.ENOENT, errno.ELOOP}
_LASTING = {*_BROKEN_LINK, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
_CHUNK_BYTES = 4 << 20


def is_remote(path: str) -> bool:
    """Tells whether a path names a file system by a scheme, as in `gs://bucket/folder`."""
    return "://" in path


def pattern_character(path: str) -> str:
    """Returns the first character of a path that TensorFlow and Beam read as part of a pattern; empty if none.

    The characters are those that the documentation of `tf.io.gfile.glob` names; TensorFlow matches so when it restores
    weights and lists examples. Beam's `FileSystem.translate_pattern` has the same ones but for the backslash.
    """
    found = _PATTERN.search(path)
    return found[0] if found else ""


def refuse_pattern(where: str, path: str) -> None:
    """Raises UsageError for a path that TensorFlow and Beam would read as a pattern.

    Args:
        where: the option or setting that the path comes from.
        path: the path; a relative one is made absolute first.
    """
    absolute = path if is_remote(path) else os.path.abspath(path)
    found = pattern_character(absolute)
    if found:
        raise UsageError(
            f"{where}: found {absolute}, expected a path without {found}, which TensorFlow and Beam read as a pattern. "
            "Rename the folder, or make a link to it without *, ?, [ and \\ in its path, and name the link"
        )


def join(root: str, *parts: str) -> str:
    """Joins path parts with a slash, which local paths and object stores share."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def _may_pass(error: BaseException) -> bool:
    """Tells whether a read that failed may succeed if it is tried again; those of a store have been, by its library."""
    return isinstance(error, OSError) and error.errno not in _LASTING and not is_remote(str(error.filename))


@retry(
    retry=retry_if_exception(_may_pass),
    wait=wait_exponential(max=_LONGEST_PAUSE),
    stop=stop_after_attempt(_TRIES),
    before_sleep=before_sleep_log(logging.getLogger(__name__), logging.WARNING),
    reraise=True,
)
def read_bytes(path: str) -> bytes:
    """Returns a file's content.

    An error that may pass, such as a timeout or a store's 503, is retried, with pauses of 15 seconds in all.

    Raises:
        OSError: the file cannot be read.
    """
    if is_remote(path):
        return object_store.read(path)
    with open(path, "rb") as file:
        return file.read()


def chunks(path: str) -> Iterator[bytes]:
    """Yields a file's content piece by piece. Raises OSError."""
    if is_remote(path):
        yield from object_store.chunks(path)
        return
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def write_chunks(path: str, content: Iterator[bytes]) -> None:
    """Writes a file from pieces; it appears under its name when all are written. Raises OSError."""
    if is_remote(path):
        object_store.write_chunks(path, content)
        return
    with created(path) as file:
        file.writelines(content)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to read bytes; one on an object store is copied to the disk first. Raises OSError."""
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
    """Opens a file to write bytes, which appears under its name when the block ends without an exception.

    Raises:
        OSError: the file cannot be written.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as copy:
            yield copy
            copy.seek(0)
            object_store.write(path, copy)
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Unique on a volume that containers share, in each of which the process may have the same number.
    partial = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def read_data_file(path: str) -> bytes:
    """Returns the content of a file of a data set; an error of the disk or the store stops the run.

    Raises:
        OSError: the file is a broken link; the data set is at fault, so the pair goes to the quarantine.
        SegpipeError: the file cannot be read for any other reason.
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
    """Writes a file in one step and makes its folder if it is missing. Raises OSError."""
    if is_remote(path):
        object_store.write(path, content)
        return
    with created(path) as file:
        file.write(content)


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Changes a small file in one step. Of several writers at a time, none loses what another wrote.

    On a disk they take turns, by a hidden lock file. An object store refuses a write if the object was changed since it
    was read, and the change is then made of what is there now.

    Args:
        path: the file, in a folder that exists.
        change: returns the new content; takes the old one, or None without a file. It may be called several times,
            and must add nothing to its own result.

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
    """Tells whether there is a file. Raises OSError if an object store does not say."""
    return object_store.exists(path) if is_remote(path) else os.path.exists(path)


def list_names(folder: str) -> list[str]:
    """Returns the names of the files and folders directly in a folder, sorted; none if it does not exist.

    Raises:
        OSError: the folder cannot be listed.
    """
    if is_remote(folder):
        folders, names = object_store.children(folder)
        return sorted({*folders, *names})
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def list_folders(folder: str) -> list[str]:
    """Returns the names of the folders directly in a folder, sorted; none if it does not exist. Raises OSError."""
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
    """Removes a folder with all that is in it, if it exists. Raises OSError."""
    if is_remote(folder):
        object_store.remove_folder(folder)
    elif os.path.isdir(folder):
        shutil.rmtree(folder)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a file or folder takes: number of files, bytes, and the newest change in seconds since 1970 (0 if none)."""

    files: int = 0
    bytes: int = 0
    changed: float = 0.0


def usage(path: str) -> Usage:
    """Returns what a file, or a folder with all that is in it, takes; links are not followed.

    Raises:
        OSError: a folder cannot be listed.
    """
    if is_remote(path):
        found = [(meta["size"], meta["last_modified"].timestamp()) for meta in object_store.objects(path)]
    elif os.path.isdir(path) and not os.path.islink(path):
        paths = (os.path.join(folder, name) for folder, _, names in os.walk(path, onerror=_refuse) for name in names)
        found = [_size_and_change(each) for each in paths]
    else:
        found = [_size_and_change(path)] if os.path.lexists(path) else []
    changes = (change for _, change in found)
    return Usage(len(found), sum(size for size, _ in found), max(changes, default=0.0))


def _size_and_change(path: str) -> tuple[int, float]:
    """Returns a file's bytes and modification time; zeros if it was removed meanwhile."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0, 0.0
    return status.st_size, status.st_mtime


def changes(folder: str) -> dict[str, float]:
    """Returns the modification times of the files directly in a folder, by name, in seconds since 1970.

    Raises:
        OSError: the folder cannot be listed.
    """
    if is_remote(folder):
        found = {meta["path"]: meta["last_modified"].timestamp() for meta in object_store.objects(folder)}
        return {path: changed for path, changed in found.items() if "/" not in path}
    paths = {name: join(folder, name) for name in list_names(folder)}
    return {name: _size_and_change(path)[1] for name, path in paths.items() if not os.path.isdir(path)}


def checksums(root: str) -> dict[str, str]:
    """Returns what an object store's listing says of the content of each file below a folder.

    A checksum begins with its kind. `etag:` changes whenever an object is written anew; on S3 it is the MD5 of an
    object that was uploaded in one piece.

    Returns:
        Checksum by path relative to the folder, in sorted order, of the files that `list_files` yields. It is empty
        for local files, and where the store lists none.

    Raises:
        OSError: the folder cannot be listed.
        UsageError: the path of a remote folder would be read as a pattern.
    """
    if not is_remote(root):
        return dict.fromkeys(list_files(root), "")
    refuse_pattern("folder", root)
    found = {meta["path"]: (meta["e_tag"] or "").strip('"') for meta in object_store.objects(root)}
    return {path: tag and f"etag:{tag}" for path, tag in sorted(found.items()) if not _is_hidden(path)}


def list_files(root: str) -> Iterator[str]:
    """Yields the paths of all files below a folder, relative to it, in sorted order.

    Hidden files and folders (a leading dot) are left out, as are `lost+found` and links to a folder that they lie in.
    A folder that is not there holds no files.

    Raises:
        OSError: a folder cannot be listed, so that files could be missing.
        UsageError: the path of a remote folder would be read as a pattern.
    """
    if is_remote(root):
        refuse_pattern("folder", root)
        found: Iterator[str] = (meta["path"] for meta in object_store.objects(root))
    else:
        found = _walk(root)
    yield from sorted(path for path in found if not _is_hidden(path))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _walk(root: str) -> Iterator[str]:
    """Yields the paths of the files below a local folder, relative to it, in any order."""
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        yield from (os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/") for name in names)
        folders[:] = [name for name in folders if _is_to_be_listed(folder, name)]


def _refuse(error: OSError) -> None:
    """Raises what kept a folder from being listed, unless there is no such folder."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def holds_no_data(name: str) -> bool:
    """Tells whether a folder is no place for data by its name: a hidden one, or what a disk's repair leaves."""
    return name.startswith(".") or name == "lost+found"


def _is_to_be_listed(folder: str, name: str) -> bool:
    """Tells whether a walk goes down into a folder; a link to where it comes from would lead it round and round."""
    if holds_no_data(name):
        return False
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return True
    target = os.path.realpath(path)
    parents = (os.path.realpath(parent) for parent in pathlib.Path(path).parents)
    return not any(os.path.commonpath([target, parent]) == target for parent in parents)
