"""The frames that the page offers beside an upload: the images of one folder, by file name."""

from __future__ import annotations

from pathlib import Path

from components.errors import UsageError

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_MOST = 60


class Samples:
    """Images of a folder; only names that the folder lists are ever opened."""

    def __init__(self, folder: str | None) -> None:
        """Takes a folder, or None for no samples. Raises UsageError where it is not there."""
        if folder is not None and not Path(folder).is_dir():
            raise UsageError(
                f"--ui_samples {folder}: found no folder, expected one with .png, .jpg or .jpeg files. Check the path"
            )
        self._folder = folder

    def names(self) -> list[str]:
        """Returns the first file names in order, as the folder is now."""
        if self._folder is None:
            return []
        found = (path.name for path in Path(self._folder).iterdir() if path.suffix.lower() in _SUFFIXES)
        return sorted(found)[:_MOST]

    def path(self, name: str) -> Path | None:
        """Returns where a sample is, None where there is none of that name."""
        return Path(str(self._folder), name) if name in self.names() else None
