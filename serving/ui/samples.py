"""The sample images of the page: the images of one folder, by file name."""

from __future__ import annotations

from pathlib import Path

from components.errors import UsageError

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_MAX_SAMPLES = 60


class Samples:
    """Images of a folder. Only files that the folder lists are opened."""

    def __init__(self, folder: str | None) -> None:
        """Takes a folder, or None for no samples. Raises UsageError if it does not exist."""
        if folder is not None and not Path(folder).is_dir():
            raise UsageError(
                f"--ui_samples {folder}: found no folder, expected one with .png, .jpg or .jpeg files. Check the path"
            )
        self._folder = folder

    def names(self) -> list[str]:
        """Returns the first file names in order, listed anew."""
        if self._folder is None:
            return []
        found = (path.name for path in Path(self._folder).iterdir() if path.suffix.lower() in _SUFFIXES)
        return sorted(found)[:_MAX_SAMPLES]

    def path(self, name: str) -> Path | None:
        """Returns the path of a sample, None if there is no such sample."""
        return Path(str(self._folder), name) if name in self.names() else None
