"""Data roots and descriptions for the tests of this folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dataset_folder import Folder

from components.dataset.description import DatasetDescription, parse

TWO_CLASSES = """\
name: tiny
classes:
  - {name: road, color: [128, 64, 128]}
  - {name: void, color: [0, 0, 0], indices: [1, 255]}
ignore: void
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "data"
    root.mkdir()
    return Folder(root)


@pytest.fixture
def tiny() -> DatasetDescription:
    """Two classes, index masks in `masks/`, images in `images/`, both below the split's folder."""
    layout = 'layout: {images: "{split}/images/{name}", masks: "{split}/masks/{name}.png"}\n'
    return parse(TWO_CLASSES + layout + "splits: {train: train, val: val}\n", "tiny.yaml")


@pytest.fixture
def tiny_color(tiny: DatasetDescription) -> DatasetDescription:
    return tiny.model_copy(update={"mask_encoding": "color"})


@pytest.fixture
def unsplit() -> DatasetDescription:
    """Two classes, no split folders, a fifth of the pairs held out for val."""
    layout = 'layout: {images: "images/{name}", masks: "masks/{name}.png"}\n'
    return parse(TWO_CLASSES + layout + "split_by_sequence: {val: 0.2}\n", "unsplit.yaml")


@pytest.fixture(scope="session")
def real_camvid() -> Path:
    default = Path(__file__).parents[3].parent / "shared" / "camvid"
    root = Path(os.environ.get("SEGPIPE_CAMVID", default))
    if not (root / "train").is_dir():
        pytest.skip(f"no CamVid at {root}; set SEGPIPE_CAMVID to a folder that holds train/ and trainannot/")
    return root
