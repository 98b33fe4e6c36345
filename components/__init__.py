"""The parts of the pipeline: data sets, TFX components, metrics and the report."""

from typing import Any

_ARTIFACTS = {"Quarantine": "components.example_gen.artifacts", "Report": "components.report.artifacts"}


def __getattr__(name: str) -> Any:
    """Returns an artifact type, which TFX on Vertex AI imports by a name of two parts, module and class."""
    if name not in _ARTIFACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ARTIFACTS[name]), name)
