"""Names and readers of the quarantine's files, for gates, report and console."""

from __future__ import annotations

import json
from typing import Any

from components import files
from components.dataset.near_duplicates import NearDuplicate
from components.dataset.pairs import DataIssue

ISSUES_FILE = "quarantine.jsonl"
COUNTS_FILE = "counts.json"
SHARED_FILE = "shared_images.jsonl"
SIMILAR_FILE = "similar_images.jsonl"


def read_counts(uri: str) -> dict[str, Any]:
    """Returns {"examples": {split: count}, "quarantined": {split: {reason: count}}}."""
    return json.loads(files.read_bytes(files.join(uri, COUNTS_FILE)))


def read_issues(uri: str) -> list[DataIssue]:
    """Returns the bad pairs with file and reason, sorted by split, name and file."""
    return sorted(
        (DataIssue(**line) for line in _read_lines(uri, ISSUES_FILE)),
        key=lambda issue: (issue.split, issue.name, issue.file),
    )


def read_shared_images(uri: str) -> list[dict[str, list[str]]]:
    """Returns {split: names of pairs} for each image that is in more than one split, sorted."""
    return sorted(_read_lines(uri, SHARED_FILE), key=lambda names: sorted(names.items()))


def read_similar_images(uri: str) -> list[NearDuplicate]:
    """Returns each image with near duplicates in another split, with the nearest one, sorted."""
    return sorted(NearDuplicate(**line) for line in _read_lines(uri, SIMILAR_FILE))


def _read_lines(uri: str, name: str) -> list[Any]:
    """Reads a file of JSON lines, which Beam's workers write in any order."""
    return [json.loads(line) for line in files.read_bytes(files.join(uri, name)).decode().splitlines()]
