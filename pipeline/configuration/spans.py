"""Spans: data that arrives in one folder after another, such as `data/span-{span}`. A run reads one span.

The newest span is the one whose name is the largest number. If no name is a number, as with dates, it is the last one
in alphabetical order. Hidden folders and `lost+found` are not spans.
"""

from __future__ import annotations

from collections.abc import Iterator

from components import files
from components.errors import UsageError

PLACEHOLDER = "{span}"
NEWEST = "newest"


def locate(folder: str, span: str = NEWEST) -> str:
    """Returns the folder of one span: replaces `{span}` in a path by the span's name, or by the newest one's.

    Raises:
        UsageError: no span was found, or `{span}` occurs more than once.
    """
    if PLACEHOLDER not in folder:
        return folder
    if folder.count(PLACEHOLDER) > 1:
        raise UsageError(f"data.dir: found {PLACEHOLDER} more than once in {folder}, expected it once")
    if span == NEWEST:
        names = list(_spans(folder))
        if not names:
            raise UsageError(f"{folder}: found no matching folder, expected at least one span")
        span = max(names, key=_age)
    return folder.replace(PLACEHOLDER, span)


def _spans(folder: str) -> Iterator[str]:
    """Yields the part of each matching folder name that replaces the placeholder."""
    before, after = folder.split(PLACEHOLDER)
    parent, _, prefix = before.rpartition("/")
    suffix = after.partition("/")[0]
    for name in files.list_folders(parent + "/" if "/" in before else "."):
        matches = name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)
        if matches and not files.is_system_folder(name):
            yield name[len(prefix) : len(name) - len(suffix)]


def _age(span: str) -> tuple[bool, int, str]:
    """Returns a sort key that puts newer spans last; a number is newer than a word."""
    is_number = span.isascii() and span.isdigit()
    return is_number, int(span) if is_number else 0, span
