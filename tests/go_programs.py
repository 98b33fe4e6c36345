"""Finds programs that are written in Go, or builds them once into the user's cache."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

BEAM = "github.com/apache/beam/sdks/v2"
CACHE = Path.home() / ".cache" / "segpipe"


def program(name, variable, module, package, version, only_if=None):
    """Returns the path of a program: from an environment variable, from the PATH, or built from its Go module.

    Args:
        name: the program's name.
        variable: the environment variable that may contain its path.
        module: the Go module, such as `BEAM`.
        package: the package in the module, such as `go/cmd/prism`.
        version: the module's version, without `v`.
        only_if: an environment variable. If it is not set, the program is not built, and the test is skipped.
    """
    if found := os.environ.get(variable) or shutil.which(name):
        return found
    file = f"{name}-{version}"
    if only_if and not os.environ.get(only_if) and not (CACHE / file).exists():
        pytest.skip(f"{name} is not installed; set {variable} to its path, or {only_if}=1 to build it with Go")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "go.mod").write_text(f"module build\n\ngo 1.25\n\nrequire {module} v{version}\n")
        return build(file, folder, f"{module}/{package}")


def build(file, folder, package):
    """Returns the path of a file in the cache, built from a Go package if it does not exist; skips the test on failure.

    Args:
        file: the file's name, with the version.
        folder: a folder with a `go.mod`. Go writes to it.
        package: the package.
    """
    binary = CACHE / file
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{binary}.lock"):
        if not binary.exists():
            if shutil.which("go") is None:
                pytest.skip(f"Go is not on the PATH; it builds {file}")
            done = subprocess.run(
                ["go", "build", "-mod=mod", "-o", str(binary), package],
                cwd=folder,
                # Static, so that the program also runs in an image whose C library is older.
                env={**os.environ, "CGO_ENABLED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"{file} could not be built: {done.stderr[-500:]}")
    return str(binary)
