"""The artifact type that holds what ExampleGen could not use."""

from __future__ import annotations

from tfx import v1 as tfx


class Quarantine(tfx.dsl.Artifact):
    """Bad pairs with file and reason, counts by split, and images in several splits: see `quarantine`."""

    # NAMESPACE.Name, under which Vertex AI imports the class; see components/__init__.py.
    TYPE_NAME = "components.Quarantine"
