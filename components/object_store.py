"""Reads, writes and lists objects of S3, Google Cloud Storage and Azure, all through the library obstore.

Credentials, endpoint and region come from each store's own environment variables: see docs/stack.md. `file://` is a
local folder that is read and written by the same calls, for trying things out.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tenacity import retry, retry_if_exception, stop_after_attempt

from components.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3://", "gs://", "az://", "abfs://", "abfss://", "file://")
# Names of endpoints in the environment; plain http is refused by obstore unless asked for.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT")
CONNECT_SECONDS = 10.0
# A connection on which no byte arrives for so long is given up.
SILENCE_SECONDS = 60.0
# Tries after the first; obstore repeats timeouts, broken connections and status 5xx, 408 and 429.
RETRIES = 4
LONGEST_PAUSE = 8.0  # seconds between two tries; the first is a second
_CHUNK_BYTES = 8 << 20
_UPDATES = 50  # tries of a write that others may come before
_PARTS_AT_ONCE = 4  # of 5 MiB, each of which must arrive within the limit of silence
# obstore 0.11 and 0.12 raise their general error if the listing of a bucket is refused or finds none.
_STATUS = re.compile(r"status code: (\d+)")
_ERRNO = {"401": errno.EACCES, "403": errno.EACCES, "404": errno.ENOENT}
_REFUSED = "; check the credentials and their rights to the bucket"


def read(path: str) -> bytes:
    """Returns an object's content. Raises OSError."""
    import obstore

    with _explained(path):
        store, key = _locate(path)
        return bytes(obstore.get(store, key).bytes())


def chunks(path: str) -> Iterator[bytes]:
    """Yields an object's content piece by piece. Raises OSError."""
    import obstore

    with _explained(path):
        store, key = _locate(path)
        for chunk in obstore.get(store, key).stream(_CHUNK_BYTES):
            yield bytes(chunk)


def write(path: str, content: Any) -> None:
    """Writes an object, which appears when all of it has arrived.

    Args:
        path: the address.
        content: bytes, a file open for reading bytes, or an iterator of bytes.

    Raises:
        OSError: the store cannot be written.
    """
    import obstore

    with _explained(path):
        store, key = _locate(path)
        obstore.put(store, key, content, max_concurrency=_PARTS_AT_ONCE)


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replaces an object's content by what a function makes of it, unless it was changed meanwhile; then again.

    Args:
        path: the address; not `file://`, which knows no conditional writes.
        change: takes the content, None without an object. A repeated change of its own result must change nothing: a
            write whose answer is lost is made again.

    Raises:
        OSError: the store cannot be read or written, or others change the object all the time.
    """
    import obstore
    from obstore import exceptions

    # A refusal means that another writer's change went through.
    for _ in range(_UPDATES):
        before, mode = None, "create"  # type: bytes | None, Any
        with _explained(path):
            store, key = _locate(path)
            with contextlib.suppress(FileNotFoundError):
                found = obstore.get(store, key)
                state = {name: found.meta[name] for name in ("e_tag", "version")}
                before, mode = bytes(found.bytes()), {name: value for name, value in state.items() if value}
            with contextlib.suppress(exceptions.AlreadyExistsError, exceptions.PreconditionError):
                obstore.put(store, key, change(before), mode=mode)
                return
    raise OSError(errno.EBUSY, f"was changed by others {_UPDATES} times while this process wrote it", path)


def write_chunks(path: str, content: Iterator[bytes]) -> None:
    """Writes an object from pieces, of which few are in memory at a time. Raises OSError, or what the pieces raise."""
    start = list(itertools.islice(content, 2))
    write(path, b"".join(start) if len(start) < 2 else itertools.chain(start, content))


def exists(path: str) -> bool:
    """Tells whether there is an object of this name. Raises OSError."""
    import obstore

    try:
        with _explained(path):
            store, key = _locate(path)
            return bool(key) and bool(obstore.head(store, key))
    except FileNotFoundError:
        return False


def objects(folder: str) -> Iterator[Any]:
    """Yields obstore's `ObjectMeta` of each object below a folder, with `path` made relative to it. Raises OSError."""
    import obstore

    with _explained(folder):
        store, key = _locate(folder)
        prefix = f"{key}/" if key else ""
        for page in obstore.list(store, key or None, chunk_size=1000):
            yield from ({**meta, "path": meta["path"].removeprefix(prefix)} for meta in page)


def children(folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the objects directly below a folder. Raises OSError."""
    import obstore

    with _explained(folder):
        store, key = _locate(folder)
        found = obstore.list_with_delimiter(store, key or None)
    return [_name(path) for path in found["common_prefixes"]], [_name(meta["path"]) for meta in found["objects"]]


def remove(path: str) -> None:
    """Removes an object, if there is one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _delete(path, [_locate(path)[1]])


def remove_folder(folder: str) -> None:
    """Removes all objects below a folder. Raises OSError."""
    import obstore

    with contextlib.suppress(FileNotFoundError):
        with _explained(folder):
            store, key = _locate(folder)
            keys = [meta["path"] for page in obstore.list(store, key, chunk_size=1000) for meta in page]
        _delete(folder, keys)
    if folder.startswith("file://"):  # which has folders
        shutil.rmtree(folder.removeprefix("file://"), ignore_errors=True)


# obstore does not repeat a deletion whose answer did not come in time.
@retry(
    retry=retry_if_exception(lambda error: isinstance(error, OSError) and error.errno == errno.EIO),
    stop=stop_after_attempt(3),
    reraise=True,
)
def _delete(path: str, keys: list[str]) -> None:
    """Removes objects of the bucket that a path lies in."""
    import obstore

    with _explained(path):
        if keys:
            obstore.delete(_locate(path)[0], keys)


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _locate(path: str) -> tuple[ObjectStore, str]:
    """Returns the store that holds an object, and the object's name in it."""
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    return _open(f"{scheme}://{bucket}"), key.strip("/")


@functools.cache
def _open(bucket: str) -> ObjectStore:
    """Returns the store of a bucket's address, kept for the life of the process. Raises UsageError for its scheme."""
    if not bucket.startswith(SCHEMES):
        raise UsageError(
            f"{bucket}: found a scheme that segpipe does not know, expected a local path or one of "
            f"{', '.join(SCHEMES)}. Mount the store as a volume, or use one of these"
        )
    from obstore.store import from_url

    if bucket.startswith("file://"):
        return from_url(bucket)
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    options: Any = {
        # Requests may take as long as their bytes keep coming.
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
def _explained(path: str) -> Iterator[None]:
    """Turns obstore's errors about a path into OSError with a number that says what happened."""
    from obstore import exceptions

    try:
        yield
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
