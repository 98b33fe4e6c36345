"""Reads data sets in the formats of annotation tools and writes folders that `segpipe run` accepts.

Datumaro reads most of these formats, but its release 1.13 needs pandas 2.3, NumPy 2.2 and pyarrow 25, which TFX rules
out on both stacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UsageError
from components.importers import coco, cvat, label_studio, labelme, supervisely, voc, yolo
from components.importers.writer import Imported, Options, write

READERS = {
    "coco": coco.read,
    "voc": voc.read,
    "yolo": yolo.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "label-studio": label_studio.read,
    "supervisely": supervisely.read,
}

if TYPE_CHECKING:
    from components.dataset.inspection import OnProgress

__all__ = ["READERS", "Imported", "Options", "import_dataset"]


def import_dataset(
    format_name: str,
    source: str,
    destination: str,
    options: Options | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Imported:
    """Imports a data set; the source stays unchanged, and broken entries are left out and listed in the result.

    Args:
        format_name: one of `READERS`.
        source: folder or annotation file.
        destination: folder to write; it must be new or empty and lie outside the source.
        options: what to keep and how to split it; None for the defaults.
        on_progress: called with the number of images done and the total.

    Raises:
        UsageError: an argument is wrong, or the source has nothing to import.
    """
    if format_name not in READERS:
        raise UsageError(f"--format: found {format_name!r}; expected one of {', '.join(READERS)}")
    origin, target = Path(source), Path(destination)
    if not origin.exists():
        raise UsageError(f"{source}: no such file or folder; expected a data set in the format {format_name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{destination}: found files; expected a new or empty folder. Delete it or name another one")
    if origin.is_dir() and target.resolve().is_relative_to(origin.resolve()):
        raise UsageError(f"{destination}: lies inside {source}; expected a folder outside it. Name another one")
    return write(READERS[format_name](origin), target, options or Options(), on_progress)
