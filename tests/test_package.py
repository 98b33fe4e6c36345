"""The built wheel has every file that the code reads, and works without extras."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import build_meta

from pipeline.cli.extras import _EXTRAS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("pipeline", "components", "trainer", "serving")
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the working tree, built from a copy to keep the tree clean."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*_PACKAGES, "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (copy / name).symlink_to(_ROOT / name)
    target = tmp_path_factory.mktemp("wheel")
    before = os.getcwd()
    os.chdir(copy)
    try:
        return target / build_meta.build_wheel(str(target))
    finally:
        os.chdir(before)


def test_wheel_has_every_file_of_its_packages_and_no_manifest(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(_ROOT).as_posix()
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    assert packed == files
    assert not any(name.startswith("kubernetes/") for name in packed)


def test_wheel_carries_the_licence_and_needs_neither_tensorflow_nor_tfx_without_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(metadata).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]

    assert "License-Expression: Apache-2.0" in lines
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert required
    assert not [line for line in required if re.search("tensorflow|tfx|kfp|beam|keras", line)]


def test_the_extra_that_an_error_names_has_the_missing_module():
    for module, extra in _EXTRAS.items():
        assert extra in _PROJECT["optional-dependencies"]
        assert importlib.util.find_spec(module), module


@pytest.mark.slow
def test_wheel_in_an_empty_environment_gives_command_and_client_without_tensorflow(wheel, tmp_path):
    uv = _ROOT / ".cache" / "uv" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("the installer is not there; `make setup` brings it")
    environment = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "venv"), "UV_SYSTEM_CERTS": "true"}
    environment.pop("PYTHONPATH", None)
    stack = (_ROOT / ".venv" / ".ready").read_text().split()[0]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    lock = ["--constraints", _ROOT / "requirements" / f"{stack}.txt"]
    subprocess.run(
        [uv, "pip", "install", "--quiet", *lock, wheel], cwd=tmp_path, env=environment, check=True, timeout=600
    )
    bin_folder = tmp_path / "venv" / "bin"

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run(bin_folder / "python", "-c", "import serving.client").returncode == 0
    assert run(bin_folder / "python", "-c", "import tensorflow").returncode == 1
    assert "Train, evaluate" in run(bin_folder / "segpipe", "--help").stdout
    assert run(bin_folder / "segpipe", "data", "make", "scenes").returncode == 0
    training = run(bin_folder / "segpipe", "run", "--data", "scenes", "--out", "work")
    assert training.returncode == 2
    assert "pip install 'segpipe[pipeline]'" in training.stderr
    assert not (tmp_path / "work").exists()
