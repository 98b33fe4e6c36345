"""Reads, writes and lists objects of S3, Google Cloud Storage and Azure with the library obstore.

Credentials, endpoint and region come from each store's own environment variables: see docs/stack.md. `file://` is a
local folder behind the same calls, for tests and trials.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import itertools
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tenacity import retry, retry_if_exception, stop_after_attempt

from components.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3://", "gs://", "az://", "abfs://", "abfss://", "file://")
# Environment variables with an endpoint; obstore refuses plain http unless asked for.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT")
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # a connection that delivers no byte for this long is closed
RETRIES = 4  # after the first try; obstore retries timeouts, broken connections and status 5xx, 408 and 429
LONGEST_PAUSE = 8.0  # seconds between two tries; the first pause is 1 s
_CHUNK_BYTES = 8 << 20
_PAGE = 1000  # objects per request of a listing
_UPDATES = 50  # tries of a conditional write that other writers may overtake
_PARTS_AT_ONCE = 4  # of 5 MiB, each of which must arrive within SILENCE_SECONDS
# obstore 0.11 and 0.12 raise their general error if a bucket's listing is refused or the bucket does not exist.
_STATUS = re.compile(r"status code: (\d+)")
_ERRNO = {"401": errno.EACCES, "403": errno.EACCES, "404": errno.ENOENT}
_REFUSED = "; check the credentials and their rights to the bucket"


def read(path: str) -> bytes:
    """Returns an object's content. Raises OSError."""
    with _located(path) as (store, key):
        return bytes(store.get(key).bytes())


def chunks(path: str) -> Iterator[bytes]:
    """Yields an object's content in chunks. Raises OSError."""
    with _located(path) as (store, key):
        yield from map(bytes, store.get(key).stream(_CHUNK_BYTES))


def write(path: str, content: Any) -> None:
    """Writes bytes, a binary file or an iterator of bytes to an object, which appears when all have arrived.

    Raises OSError.
    """
    with _located(path) as (store, key):
        store.put(key, content, max_concurrency=_PARTS_AT_ONCE)


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replaces an object's content by `change(content)`; tries again if another writer changed it meanwhile.

    Args:
        path: the address; not `file://`, which has no conditional writes.
        change: takes the content, or None if there is no object. It must be idempotent: a write whose answer is lost
            is repeated.

    Raises:
        OSError: the store cannot be read or written, or other writers change the object all the time.
    """
    from obstore import exceptions

    for _ in range(_UPDATES):
        before, mode = None, "create"  # type: bytes | None, Any
        with _located(path) as (store, key):
            with contextlib.suppress(FileNotFoundError):
                found = store.get(key)
                before = bytes(found.bytes())
                mode = {name: found.meta[name] for name in ("e_tag", "version") if found.meta[name]}
            # The store refuses the write if another writer's change went through.
            with contextlib.suppress(exceptions.AlreadyExistsError, exceptions.PreconditionError):
                store.put(key, change(before), mode=mode)
                return
    raise OSError(errno.EBUSY, f"was changed by others {_UPDATES} times while this process wrote it", path)


def write_chunks(path: str, content: Iterator[bytes]) -> None:
    """Writes an object in chunks, few of which are in memory at a time. Raises OSError, or what the iterator raises."""
    start = list(itertools.islice(content, 2))
    write(path, b"".join(start) if len(start) < 2 else itertools.chain(start, content))


def exists(path: str) -> bool:
    """Tells whether there is an object of this name. Raises OSError."""
    try:
        with _located(path) as (store, key):
            return bool(key) and bool(store.head(key))
    except FileNotFoundError:
        return False


def objects(folder: str) -> Iterator[Any]:
    """Yields obstore's `ObjectMeta` of each object below a folder, with `path` made relative to it. Raises OSError."""
    with _located(folder) as (store, key):
        prefix = f"{key}/" if key else ""
        for page in store.list(key or None, chunk_size=_PAGE):
            yield from ({**meta, "path": meta["path"].removeprefix(prefix)} for meta in page)


def children(folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the objects directly below a folder. Raises OSError."""
    with _located(folder) as (store, key):
        found = store.list_with_delimiter(key or None)
    folders = [posixpath.basename(path.rstrip("/")) for path in found["common_prefixes"]]
    return folders, [posixpath.basename(meta["path"]) for meta in found["objects"]]


def remove(path: str) -> None:
    """Removes an object if it exists. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _delete([path])


def remove_folder(folder: str) -> None:
    """Removes all objects below a folder. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _delete([f"{folder.rstrip('/')}/{meta['path']}" for meta in objects(folder)])
    if folder.startswith("file://"):  # which has folders
        shutil.rmtree(folder.removeprefix("file://"), ignore_errors=True)


# obstore does not retry a deletion that timed out.
@retry(
    retry=retry_if_exception(lambda error: isinstance(error, OSError) and error.errno == errno.EIO),
    stop=stop_after_attempt(3),
    reraise=True,
)
def _delete(paths: list[str]) -> None:
    """Removes objects of one bucket."""
    if paths:
        with _located(paths[0]) as (store, _):
            store.delete([_split(path)[1] for path in paths])


def _split(path: str) -> tuple[str, str]:
    """Returns the address of a path's bucket, and the key in it."""
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key.strip("/")


@functools.cache
def _open(bucket: str) -> ObjectStore:
    """Returns the store of a bucket's address, one per process. Raises UsageError if the scheme is unknown."""
    if not bucket.startswith(SCHEMES):
        raise UsageError(
            f"{bucket}: found an unknown scheme, expected a local path or one of {', '.join(SCHEMES)}. "
            "Use one of these, or mount the store as a volume"
        )
    from obstore.store import from_url

    if bucket.startswith("file://"):
        return from_url(bucket)
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    options: Any = {
        # No limit for a whole request while bytes keep arriving.
        "timeout": datetime.timedelta(days=1),
        "read_timeout": datetime.timedelta(seconds=SILENCE_SECONDS),
        "connect_timeout": datetime.timedelta(seconds=CONNECT_SECONDS),
    }
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    return from_url(
        bucket,
        client_options=options,
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": datetime.timedelta(seconds=(RETRIES + 1) * (SILENCE_SECONDS + LONGEST_PAUSE)),
            "backoff": {
                "init_backoff": datetime.timedelta(seconds=min(1.0, LONGEST_PAUSE)),
                "max_backoff": datetime.timedelta(seconds=LONGEST_PAUSE),
                "base": 2,
            },
        },
    )


@contextlib.contextmanager
def _located(path: str) -> Iterator[tuple[Any, str]]:
    """Yields the store and the key of an object; turns obstore's errors into OSError with an errno and the path."""
    from obstore import exceptions

    try:
        bucket, key = _split(path)
        yield _open(bucket), key
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _first_line(error) + _REFUSED, path) from error
    except (exceptions.BaseError, ValueError) as error:
        status = _STATUS.search(_first_line(error))
        number = _ERRNO.get(status[1], errno.EIO) if status else errno.EIO
        reason = _REFUSED if number == errno.EACCES else ""
        raise OSError(number, _first_line(error) + reason, path) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
