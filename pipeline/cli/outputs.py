"""Checks that a command can write its output, before it starts to work."""

from __future__ import annotations

import os

from components import files
from components.errors import UsageError


def prepare_folder(option: str, path: str) -> None:
    """Makes a folder to write into. Raises UsageError with the option's name."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{option}: found {path} ({str(error.strerror).lower()}), expected a folder that exists or can be made; "
            "name another"
        ) from None
    _check_writable(option, path, os.W_OK | os.X_OK)


def prepare_file(option: str, path: str) -> None:
    """Makes the folder of a local file to write. Raises UsageError with the option's name if that is not possible."""
    if files.is_remote(path):
        raise UsageError(f"{option}: found {path}, expected a local file; copy it there afterwards")
    if os.path.isdir(path):
        raise UsageError(f"{option}: found the folder {path}, expected the name of a file in it")
    if os.path.exists(path):
        _check_writable(option, path, os.W_OK)
        return
    prepare_folder(option, os.path.dirname(os.path.abspath(path)))


def _check_writable(option: str, path: str, mode: int) -> None:
    if not os.access(path, mode):
        raise UsageError(f"{option}: found {path}, which cannot be written; name another")
