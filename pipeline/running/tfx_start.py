"""Imports TFX without unused optional packages, which saves time in every task on Kubeflow."""

from __future__ import annotations

import sys
import types

# Modules that TFX 1.16 and 1.21 always import, with the names imported from them: extensions for Vertex AI and
# BigQuery, and a component that imports the Kubernetes client (tfx/components/__init__.py).
_EMPTY = {"tfx.v1.extensions": (), "tfx.components.infra_validator.component": ("InfraValidator",)}
# Optional packages, imported in try blocks by keras.wrappers, TFMA's plots, Beam's io.mongodbio and io.gcp, and TFX's
# compilers for Kubeflow (tfx/v1/orchestration/experimental/__init__.py).
_HIDDEN = ("sklearn", "matplotlib", "pymongo", "google.cloud.bigquery", "kfp")


def import_tfx() -> None:
    """Imports `tfx.v1` without its extensions for Vertex AI and BigQuery, InfraValidator, and optional packages.

    The packages can be imported afterwards. Modules of TFX that tried to import them work without them.
    """
    for module, names in _EMPTY.items():
        empty = types.ModuleType(module)
        empty.__dict__.update(dict.fromkeys(names))
        sys.modules.setdefault(module, empty)
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    # If an entry of sys.modules is None, its import fails as if the package were not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import tfx.v1  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
