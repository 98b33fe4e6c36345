"""The files of a data folder, which a run lists once: a store with a million objects takes minutes to list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from components import files

_kept: ContextVar[dict[str, dict[str, str]] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """Lists each data folder once within the block, so that all that is read of it agrees; blocks may be nested."""
    kept = _kept.get()
    token = _kept.set({} if kept is None else kept)
    try:
        yield
    finally:
        _kept.reset(token)


def data_files(root: str) -> dict[str, str]:
    """Returns the files below a data root with their checksums, as `files.checksums` does, and raises what it raises.

    Within `listed_once`, a root that was listed before is not listed again. Do not change what is returned.
    """
    kept = _kept.get()
    if kept is None:
        return files.checksums(root)
    if root not in kept:
        kept[root] = files.checksums(root)
    return kept[root]


def forget() -> None:
    """Drops what `listed_once` keeps: the next call of `data_files` lists again."""
    kept = _kept.get()
    if kept is not None:
        kept.clear()
