"""Imports TFX without what its packages bring along and nothing here uses.

On Kubeflow every task is a process of its own and would pay for it.
"""

from __future__ import annotations

import sys
import types

_EXTENSIONS = "tfx.v1.extensions"
# Optional imports, guarded where they are made: keras.wrappers, the plots of TFMA, and Beam's io.mongodbio and io.gcp.
_HIDDEN = ("sklearn", "matplotlib", "pymongo", "google.cloud.bigquery")


def import_tfx() -> None:
    """Imports `tfx.v1` without its extensions for Vertex AI and BigQuery, and without optional packages.

    The packages can be imported afterwards as usual. Modules that looked for them meanwhile go without.
    """
    sys.modules.setdefault(_EXTENSIONS, types.ModuleType(_EXTENSIONS))
    hidden = [name for name in _HIDDEN if name not in sys.modules]
    # Python refuses to import what sys.modules has None for, as if it were not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import tfx.v1  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
