"""Reads, writes and lists files on a local disk or, through Beam's file systems, on an object store.

Local paths never import Beam, so commands that only look at a folder start at once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import re
import uuid
from collections.abc import Iterator

from tenacity import before_sleep_log, retry, retry_if_exception, stop_after_attempt, wait_exponential

from components.errors import SegpipeError, UsageError

_PATTERN = re.compile(r"[*?[\\]")
_TRIES = 5
_LONGEST_PAUSE = 8  # seconds; the pauses are 1, 2, 4 and 8
# Errors that another try cannot mend.
_BROKEN_LINK = {errno.ENOENT, errno.ELOOP}
_LASTING = {*_BROKEN_LINK, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
_LASTING_STATUS = {401, 403, 404}


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
    """Tells whether a read that failed may succeed if it is tried again.

    A store's own exception is the cause of the OSError. Google's client (`google.api_core.exceptions`) and Beam's
    client of S3 (`apache_beam.io.aws.clients.s3.messages.S3ClientError`) keep the HTTP status in `code`.
    """
    if not isinstance(error, OSError):
        return False
    return error.errno not in _LASTING and getattr(error.__cause__, "code", None) not in _LASTING_STATUS


@retry(
    retry=retry_if_exception(_may_pass),
    wait=wait_exponential(max=_LONGEST_PAUSE),
    stop=stop_after_attempt(_TRIES),
    before_sleep=before_sleep_log(logging.getLogger(__name__), logging.WARNING),
    reraise=True,
)
def read_bytes(path: str) -> bytes:
    """Returns a file's content.

    An error that may pass, such as a timeout or a store's 503, is retried for 15 seconds.

    Raises:
        OSError: the file cannot be read.
    """
    if is_remote(path):
        from apache_beam.io.filesystems import FileSystems

        try:
            with FileSystems.open(path) as file:
                return file.read()
        except OSError:
            raise
        # What is missing or refused comes in the store's own words: of Google's client, or of Beam's for S3.
        except Exception as error:
            raise OSError(f"{path}: {type(error).__name__}: {error}") from error
    with open(path, "rb") as file:
        return file.read()


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
    """Writes a file in one step, its folder made where it is missing."""
    if is_remote(path):
        from apache_beam.io.filesystems import FileSystems

        # An object appears when its upload ends.
        with FileSystems.create(path) as file:
            file.write(content)
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Unique on a volume that containers share, in each of which the process may have the same number.
    partial = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def exists(path: str) -> bool:
    """Tells whether there is a file."""
    if is_remote(path):
        from apache_beam.io.filesystems import FileSystems

        return FileSystems.exists(path)
    return os.path.exists(path)


def list_files(root: str) -> Iterator[str]:
    """Yields the paths of all files below a folder, relative to it, in sorted order.

    Hidden files and folders (a leading dot) are left out, as are `lost+found` and links to a folder that they lie in.
    A folder that is not there holds no files.

    Raises:
        OSError: a folder cannot be listed, so that files could be missing.
        UsageError: the path of a remote folder would be read as a pattern.
    """
    if is_remote(root):
        from apache_beam.io.filesystems import FileSystems

        refuse_pattern("folder", root)
        prefix = root.rstrip("/") + "/"
        (match,) = FileSystems.match([prefix + "**"])
        found: Iterator[str] = (metadata.path.removeprefix(prefix) for metadata in match.metadata_list)
    else:
        found = _walk(root)
    yield from sorted(path for path in found if not any(part.startswith(".") for part in path.split("/")))


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
