"""The quarantine artifact's files, and how to read them: needed by gates, report and console."""

from __future__ import annotations

import json
from typing import Any

from components import files
from components.dataset.pairs import Fault

FAULTS_FILE = "quarantine.jsonl"
COUNTS_FILE = "counts.json"


def read_counts(uri: str) -> dict[str, Any]:
    """Returns {"examples": {split: count}, "quarantined": {split: {reason: count}}}."""
    return json.loads(files.read_bytes(files.join(uri, COUNTS_FILE)))


def read_faults(uri: str) -> list[Fault]:
    """Returns the pairs that were put aside, with file and reason, in an order that no worker has a part in."""
    lines = files.read_bytes(files.join(uri, FAULTS_FILE)).decode().splitlines()
    faults = [Fault(**json.loads(line)) for line in lines]
    return sorted(faults, key=lambda fault: (fault.split, fault.name, fault.file))
