"""A model of small files, and what of it a folder holds."""

from __future__ import annotations

import pathlib

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/segpipe.json": b"{}", "empty": b""}


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns each file's bytes by its path below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
