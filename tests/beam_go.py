"""Finds or builds the parts of Beam that are written in Go."""

import os
import shutil
import subprocess
from pathlib import Path

import apache_beam
import pytest

_MODULE = "github.com/apache/beam/sdks/v2"


def binary(package, name, variable, version=apache_beam.__version__):
    """Returns the path of a binary: from an environment variable, from the PATH, or built from its Go module.

    Args:
        package: the Go package in Beam's module, such as `go/cmd/prism`.
        name: the binary's name.
        variable: the environment variable that may name the binary.
        version: Beam's version; the installed one by default.
    """
    found = os.environ.get(variable) or shutil.which(name)
    if found:
        return found
    folder = Path.home() / ".cache" / "segpipe" / f"beam-{version}"
    built = folder / Path(package).name
    if not built.exists():
        if shutil.which("go") is None:
            pytest.skip(f"{variable} is not set, {name} is not on the PATH, and without Go it cannot be built")
        done = subprocess.run(
            ["go", "install", f"{_MODULE}/{package}@v{version}"],
            # Static, so that the binary also runs in an image whose C library is older.
            env={**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"{name} of Beam {version} could not be built: {done.stderr[-500:]}")
    return str(built)
