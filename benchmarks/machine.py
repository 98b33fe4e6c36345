"""Says which device, driver and versions gave a benchmark's numbers, and how much GPU memory it took."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess

import keras
import tensorflow as tf

_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def describe() -> dict[str, str]:
    """Returns the first GPU, or else the processor, and the versions that computed on it."""
    facts = {"device": f"{_processor()}, {len(os.sched_getaffinity(0))} cores"}
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = ".".join(map(str, details.get("compute_capability", ("unknown",))))
        facts["device"] = f"{details.get('device_name', 'GPU')}, compute capability {capability}"
        facts["driver"] = _driver()
        build = tf.sysconfig.get_build_info()
        facts["TensorFlow built for"] = f"CUDA {build.get('cuda_version')}, cuDNN {build.get('cudnn_version')}"
    return {
        **facts,
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }


def reset_gpu_memory() -> int | None:
    """Forgets the peak so far; returns the bytes of the first GPU that are in use, None without a GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    tf.config.experimental.reset_memory_stats("GPU:0")
    return tf.config.experimental.get_memory_info("GPU:0")["current"]


def peak_gpu_memory(before: int | None) -> int | None:
    """Returns the most bytes that were in use since `reset_gpu_memory`, without those that it returned."""
    return None if before is None else tf.config.experimental.get_memory_info("GPU:0")["peak"] - before


def _processor() -> str:
    for line in _CPU_INFO.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
