"""Spans: data that arrives folder by folder, as `data/span-{span}`, of which a run takes one.

The newest span is the one whose name is the largest number, or the last in alphabetical order where
names are no numbers, as dates are. Hidden folders and `lost+found` are no spans.
"""

from __future__ import annotations

from collections.abc import Iterator

from components import files
from components.errors import UsageError

PLACEHOLDER = "{span}"
NEWEST = "newest"


def locate(folder: str, span: str = NEWEST) -> str:
    """Returns the folder of one span; a folder without `{span}` is returned as it is.

    Args:
        folder: a data folder, local or on an object store, `{span}` in the name of one part of its path.
        span: the span's name, or `newest`.

    Raises:
        UsageError: there is no span, or `{span}` occurs more than once.
    """
    if PLACEHOLDER not in folder:
        return folder
    if folder.count(PLACEHOLDER) > 1:
        raise UsageError(f"data.dir: found {PLACEHOLDER} more than once in {folder}, expected it once")
    if span == NEWEST:
        names = list(_spans(folder))
        if not names:
            raise UsageError(f"{folder}: found no folder that fits, expected at least one span")
        span = max(names, key=_age)
    return folder.replace(PLACEHOLDER, span)


def _spans(folder: str) -> Iterator[str]:
    """Yields what stands where the placeholder does, in the names of the folders that fit."""
    before, after = folder.split(PLACEHOLDER)
    parent, _, prefix = before.rpartition("/")
    suffix = after.partition("/")[0]
    for name in files.list_folders(parent + "/" if "/" in before else "."):
        fits = name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)
        if fits and not files.holds_no_data(name):
            yield name[len(prefix) : len(name) - len(suffix)]


def _age(span: str) -> tuple[bool, int, str]:
    """Returns a key by which newer spans sort last; a number is newer than a word."""
    is_number = span.isascii() and span.isdigit()
    return is_number, int(span) if is_number else 0, span
