"""What tests of several folders share: data sets, real and synthetic."""

import os
from pathlib import Path

import pytest

from components.dataset import synthetic

_ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def camvid() -> str:
    """The folder of real CamVid; tests that need it are skipped where it is not to be had."""
    folder = Path(os.environ.get("SEGPIPE_CAMVID", _ROOT / ".." / "shared" / "camvid")).resolve()
    if not (folder / "train").is_dir():
        pytest.skip(f"real CamVid is not at {folder}; set SEGPIPE_CAMVID to its folder")
    return str(folder)


@pytest.fixture
def street_scenes(tmp_path) -> str:
    """A small synthetic data set of its own for each test: 12 training and 4 validation pairs, 48x64."""
    folder = str(tmp_path / "street_scenes")
    synthetic.make(folder, pairs={"train": 12, "val": 4}, size=(48, 64))
    return folder
