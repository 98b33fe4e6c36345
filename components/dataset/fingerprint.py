"""The fingerprint of a data set's content: the pipeline's cache key.

An object store lists checksums. For local files, an index in the work directory keeps the hashes, as git's index does,
so that each file is read once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from components import files
from components.dataset.data_files import data_files
from components.dataset.description import DatasetDescription
from components.dataset.pairs import member_files

_UNREADABLE = "unreadable"
_RACY_NS = 2 * 10**9
_WORKERS = 8  # threads that read; more than there may be processors, because they mostly wait
_BATCH = 64  # files per task of the thread pool
_Value = TypeVar("_Value")
_State = tuple[int, int, int, int]  # size in bytes, mtime and ctime in nanoseconds, inode


def content_hashes(root: str, description: DatasetDescription, index_dir: str = "") -> dict[str, str]:
    """Returns the hash of each file that belongs to a data set, by path, sorted.

    Files without a pair are included, because they end in the quarantine. The hash is the checksum that an object store
    lists, or else the SHA-256 of the content. So the same files have different hashes on a disk and on a store, and on
    stores with other kinds of checksums.

    Args:
        root: the data root, local or remote.
        description: what `detect` returned.
        index_dir: folder of the hashes of local files that earlier calls computed; empty to read every file.

    Raises:
        SegpipeError: a file cannot be read.
        OSError: the index cannot be written.
    """
    listed = data_files(root)
    paths = member_files(list(listed), description)
    unknown = [path for path in paths if not listed[path]]
    if files.is_remote(root) or not index_dir:
        hashes = _in_parallel(_hash, root, unknown)
    else:
        hashes = _indexed(root, unknown, index_dir)
    return {path: listed[path] or hashes[path] for path in paths}


def fingerprint_of(description: DatasetDescription, hashes: Mapping[str, str]) -> str:
    """Returns a SHA-256, 64 hexadecimal digits, of a description and of the paths and hashes of its files."""
    digest = hashlib.sha256(description.to_json().encode())
    for path, content in hashes.items():
        # A file name need not be UTF-8.
        digest.update(f"\n{path}\0{content}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _indexed(root: str, paths: list[str], index_dir: str) -> dict[str, str]:
    """Returns the SHA-256 of local files; reads only those whose size, times or inode differ from the index.

    A file that changes within the resolution of the file system's clock after it was read keeps its times. So a file
    that was modified less than 2 s before is not indexed (git's "racy" entries, Documentation/technical/racy-git.adoc;
    2 s is the coarsest resolution, FAT's). The change time is compared too, because programs can set the modification
    time back.
    """
    name = hashlib.sha256(os.path.abspath(root).encode(errors="surrogateescape")).hexdigest()[:16]
    index_file = files.join(index_dir, f"hashes-{name}.json")
    index = _read_index(index_file)
    now = time.time_ns()
    states = _in_parallel(_state, root, paths)
    hashes = {path: index[path][1] for path in paths if path in index and index[path][0] == states[path]}
    hashes |= _in_parallel(_hash, root, [path for path in paths if path not in hashes])
    new = {
        path: (state, hashes[path])
        for path, state in states.items()
        if state and max(state[1:3]) < now - _RACY_NS and hashes[path] != _UNREADABLE
    }
    if new != index:
        files.write_bytes(index_file, json.dumps(new).encode())
    return hashes


def _read_index(path: str) -> dict[str, tuple[_State, str]]:
    """Returns state and hash of files by path; empty if the index is missing or damaged."""
    if not files.exists(path):
        return {}
    try:
        entries = json.loads(files.read_bytes(path))
        return {name: (tuple(state), digest) for name, (state, digest) in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        logging.getLogger(__name__).warning(
            "%s: ignored, because it is not an index of hashes (%s); all files are read again", path, error
        )
        return {}


def _in_parallel(function: Callable[[str], _Value], root: str, paths: list[str]) -> dict[str, _Value]:
    """Calls a function with the address of each file in threads; returns the results by path."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = pool.map(lambda batch: [function(files.join(root, path)) for path in batch], batches)
        return dict(zip(paths, itertools.chain.from_iterable(results), strict=True))


def _state(address: str) -> _State | None:
    try:
        status = os.stat(address)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hash(address: str) -> str:
    try:
        return hashlib.sha256(files.read_data_file(address)).hexdigest()
    except OSError:  # a broken link, which ends in the quarantine
        return _UNREADABLE
