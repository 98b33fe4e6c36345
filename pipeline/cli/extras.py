"""Finds the extra of the package that installs a missing module."""

from __future__ import annotations

import importlib.util

from components.errors import UsageError

# A top-level module of each extra's requirements that the code imports; see pyproject.toml.
_EXTRAS = {
    "av": "serving",
    "grpc_health": "serving",
    "kubernetes": "serving",
    "obstore": "serving",
    "prometheus_client": "serving",
    "scipy": "serving",
    "starlette": "serving",
    "tensorflow": "serving",
    "tensorflow_serving": "serving",
    "uvicorn": "serving",
    "apache_beam": "pipeline",
    "keras": "serving",
    "ml_metadata": "pipeline",
    "tensorflow_data_validation": "pipeline",
    "tensorflow_metadata": "pipeline",
    "tfx": "pipeline",
    "kfp": "kubeflow",
    "mlflow": "mlflow",
}


def missing_extra(module: str | None) -> UsageError | None:
    """Returns the error for a module that is not installed; None if no extra installs it."""
    name = (module or "").partition(".")[0]
    if name not in _EXTRAS:
        return None
    extra = _EXTRAS[name]
    return UsageError(
        f"this command needs the Python package {name}, which is not installed; install the extra {extra!r}: "
        f"pip install 'segpipe[{extra}]', or `make setup` in a checkout"
    )


def require(module: str) -> None:
    """Checks that a module is installed, without importing it. Raises UsageError with the extra that installs it."""
    if importlib.util.find_spec(module) is None and (error := missing_extra(module)):
        raise error
