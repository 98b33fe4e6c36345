"""The artifact type that holds a run's report."""

from __future__ import annotations

from tfx import v1 as tfx


class Report(tfx.dsl.Artifact):
    """The page (`report.html`) and its data (`report.json`)."""

    # NAMESPACE.Name, under which Vertex AI imports the class; see components/__init__.py.
    TYPE_NAME = "components.Report"
