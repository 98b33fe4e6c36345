"""Imports TFX without the Google Cloud clients that its public alias brings, a third of the time that takes.

On Kubeflow every task is a process of its own and would pay for them.
"""

from __future__ import annotations

import sys
import types

_EXTENSIONS = "tfx.v1.extensions"


def without_cloud_clients() -> None:
    """Keeps `tfx.v1` from importing its extensions for Vertex AI and BigQuery; nothing here uses them."""
    sys.modules.setdefault(_EXTENSIONS, types.ModuleType(_EXTENSIONS))
