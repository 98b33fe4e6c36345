"""Describes the machine of a benchmark and measures its GPU memory."""

from __future__ import annotations

import os
import pathlib
import platform

import keras
import tensorflow as tf

from components import gpu

_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def describe() -> dict[str, str]:
    """Returns the first GPU, or the CPU if there is no GPU, and the versions of the driver and packages."""
    facts = {"device": f"{_processor()}, {len(os.sched_getaffinity(0))} cores"}
    if gpu.usable_gpus():
        found = gpu.inspect()
        first = found.devices[0]
        facts["device"] = f"{first.name}, compute capability {'.'.join(map(str, first.capability))}"
        facts["driver"] = found.driver or "unknown"
        facts["TensorFlow built for"] = f"CUDA {found.build.cuda}, cuDNN {found.build.cudnn}"
    return {
        **facts,
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }


def reset_gpu_memory() -> int | None:
    """Resets the peak of the first GPU's memory and returns the bytes in use; None without a GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    tf.config.experimental.reset_memory_stats("GPU:0")
    return tf.config.experimental.get_memory_info("GPU:0")["current"]


def peak_gpu_memory(before: int | None) -> int | None:
    """Returns the peak since `reset_gpu_memory` in bytes, minus what was in use then.

    Args:
        before: what `reset_gpu_memory` returned.
    """
    return None if before is None else tf.config.experimental.get_memory_info("GPU:0")["peak"] - before


def _processor() -> str:
    for line in _CPU_INFO.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
