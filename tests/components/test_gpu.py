"""`gpu` names each missing part and how to add it."""

import ctypes
import dataclasses
import shutil
import subprocess

import pytest

from components import gpu
from components.errors import UsageError
from components.gpu import Build, Device, GpuInspection

_BUILD = Build("2.21.0", "12.5.1", "9", ((6, 0), (7, 0), (9, 0)))
_WELL = GpuInspection(
    _BUILD,
    driver="550.54.15",
    driver_cuda=(12, 4),
    devices=(Device("NVIDIA L4", (8, 9), 24 * 2**30),),
    libraries=dict.fromkeys(_BUILD.libraries, ""),
)
# The text of version files of NVIDIA's closed and open kernel modules.
_CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
_OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs-builder@U16)\n"


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        (
            {"driver": "", "driver_problem": "cannot open shared object file"},
            "no NVIDIA driver: found neither /proc/driver/nvidia/version nor libcuda.so.1",
            "Install NVIDIA's driver, version 525.60.13 or newer",
        ),
        (
            {"driver_problem": "libcuda.so.1: cannot open shared object file"},
            "the kernel has NVIDIA driver 550.54.15, but not its library: libcuda.so.1: cannot open",
            "docker run --gpus all",
        ),
        (
            {"driver": "470.82.01", "driver_cuda": (11, 4), "devices": ()},
            "driver 470.82.01 is too old: it supports CUDA 11.4, and TensorFlow 2.21.0 was built for CUDA 12.5.1",
            "Install a newer driver, version 525.60.13 or newer",
        ),
        (
            {"visible": "", "devices": (), "start_problem": "CUDA_ERROR_NO_DEVICE"},
            "CUDA_VISIBLE_DEVICES is '', which hides all GPUs",
            "Unset it",
        ),
        (
            {"visible": "7", "devices": ()},
            "CUDA_VISIBLE_DEVICES is '7', which hides all GPUs",
            "such as 0",
        ),
        (
            {"visible": "0", "devices": (), "start_problem": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
            "the NVIDIA driver shows no GPU (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
            "restart the machine",
        ),
        (
            {
                "libraries": {
                    "libcudnn.so.9": "not found",
                    "libcufft.so.11": "libx.so: not there",
                    "libcudart.so.12": "",
                }
            },
            "TensorFlow cannot load these libraries: libcudnn.so.9, libcufft.so.11 (libx.so: not there)",
            "pip install 'tensorflow[and-cuda]==2.21.0'",
        ),
        (
            {"devices": (Device("GeForce GTX 970", (5, 2), 2**32),)},
            "GeForce GTX 970 has compute capability 5.2, and TensorFlow 2.21.0 was built for 6.0 and newer",
            "Use a newer GPU",
        ),
        ({"build": Build("2.21.0")}, "TensorFlow 2.21.0 was built without CUDA", "Install TensorFlow's package"),
        ({}, "the driver, the libraries and a GPU were found, but TensorFlow lists no GPU", "TF_CPP_MAX_VLOG_LEVEL=1"),
    ],
)
def test_each_missing_part_is_named_with_its_remedy(changes, what, remedy):
    (problem,) = gpu.find_problems(dataclasses.replace(_WELL, **changes))

    assert what in problem.what
    assert remedy in problem.remedy


def test_one_gpu_that_is_new_enough_suffices():
    old = Device("GeForce GTX 970", (5, 2), 2**32)

    (problem,) = gpu.find_problems(dataclasses.replace(_WELL, devices=(old, *_WELL.devices)))

    assert "compute capability" not in problem.what


def test_the_error_lists_all_missing_parts(monkeypatch):
    nothing = GpuInspection(_BUILD, driver_problem="not there", libraries=dict.fromkeys(_BUILD.libraries, "not found"))
    monkeypatch.setattr(gpu, "inspect", lambda: nothing)

    with pytest.raises(UsageError) as raised:
        gpu.require_gpu([])

    first, driver, libraries, last = str(raised.value).splitlines()
    assert first == "training.require_gpu: found no GPU that TensorFlow can use, expected one."
    assert "no NVIDIA driver" in driver
    assert all(name in libraries for name in _BUILD.libraries)
    assert last == "Or train on the processor: --preset cpu, or --set training.require_gpu=false"
    assert raised.value.exit_code == 2


def test_nothing_is_inspected_if_tensorflow_lists_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "inspect", lambda: pytest.fail("inspected"))

    gpu.require_gpu(["GPU:0"])


@pytest.mark.parametrize(("text", "version"), [(_CLOSED, "535.104.05"), (_OPEN, "560.35.03"), (None, "")])
def test_the_kernel_s_driver_is_read_from_its_file(tmp_path, text, version):
    file = tmp_path / "version"
    if text:
        file.write_text(text)

    def load(name):
        raise OSError(f"{name}: cannot open shared object file")

    found = gpu.inspect(_BUILD, str(file), load, {"CUDA_VISIBLE_DEVICES": "1"})

    assert found.driver == version
    assert found.driver_problem == "libcuda.so.1: cannot open shared object file"
    assert found.libraries == dict.fromkeys(_BUILD.libraries, "not found")
    assert found.visible == "1"


def test_a_wheel_s_library_is_loaded_and_its_missing_dependency_named(monkeypatch):
    monkeypatch.setattr(gpu, "nvidia_libraries", lambda name: [f"/site/{name}"])

    def load(name):
        if name == "/site/libcusolver.so.11":
            raise OSError("libnvJitLink.so.12: cannot open shared object file")
        if not name.startswith("/site/"):
            raise OSError(f"{name}: cannot open shared object file")

    libraries = gpu.inspect(_BUILD, "/nowhere", load, {}).libraries

    assert {name: reason for name, reason in libraries.items() if reason} == {
        "libcusolver.so.11": "libnvJitLink.so.12: cannot open shared object file"
    }


# The functions of CUDA 12's cuda.h that `inspect` calls, for a driver with two GPUs.
_DRIVER = r"""
#include <stddef.h>
#include <stdio.h>
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuInit(unsigned flags) { return START; }
int cuGetErrorName(int code, const char **name) { *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "GPU %d", device); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 + device : attribute == 76 ? 6 * !device : -1;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 80ull << 30; return 0; }
"""


@pytest.fixture
def driver(tmp_path):
    """Returns a function that builds a library loader with only that driver; it takes the result of `cuInit`."""
    compiler = (
        shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler (cc, gcc) to build a driver with")
    )

    def make(start):
        path = tmp_path / f"libcuda-{start}.so"
        command = [compiler, "-shared", "-fPIC", f"-DSTART={start}", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=_DRIVER.encode(), check=True)
        return lambda name: ctypes.CDLL(str(path) if name == "libcuda.so.1" else "/nowhere")

    return make


def test_the_driver_reports_its_cuda_version_and_gpus(driver):
    found = gpu.inspect(_BUILD, "/nowhere", driver(0), {})

    assert (found.driver_problem, found.driver_cuda, found.start_problem) == ("", (12, 4), "")
    assert found.devices == (Device("GPU 0", (8, 6), 80 * 2**30), Device("GPU 1", (9, 0), 80 * 2**30))


@pytest.mark.parametrize(("code", "name"), [(100, "CUDA_ERROR_NO_DEVICE"), (804, "CUDA error 804")])
def test_a_driver_that_fails_to_start_gives_its_error(driver, code, name):
    found = gpu.inspect(_BUILD, "/nowhere", driver(code), {})

    assert (found.start_problem, found.devices) == (name, ())


def test_the_build_of_tensorflow_is_read():
    build = gpu.tensorflow_build()

    assert build.cuda_major == 12
    assert len(build.libraries) == 7
    assert (7, 0) in build.capabilities
    assert (9, 0) in build.capabilities
