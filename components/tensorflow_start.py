"""Prepares a process for TensorFlow: quiet logs, GPU memory that grows, and a library that TensorFlow does not find.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import os


def prepare(quiet: bool = False) -> None:
    """Prepares this process; call it before anything imports TensorFlow.

    A variable that the user has set keeps its value. Child processes inherit the variables.

    Args:
        quiet: whether to hide TensorFlow's messages below errors.
    """
    if quiet:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Without it, the first process that touches a GPU takes all its memory (`GetAllowGrowthValue` in TensorFlow 2.21,
    # tensorflow/core/common_runtime/gpu/gpu_bfc_allocator.cc).
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # TensorFlow 2.21 finds all of NVIDIA's wheels but this one: the RUNPATH of its libtensorflow_framework.so.2 lacks
    # nvidia/cusolver/lib. A library that is loaded is found by its name, which is all that TensorFlow's `dlopen` asks.
    for path in nvidia_libraries("libcusolver.so.*", package="cusolver"):
        # components/gpu.py reports why it cannot be loaded, if a GPU is required.
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)


def nvidia_libraries(pattern: str, package: str = "*") -> list[str]:
    """Returns the paths of shared libraries in NVIDIA's wheels; none if the wheels are not installed.

    Args:
        pattern: the library's file name, which may hold wildcards.
        package: folder of the wheel, such as cudnn.
    """
    # A namespace package: each wheel adds a folder, and finding it imports nothing.
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    return sorted(
        path
        for folder in folders or ()
        for path in glob.glob(os.path.join(glob.escape(folder), package, "lib", pattern))
    )
