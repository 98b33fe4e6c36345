"""Finds out why TensorFlow cannot use a GPU: the driver, the libraries or the device.

Only the functions that say so import TensorFlow.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from components.errors import UsageError
from components.tensorflow_start import nvidia_libraries

_DRIVER_FILE = "/proc/driver/nvidia/version"
_DRIVER_LIBRARY = "libcuda.so.1"
# The oldest driver for all toolkits of a major version of CUDA: docs.nvidia.com/deploy/cuda-compatibility/
# minor-version-compatibility.html, and table 2 of docs.nvidia.com/cuda/archive/12.5.1/cuda-toolkit-release-notes/.
_OLDEST_DRIVER = {12: "525.60.13"}
# TensorFlow registers a GPU only if it can load all of these and cuDNN: `TryDlopenCUDALibraries` in TensorFlow 2.21,
# third_party/xla/xla/tsl/platform/default/dlopen_checker.cc. 2.16 and 2.21 pass these names to `dlopen`.
_LIBRARIES = {
    12: (
        "libcudart.so.12",
        "libcublas.so.12",
        "libcublasLt.so.12",
        "libcufft.so.11",
        "libcusolver.so.11",
        "libcusparse.so.12",
    )
}
_NOT_FOUND = "not found"
# cuda.h of CUDA 12: CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class Problem(NamedTuple):
    """A missing or unsuitable part, and how to fix it."""

    what: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Build:
    """What this TensorFlow was built for; `cuda`, `cudnn` and `capabilities` are empty without CUDA."""

    version: str
    cuda: str = ""
    cudnn: str = ""
    capabilities: tuple[tuple[int, int], ...] = ()

    @property
    def cuda_major(self) -> int:
        """Major version of CUDA; 0 without CUDA."""
        return int(self.cuda.partition(".")[0] or 0)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the shared libraries that TensorFlow loads before it registers a GPU."""
        cudnn = (f"libcudnn.so.{self.cudnn.partition('.')[0]}",) if self.cudnn else ()
        return (*_LIBRARIES.get(self.cuda_major, ()), *cudnn)


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU as the driver describes it; `memory` in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclasses.dataclass(frozen=True)
class GpuInspection:
    """The driver, the GPUs, and the libraries that TensorFlow needs.

    Attributes:
        build: what TensorFlow was built for.
        driver: version of the driver in the kernel; empty without a driver, or if it is not published (under WSL).
        driver_problem: why the driver's library cannot be loaded; empty if it can.
        driver_cuda: newest CUDA that the driver supports (major, minor); (0, 0) without a driver.
        start_problem: error of the driver's initialisation, such as CUDA_ERROR_NO_DEVICE; empty if it succeeds.
        devices: the GPUs that the driver shows to this process.
        libraries: why each library that TensorFlow loads cannot be loaded; empty if it can.
        visible: `CUDA_VISIBLE_DEVICES`; None if not set.
    """

    build: Build
    driver: str = ""
    driver_problem: str = ""
    driver_cuda: tuple[int, int] = (0, 0)
    start_problem: str = ""
    devices: tuple[Device, ...] = ()
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    visible: str | None = None


def require_gpu(devices: Sequence[object]) -> None:
    """Raises UsageError with the missing parts if `devices`, the result of `usable_gpus`, is empty."""
    if devices:
        return
    lines = ["training.require_gpu: found no GPU that TensorFlow can use, expected one."]
    lines += [f"- {problem.what}. {problem.remedy}" for problem in find_problems(inspect())]
    lines.append("Or train on the processor: --preset cpu, or --set training.require_gpu=false")
    error = UsageError("\n".join(lines))
    # Another node may have a GPU.
    error.permanent = False
    raise error


def usable_gpus() -> Sequence[object]:
    """Returns the GPUs that TensorFlow can use; imports TensorFlow."""
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


def find_problems(found: GpuInspection) -> list[Problem]:
    """Returns why TensorFlow cannot use a GPU; call it if TensorFlow lists no GPU."""
    if not found.build.cuda:
        return [
            Problem(
                f"TensorFlow {found.build.version} was built without CUDA",
                "Install TensorFlow's package `tensorflow` for Linux on x86-64 in its place",
            )
        ]
    result = [
        problem for problem in (_driver_problem(found), _library_problem(found), _device_problem(found)) if problem
    ]
    return result or [
        Problem(
            "the driver, the libraries and a GPU were found, but TensorFlow lists no GPU",
            "Read TensorFlow's log: TF_CPP_MIN_LOG_LEVEL=0 TF_CPP_MAX_VLOG_LEVEL=1 segpipe doctor",
        )
    ]


def _driver_problem(found: GpuInspection) -> Problem | None:
    build = found.build
    oldest = _OLDEST_DRIVER.get(build.cuda_major)
    wanted = f"version {oldest} or newer" if oldest else f"one for CUDA {build.cuda_major} or newer"
    if found.driver_problem and not found.driver:
        return Problem(
            f"no NVIDIA driver: found neither {_DRIVER_FILE} nor {_DRIVER_LIBRARY}",
            f"Install NVIDIA's driver, {wanted}. A container gets the GPU and the driver of its host with "
            "`docker run --gpus all`, or with kubeflow.components.Trainer.gpus",
        )
    if found.driver_problem:
        return Problem(
            f"the kernel has NVIDIA driver {found.driver}, but not its library: {found.driver_problem}",
            "Install the driver's libraries of the same version; start a container with `docker run --gpus all`",
        )
    if found.driver_cuda[0] < build.cuda_major:
        return Problem(
            f"the NVIDIA driver {found.driver or 'of this machine'} is too old: it supports CUDA "
            f"{_dotted(found.driver_cuda)}, and TensorFlow {build.version} was built for CUDA {build.cuda}",
            f"Install a newer driver, {wanted}",
        )
    if found.visible is not None and not found.devices and found.start_problem in ("", "CUDA_ERROR_NO_DEVICE"):
        return Problem(
            f"CUDA_VISIBLE_DEVICES is {found.visible!r}, which hides all GPUs",
            "Unset it, or set it to a GPU that `nvidia-smi --list-gpus` lists, such as 0",
        )
    if found.start_problem or not found.devices:
        return Problem(
            f"the NVIDIA driver shows no GPU{found.start_problem and f' ({found.start_problem})'}",
            "Check that `nvidia-smi` lists a GPU. After an update of the driver, restart the machine",
        )
    return None


def _library_problem(found: GpuInspection) -> Problem | None:
    missing = {name: reason for name, reason in found.libraries.items() if reason}
    if not missing:
        return None
    reasons = ", ".join(name if reason == _NOT_FOUND else f"{name} ({reason})" for name, reason in missing.items())
    return Problem(
        f"TensorFlow cannot load {'this library' if len(missing) == 1 else 'these libraries'}: {reasons}",
        "Install NVIDIA's wheels: `SEGPIPE_EXTRAS=gpu make setup` in a checkout, else "
        f"`pip install 'tensorflow[and-cuda]=={found.build.version}'`",
    )


def _device_problem(found: GpuInspection) -> Problem | None:
    oldest = min(found.build.capabilities, default=(0, 0))
    if not found.devices or any(device.capability >= oldest for device in found.devices):
        return None
    names = ", ".join(f"{device.name} has compute capability {_dotted(device.capability)}" for device in found.devices)
    return Problem(
        f"{names}, and TensorFlow {found.build.version} was built for {_dotted(oldest)} and newer",
        "Use a newer GPU",
    )


def inspect(
    build: Build | None = None,
    driver_file: str = _DRIVER_FILE,
    load: Callable[[str], Any] = ctypes.CDLL,
    environment: Mapping[str, str] = os.environ,
) -> GpuInspection:
    """Inspects the driver, the GPUs, and the libraries that TensorFlow needs.

    Args:
        build: what TensorFlow was built for; None imports TensorFlow to find out.
        driver_file: the kernel's file with the driver's version.
        load: loads a shared library by name or path, or raises OSError.
        environment: environment variables.
    """
    build = build or tensorflow_build()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    libraries = {name: _load_error(name, load) for name in build.libraries}
    found = GpuInspection(build, driver=_driver_version(driver_file), libraries=libraries, visible=visible)
    try:
        driver = load(_DRIVER_LIBRARY)
    except OSError as error:
        return dataclasses.replace(found, driver_problem=str(error))
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    # cuda.h: 12040 is CUDA 12.4.
    found = dataclasses.replace(found, driver_cuda=(version.value // 1000, version.value % 1000 // 10))
    code = driver.cuInit(0)
    if code:
        return dataclasses.replace(found, start_problem=_error_name(driver, code))
    return dataclasses.replace(found, devices=_devices(driver))


def tensorflow_build() -> Build:
    """Returns what TensorFlow was built for; imports TensorFlow."""
    import tensorflow as tf

    info = tf.sysconfig.get_build_info()
    # Such as sm_80 and compute_90.
    capabilities = [
        re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[a-z]?", name) for name in info.get("cuda_compute_capabilities", ())
    ]
    return Build(
        tf.__version__,
        info.get("cuda_version", ""),
        info.get("cudnn_version", ""),
        tuple((int(match[1]), int(match[2])) for match in capabilities if match),
    )


def _driver_version(path: str) -> str:
    try:
        with open(path) as file:
            text = file.read()
    except OSError:
        return ""
    # NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return match[1] if match else "of unknown version"


def _load_error(name: str, load: Callable[[str], Any]) -> str:
    """Returns why a library cannot be loaded by name or from NVIDIA's wheels; empty if it can."""
    reason = _NOT_FOUND
    for place in (name, *nvidia_libraries(name)):
        try:
            load(place)
            return ""
        except OSError as error:
            # The wheel has the library, so the error names one of its dependencies.
            if place != name:
                reason = str(error)
    return reason


def _error_name(driver: Any, code: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    return (name.value or f"CUDA error {code}".encode()).decode()


def _devices(driver: Any) -> tuple[Device, ...]:
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    devices = []
    for number in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        devices.append(Device(name.value.decode(), (major.value, minor.value), memory.value))
    return tuple(devices)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
