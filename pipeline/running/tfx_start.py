"""Imports TFX without what its packages bring along and nothing here uses.

On Kubeflow every task is a process of its own and would pay for it.
"""

from __future__ import annotations

import sys
import types

# Modules that TFX 1.16 and 1.21 import unguarded, with the names that they take from them: extensions for Vertex AI and
# BigQuery, and a component that brings the client of Kubernetes (tfx/components/__init__.py).
_EMPTY = {"tfx.v1.extensions": (), "tfx.components.infra_validator.component": ("InfraValidator",)}
# Optional imports, guarded where they are made: keras.wrappers, the plots of TFMA, Beam's io.mongodbio and io.gcp, and
# TFX's compilers for Kubeflow (tfx/v1/orchestration/experimental/__init__.py).
_HIDDEN = ("sklearn", "matplotlib", "pymongo", "google.cloud.bigquery", "kfp")


def import_tfx() -> None:
    """Imports `tfx.v1` without its extensions for Vertex AI and BigQuery, InfraValidator, and optional packages.

    The packages can be imported afterwards as usual. Modules that looked for them meanwhile go without.
    """
    for module, names in _EMPTY.items():
        empty = types.ModuleType(module)
        empty.__dict__.update(dict.fromkeys(names))
        sys.modules.setdefault(module, empty)
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    # Python refuses to import what sys.modules has None for, as if it were not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import tfx.v1  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
