"""Chooses the arithmetic of training: bfloat16 or float16 if the hardware supports it, otherwise float32.

Keras keeps the policy in a global, and the trainer shares its process with other components, so the policy is set for a
block of code and then restored.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

# Keras' names of the dtype policies.
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")

_CPU_INFO = "/proc/cpuinfo"

# A training on fewer pixels is faster without XLA. Measured by scripts/gpu-check.sh on an H200 with FCN-8 at 352x480
# and batches of 16: the first step takes 56 s with XLA and 19 s without, each image 0.97 ms and 2.60 ms.
XLA_PIXELS = 4e9

# Flags of processors with bfloat16 multiplication.
BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def choose(requested: str, cpu_flags: set[str], gpu_capabilities: Sequence[tuple[int, int]]) -> str:
    """Returns the Keras policy for a requested precision.

    Args:
        requested: a policy's name, or "auto".
        cpu_flags: the processor's feature flags, with Linux's names.
        gpu_capabilities: compute capability of each GPU, major and minor.

    Returns:
        For "auto" with GPUs, mixed_bfloat16 from capability 8.0 and mixed_float16 from 7.0, the first one with tensor
        cores. Without GPUs, mixed_bfloat16 if the processor multiplies it, otherwise float32.
    """
    if requested != "auto":
        return requested
    if gpu_capabilities:
        major = min(gpu_capabilities)[0]
        return "mixed_bfloat16" if major >= 8 else "mixed_float16" if major == 7 else "float32"
    return "mixed_bfloat16" if cpu_flags & BFLOAT16_CPU_FLAGS else "float32"


def detect(requested: str) -> str:
    """Returns the Keras policy for a requested precision on this machine; see `choose`."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return choose(requested, cpu_flags(), [d.get("compute_capability", (0, 0)) for d in details])


def use_xla(setting: str, devices: int, pixels: float = math.inf) -> bool:
    """Returns whether to compile with XLA.

    Args:
        setting: `training.xla`. "auto" uses XLA for long trainings on one GPU. On a CPU, XLA costs a third of the speed
            (not by a command). Several devices exchange gradients within a step, and XLA would have to compile that.
        devices: number of devices that share a step.
        pixels: total pixels of the training.
    """
    if setting != "auto":
        return setting == "on"
    return devices == 1 and pixels >= XLA_PIXELS and bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Sets the global Keras dtype policy inside a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def cpu_flags() -> set[str]:
    """Returns the processor's feature flags, with Linux's names."""
    try:
        with open(_CPU_INFO) as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:
        return set()
    return set(lines[0].split()) if lines else set()
