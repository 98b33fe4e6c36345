"""A process finds the GPU library that TensorFlow does not, in fake wheels built with a C compiler."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from components import gpu
from components.tensorflow_start import prepare

_ROOT = Path(__file__).parents[2]
_COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(not _COMPILER, reason="no C compiler (cc, gcc) to build the libraries with")
_WHEELS = {
    "libcudart": "cuda_runtime",
    "libcublas": "cublas",
    "libcublasLt": "cublas",
    "libcufft": "cufft",
    "libcusolver": "cusolver",
    "libcusparse": "cusparse",
    "libcudnn": "cudnn",
}


@pytest.fixture
def install(tmp_path):
    """Returns a function that creates a site-packages folder whose wheels have libraries with the given names."""

    def make(*names):
        for name in names:
            folder = tmp_path / "site [1]" / "nvidia" / _WHEELS[name.partition(".")[0]] / "lib"
            folder.mkdir(parents=True, exist_ok=True)
            command = [_COMPILER, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(folder / name)]
            subprocess.run(command, input=b"int answer(void) { return 42; }", check=True)
        return tmp_path / "site [1]"

    return make


def _run(code, *paths, **variables):
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (_ROOT, *paths))), "PATH": os.environ["PATH"], **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


_LOAD = "import ctypes; print(ctypes.CDLL('libcusolver.so.11').answer())"
_PREPARE = "from components.tensorflow_start import prepare; prepare()\n"


@needs_compiler
def test_cusolver_of_a_wheel_is_found_by_its_name(install):
    site = install("libcusolver.so.11")

    assert "cannot open shared object file" in _run(_LOAD, site).stderr
    assert _run(_PREPARE + _LOAD, site).stdout == "42\n"


@needs_compiler
def test_tensorflow_s_own_check_of_the_gpu_libraries_passes(install):
    # TensorFlow 2.21, third_party/xla/xla/tsl/platform/default/dlopen_checker.cc. It searches near its own folder.
    build = gpu.tensorflow_build()
    site = install(*build.libraries)
    (site / "tensorflow").mkdir()
    library = site / "tensorflow" / "libtensorflow_framework.so.2"
    library.symlink_to(metadata.distribution("tensorflow").locate_file(f"tensorflow/{library.name}"))
    check = (
        "import ctypes\n"
        f"library = ctypes.CDLL({str(library)!r})\n"
        "check = library._ZN3tsl8internal9DsoLoader22TryDlopenCUDALibrariesEv\n"
        # It returns an absl::Status through its first argument: 0 or 1 if OK, otherwise a pointer.
        "status = ctypes.c_uint64(-1)\n"
        "check.argtypes, check.restype = [ctypes.c_void_p], ctypes.c_void_p\n"
        "check(ctypes.byref(status))\n"
        "print('OK' if status.value in (0, 1) else 'failed')\n"
    )

    prepared = _run(_PREPARE + check, site)
    without = _run(check, site)
    (site / "nvidia" / "cufft" / "lib" / "libcufft.so.11").unlink()
    incomplete = _run(_PREPARE + check, site)

    assert prepared.stdout == "OK\n", prepared.stderr
    # If a newer TensorFlow finds cuSOLVER by itself, `prepare` no longer needs to load it.
    assert without.stdout == ("failed\n" if build.version.startswith("2.21.") else "OK\n")
    assert incomplete.stdout == "failed\n"


def test_a_library_that_cannot_be_loaded_is_not_an_error(tmp_path):
    folder = tmp_path / "nvidia" / "cusolver" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcusolver.so.11").write_text("no library")

    done = _run(_PREPARE + "print('on')", tmp_path)

    assert done.stdout == "on\n", done.stderr


def test_nothing_is_imported_without_the_wheels():
    code = _PREPARE + "import sys; print({'tensorflow', 'numpy', 'nvidia'} & set(sys.modules))"

    assert _run(code).stdout == "set()\n"


@pytest.mark.parametrize(("found", "expected"), [(None, "true"), ("false", "false")])
def test_gpu_memory_grows_unless_the_user_says_otherwise(monkeypatch, found, expected):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", found or "")
    if found is None:
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")

    prepare()

    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == expected


def test_quiet_hides_messages_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    prepare(quiet=True)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"

    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    prepare()
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    prepare(quiet=True)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
