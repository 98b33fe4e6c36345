"""The artifact type of ExampleGen's bad pairs, and the properties of its examples."""

from __future__ import annotations

import json
from typing import Any

from tfx import v1 as tfx

SPLIT_FINGERPRINTS = "split_fingerprints"  # custom property of the examples: JSON, the fingerprint of each split


class Quarantine(tfx.dsl.Artifact):
    """Bad pairs with file and reason, counts by split, and images in several splits; see quarantine.py."""

    # Vertex AI imports the class as NAMESPACE.Name; see components/__init__.py.
    TYPE_NAME = "components.Quarantine"


def split_fingerprint(examples: Any, split: str) -> str:
    """Returns the fingerprint of a split's files; empty if an older version of segpipe wrote the examples."""
    return json.loads(examples.get_string_custom_property(SPLIT_FINGERPRINTS) or "{}").get(split, "")
