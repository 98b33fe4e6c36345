"""The artifact type that holds what ExampleGen could not use, and what its examples say of themselves."""

from __future__ import annotations

import json
from typing import Any

from tfx import v1 as tfx

SPLIT_FINGERPRINTS = "split_fingerprints"  # custom property of the examples: JSON, the fingerprint of each split


class Quarantine(tfx.dsl.Artifact):
    """Bad pairs with file and reason, counts by split, and images in several splits: see `quarantine`."""

    # NAMESPACE.Name, under which Vertex AI imports the class; see components/__init__.py.
    TYPE_NAME = "components.Quarantine"


def split_fingerprint(examples: Any, split: str) -> str:
    """Returns the fingerprint of the files of a split; empty if an earlier version of segpipe made the examples."""
    return json.loads(examples.get_string_custom_property(SPLIT_FINGERPRINTS) or "{}").get(split, "")
