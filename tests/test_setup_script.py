"""What the set-up script says where it cannot go on, and what `make` leaves alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path):
    """A copy of what set-up reads, which asks for a Python that does not exist."""
    if not (_ROOT / ".cache" / "uv").exists():
        pytest.skip("the installer is not there; `make setup` brings it")
    for name in ("scripts", "requirements"):
        shutil.copytree(_ROOT / name, tmp_path / name)
    (tmp_path / ".cache").symlink_to(_ROOT / ".cache")
    (tmp_path / ".python-version").write_text("3.99\n")
    return tmp_path


def test_a_missing_python_is_named_with_where_to_get_it(checkout):
    done = subprocess.run(["sh", "scripts/setup.sh"], cwd=checkout, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Python 3.99 not found (looked on the PATH" in line
    assert "pyenv install 3.99" in line
    assert not (checkout / ".venv").exists()


def test_a_package_that_cannot_be_installed_is_followed_by_what_it_may_lack(tmp_path):
    for name in ("scripts", "requirements"):
        shutil.copytree(_ROOT / name, tmp_path / name)
    (tmp_path / ".python-version").write_text("3.10\n")
    pinned = (_ROOT / "requirements" / "bootstrap.txt").read_text()
    version = next(line.removeprefix("uv==") for line in pinned.splitlines() if line.startswith("uv=="))
    # Stands in for the installer on a machine without a compiler.
    installer = tmp_path / ".cache" / "uv" / "bin" / "uv"
    installer.parent.mkdir(parents=True)
    installer.write_text(f'#!/bin/sh\ncase "$1 $2" in --version*) echo uv {version} ;; "pip sync") exit 1 ;; esac\n')
    installer.chmod(0o755)

    done = subprocess.run(["sh", "scripts/setup.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "apt-get install g++ python3.10-dev" in done.stderr
    assert not (tmp_path / ".venv" / ".ready").exists()


def test_clean_removes_what_make_run_wrote_and_no_folder_of_the_environment(tmp_path):
    done = subprocess.run(
        ["make", "--just-print", "clean"],
        cwd=_ROOT,
        env={"PATH": os.environ["PATH"], "WORK": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == 'rm -rf "work"\n'
