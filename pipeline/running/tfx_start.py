"""Imports TFX without unused packages, which shortens the start of a run and of every task on Kubeflow."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

# Modules that TFX 1.16 and 1.21 or TFMA 0.47 and 0.48 always import, with the names imported from them: extensions for
# Vertex AI and BigQuery, components that import the Kubernetes client or Keras Tuner (tfx/components/__init__.py), text
# metrics that import NLTK and sacreBLEU (tensorflow_model_analysis/metrics/__init__.py), and notebook views that import
# ipywidgets (tensorflow_model_analysis/view/__init__.py).
_VIEWS = ("render_plot", "render_slicing_attributions", "render_slicing_metrics", "render_time_series")
_EMPTY = {
    "tfx.v1.extensions": (),
    "tfx.components.infra_validator.component": ("InfraValidator",),
    "tfx.components.tuner.component": ("Tuner", "TunerFnResult"),
    "tensorflow_model_analysis.metrics.bleu": (),
    "tensorflow_model_analysis.metrics.rouge": (),
    "tensorflow_model_analysis.view.widget_view": _VIEWS,
}
# Optional packages, imported in try blocks by keras.wrappers, keras.saving, the copies of Keras 2 in TensorFlow and
# tf_keras, TFDV's and TFMA's plots, Beam's io.gcp, and TFX's compilers for Kubeflow
# (tfx/v1/orchestration/experimental/__init__.py).
_HIDDEN = (
    "sklearn",
    "matplotlib",
    "google.cloud.bigquery",
    "kfp",
    "IPython",
    "scipy.sparse",
    "scipy.linalg",
    "scipy.ndimage",
)
# TFDV's utils/display_util.py prints two lines if it cannot import this.
_NOTEBOOK = "IPython.display"
# Always imported by TFMA's utils/math_util.py, but only used in its functions. It needs the hidden parts of scipy.
_LATE = "scipy.stats"


def import_tfx() -> None:
    """Imports `tfx.v1` without its extensions, the components that segpipe does not use, and optional packages.

    The packages can be imported afterwards. Modules of TFX that tried to import them work without them. Beam's runners
    and file systems stay complete.
    """
    if "tfx.v1" in sys.modules:
        return
    for module, names in _EMPTY.items():
        sys.modules.setdefault(module, _empty(module, names))
    # If an entry of sys.modules is None, its import fails as if the package were not installed.
    hidden = {**dict.fromkeys(_HIDDEN), _NOTEBOOK: _empty(_NOTEBOOK, ("HTML", "display")), _LATE: _late(_LATE)}
    with _replaced(hidden), _no_garbage_collection():
        import tfx.v1  # noqa: F401


def _empty(name: str, names: Iterable[str]) -> types.ModuleType:
    """Returns a module whose names are None."""
    module = types.ModuleType(name)
    module.__dict__.update(dict.fromkeys(names))
    return module


def _late(name: str) -> types.ModuleType:
    """Returns a stand-in that imports the module with this name when one of its attributes is read."""
    module = types.ModuleType(name)

    def attribute(key: str) -> Any:
        # The import system reads names such as __path__. While the stand-in is in sys.modules, the real module cannot
        # be imported.
        if key.startswith("__") or sys.modules.get(name) is module:
            raise AttributeError(f"{name}.{key} cannot be read during the import of TFX; see {__name__}")
        return getattr(importlib.import_module(name), key)

    module.__dict__["__getattr__"] = attribute
    return module


@contextlib.contextmanager
def _replaced(modules: dict[str, Any]) -> Iterator[None]:
    """Replaces entries of sys.modules in the block, except those of modules that are already imported."""
    modules = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Stops the garbage collector in the block, because it would visit all imported objects again and again.

    Objects that exist at the end of the block are never collected; almost all belong to modules, which stay imported.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
