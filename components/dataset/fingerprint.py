"""The fingerprint of a data set's content, which is the pipeline's cache key.

A file is read once. An object store lists checksums; of files on a disk, an index in the work directory remembers the
hashes, as git's index does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from components import files
from components.dataset.data_files import data_files
from components.dataset.description import DatasetDescription
from components.dataset.pairs import member_files

_UNREADABLE = "unreadable"
_RACY_NS = 2 * 10**9
_BATCH = 64  # files a task of the thread pool
_Value = TypeVar("_Value")
_State = tuple[int, int, int, int]  # size in bytes, mtime and ctime in nanoseconds, inode


def content_fingerprint(
    root: str,
    description: DatasetDescription,
    index_dir: str = "",
    workers: int = 8,
) -> str:
    """Returns a SHA-256 of everything that belongs to a data set, whatever its modification times.

    It covers the relative path and the content of every file the description's patterns match, files
    that make no pair included since they end in the quarantine, and the description itself. The content of a file on
    an object store is represented by the checksum that the store lists, and of any other file by its SHA-256. So the
    same files on a disk and on a store, or on stores with other checksums, have different fingerprints.

    Args:
        root: the data root, local or remote.
        description: what `detect` returned.
        index_dir: folder of the hashes of local files that earlier calls computed; empty to read every file.
        workers: threads that read; more than the processors, because most of the time is spent waiting.

    Returns:
        64 hexadecimal digits.

    Raises:
        SegpipeError: a file cannot be read.
        OSError: the index cannot be written.
    """
    return fingerprint_of(description, content_hashes(root, description, index_dir, workers))


def content_hashes(root: str, description: DatasetDescription, index_dir: str = "", workers: int = 8) -> dict[str, str]:
    """Returns the hash of each file of a data set by path, sorted; arguments and errors as of `content_fingerprint`."""
    listed = data_files(root)
    paths = member_files(list(listed), description)
    unknown = [path for path in paths if not listed[path]]
    if files.is_remote(root) or not index_dir:
        hashes = _in_parallel(_hash_files, root, unknown, workers)
    else:
        hashes = _indexed(root, unknown, index_dir, workers)
    return {path: listed[path] or hashes[path] for path in paths}


def fingerprint_of(description: DatasetDescription, hashes: Mapping[str, str]) -> str:
    """Returns the fingerprint of files, by their paths and hashes, and of the description they are read by."""
    digest = hashlib.sha256(description.to_json().encode())
    for path, content in hashes.items():
        # A file name need not be UTF-8.
        digest.update(f"\n{path}\0{content}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _indexed(root: str, paths: list[str], index_dir: str, workers: int) -> dict[str, str]:
    """Returns the SHA-256 of local files; reads those whose size, times or inode are not what the index holds.

    A file that changes within the resolution of its file system's clock after it was read would keep its times. So a
    file that was modified less than 2 s before it is read is not indexed (git's "racy" entries,
    Documentation/technical/racy-git.adoc; 2 s is the coarsest resolution, FAT's). The change time is compared too,
    because programs can set the modification time back.
    """
    name = hashlib.sha256(os.path.abspath(root).encode(errors="surrogateescape")).hexdigest()[:16]
    index_file = files.join(index_dir, f"hashes-{name}.json")
    index = _read_index(index_file)
    now = time.time_ns()
    states = _in_parallel(_states, root, paths, workers)
    hashes = {path: index[path][1] for path in paths if path in index and index[path][0] == states[path]}
    hashes |= _in_parallel(_hash_files, root, [path for path in paths if path not in hashes], workers)
    new = {
        path: (state, hashes[path])
        for path, state in states.items()
        if state and max(state[1:3]) < now - _RACY_NS and hashes[path] != _UNREADABLE
    }
    if new != index:
        files.write_bytes(index_file, json.dumps(new).encode())
    return hashes


def _read_index(path: str) -> dict[str, tuple[_State, str]]:
    """Returns the state and the hash of files by path; nothing if there is no index or it is damaged."""
    if not files.exists(path):
        return {}
    try:
        entries = json.loads(files.read_bytes(path))
        return {name: (tuple(state), digest) for name, (state, digest) in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s: ignored, not an index of hashes (%s); data is read again", path, error)
        return {}


def _in_parallel(
    function: Callable[[str, list[str]], Iterator[tuple[str, _Value]]], root: str, paths: list[str], workers: int
) -> dict[str, _Value]:
    """Calls a function that yields (path, value) of many files in threads; returns the values by path."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(workers) as pool:
        return dict(item for batch in pool.map(lambda batch: list(function(root, batch)), batches) for item in batch)


def _states(root: str, paths: list[str]) -> Iterator[tuple[str, _State | None]]:
    """Yields the state of files, None for a file that cannot be found."""
    for path in paths:
        state = None
        with contextlib.suppress(OSError):
            status = os.stat(files.join(root, path))
            state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        yield path, state


def _hash_files(root: str, paths: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the SHA-256 of files."""
    for path in paths:
        try:
            yield path, hashlib.sha256(files.read_data_file(files.join(root, path))).hexdigest()
        except OSError:
            # A broken link, which ends in the quarantine.
            yield path, _UNREADABLE
