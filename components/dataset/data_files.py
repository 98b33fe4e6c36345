"""Lists the files of a data folder, once in a run: a store with a million objects takes minutes to list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from components import files

_kept: ContextVar[dict[str, dict[str, str]] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """Lists each data folder once within the block, so that all readers see the same files; blocks may be nested."""
    kept = _kept.get()
    token = _kept.set({} if kept is None else kept)
    try:
        yield
    finally:
        _kept.reset(token)


def data_files(root: str) -> dict[str, str]:
    """Returns the files below a data root and their checksums; see `files.checksums`, also for the errors.

    Within `listed_once`, a root is listed once. Do not change the returned dictionary.
    """
    kept = _kept.get()
    if kept is None:
        return files.checksums(root)
    if root not in kept:
        kept[root] = files.checksums(root)
    return kept[root]


def forget() -> None:
    """Clears the listings of `listed_once`, so that the next call of `data_files` lists again."""
    kept = _kept.get()
    if kept is not None:
        kept.clear()
