"""The set-up script's message where Python cannot be had."""

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
