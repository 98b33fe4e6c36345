"""Prepares a process for TensorFlow, without importing it: log level, GPU memory growth, and a missing library."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import os


def prepare(quiet: bool = False) -> None:
    """Prepares this process and its children; call it before TensorFlow is imported.

    Environment variables that the user has set keep their values. `quiet` hides TensorFlow's messages below errors.
    """
    if quiet:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Otherwise the first process on a GPU takes all its memory (`GetAllowGrowthValue` in TensorFlow 2.21,
    # tensorflow/core/common_runtime/gpu/gpu_bfc_allocator.cc).
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # TensorFlow 2.21 finds all of NVIDIA's wheels except this one: the RUNPATH of its libtensorflow_framework.so.2
    # lacks nvidia/cusolver/lib. TensorFlow's `dlopen` by name finds a library that is already loaded.
    for path in nvidia_libraries("libcusolver.so.*", package="cusolver"):
        # If a GPU is required, components/gpu.py reports why a library cannot be loaded.
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)


def nvidia_libraries(pattern: str, package: str = "*") -> list[str]:
    """Returns the paths of shared libraries in NVIDIA's wheels; empty if they are not installed.

    The pattern is a file name with wildcards, the package the folder of a wheel, such as cudnn.
    """
    # `nvidia` is a namespace package to which each wheel adds a folder.
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    return sorted(
        path
        for folder in folders or ()
        for path in glob.glob(os.path.join(glob.escape(folder), package, "lib", pattern))
    )
