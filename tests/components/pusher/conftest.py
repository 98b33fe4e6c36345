"""Fixtures of the push tests: a model, and a folder in place of a bucket."""

from __future__ import annotations

import pathlib

import pytest
from saved_files import FILES


@pytest.fixture
def model(tmp_path) -> str:
    """The folder of a model of small files."""
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(tmp_path / "model")


@pytest.fixture
def bucket(tmp_path) -> pathlib.Path:
    """A folder that segpipe reads and writes as an object store, by the scheme file://."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"
