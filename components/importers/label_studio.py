"""Label Studio's JSON export and the images it names.

Format: https://labelstud.io/guide/task_format and the tags BrushLabels, PolygonLabels and EllipseLabels there, as read
by label_studio_converter/converter.py and brush.py (version 0.0.59): coordinates are percent of the image's width and
height. Later regions lie above earlier ones. Of several annotations of a task, the last one that was not cancelled is
used.
"""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from components.annotations.entries import BadAnnotationError, annotated, validate
from components.annotations.regions import Region, Shape, Size, ellipse, label_studio_values, polygon
from components.errors import UsageError
from components.importers.source import Item, Source, collected, list_images, read_json

_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


class _Annotation(BaseModel):
    result: list[Any]
    was_cancelled: bool = False


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation]
    id: int | str = "?"
    file_upload: str | None = None


class _Value(BaseModel):
    points: list[tuple[float, float]] | None = None
    rle: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    x: float | None = None
    y: float | None = None
    radiusX: float | None = None
    radiusY: float | None = None
    rotation: float = 0
    polygonlabels: list[str] = []
    brushlabels: list[str] = []
    ellipselabels: list[str] = []
    labels: list[str] = []

    @property
    def all_labels(self) -> list[str]:
        """The labels of the region; empty if another result holds them."""
        return [*self.polygonlabels, *self.brushlabels, *self.ellipselabels, *self.labels]


class _Result(BaseModel):
    value: _Value
    type: str
    id: str = ""
    original_width: int = Field(gt=0)
    original_height: int = Field(gt=0)
    image_rotation: float = 0


def read(source: Path) -> Source:
    """Reads a JSON export, or a folder with one; sorts classes by name, because the export has no order."""
    path = source if source.is_file() else _export(source)
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "annotations" in task for task in tasks):
        raise UsageError(
            f"{path}: found no list of tasks with annotations; expected Label Studio's export 'JSON', not 'JSON-MIN'."
            " Export it again"
        )
    places: dict[str, list[str]] = defaultdict(list)
    for name in list_images(path.parent):
        places[name.rpartition("/")[2]].append(name)
    result = Source()
    names: set[str] = set()
    for number, raw in enumerate(tasks):
        with collected(result.problems):
            task = validate(_Task, raw, f"{path}: task {number}")
            _add_task(result, names, task, f"{path}: task {task.id}", path.parent, places)
    result.labels = dict.fromkeys(sorted(names))
    return result


def _export(folder: Path) -> Path:
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        raise UsageError(f"{folder}: found {len(found)} JSON files; expected one, Label Studio's export. Pass the file")
    return found[0]


def _add_task(
    result: Source, names: set[str], task: _Task, where: str, root: Path, places: Mapping[str, list[str]]
) -> None:
    kept = [annotation for annotation in task.annotations if not annotation.was_cancelled]
    result.lost["cancelled and earlier annotations of a task"] += len(task.annotations) - len(kept[-1:])
    if not kept:
        result.lost["tasks without an annotation"] += 1
        return
    found: list[_Result] = []
    for number, raw in enumerate(kept[-1].result):
        if not isinstance(raw, dict) or not isinstance(raw.get("value"), dict) or "original_width" not in raw:
            result.lost["choices, texts and relations"] += 1
        elif "keypointlabels" in raw["value"] or raw.get("type") in ("keypoint", "keypointlabels"):
            result.lost["key points"] += 1
        elif {"width", "height"} <= set(raw["value"]):
            result.lost["boxes without a shape"] += "labels" in raw["value"] or "rectanglelabels" in raw["value"]
        else:
            found.append(validate(_Result, raw, f"{where}: result {number}"))
    # With <Labels>, the export has a region twice: with its geometry, and with its label.
    regions = [region for region in found if region.value.all_labels]
    labelled = {region.id for region in regions}
    result.lost["regions without a label"] += sum(region.id not in labelled for region in found)
    result.lost["further labels of a region"] += sum(len(region.value.all_labels) - 1 for region in regions)
    name = _find(task, where, places)
    names |= {region.value.all_labels[0] for region in regions}
    size = (regions[0].original_height, regions[0].original_width) if regions else None
    result.items.append(Item(root / name, name, None, partial(_shapes, regions, where), size))


def _find(task: _Task, where: str, places: Mapping[str, list[str]]) -> str:
    """Returns the path of a task's image relative to the export's folder, found by its address or file name.

    Args:
        task: the task.
        where: the task's place in the export, for messages.
        places: the paths of all images, by file name.
    """
    addresses = [text for text in [task.file_upload, *task.data.values()] if isinstance(text, str)]
    for address in addresses:
        parsed = urllib.parse.urlparse(address)
        local = urllib.parse.parse_qs(parsed.query).get("d", [parsed.path])[0]
        wanted = urllib.parse.unquote(local).replace("\\", "/").strip("/")
        # Label Studio puts eight characters and a dash before the name of an uploaded file.
        plain = _UPLOAD_PREFIX.sub("", wanted.rpartition("/")[2], count=1)
        for ending in (wanted, wanted.rpartition("/")[2], plain):
            known = places.get(ending.rpartition("/")[2], [])
            named = [name for name in known if f"/{name}".endswith(f"/{ending}")]
            if len(named) > 1:
                raise BadAnnotationError(
                    f"{where}: found {len(named)} images called {ending}; expected one. Delete or rename the others"
                )
            if named:
                return named[0]
    raise BadAnnotationError(
        f"{where}: found no image for {', '.join(addresses) or 'it'}; expected a file of that name below the export's"
        " folder. Copy the images there"
    )


def _shapes(regions: list[_Result], where: str, size: Size, lost: Counter[str]) -> Iterator[Shape]:
    for region in regions:
        with annotated(f"{where}: {region.type}", "Draw the region again, or delete it"):
            pixels = _region(region, size)
        yield Shape(region.value.all_labels[0], pixels)


def _region(result: _Result, size: Size) -> Region:
    if (result.original_height, result.original_width) != size or result.image_rotation % 360:
        raise ValueError(
            f"found a region of an image of {result.original_width}x{result.original_height}, turned by"
            f" {result.image_rotation:g} degrees; expected {size[1]}x{size[0]}, not turned"
        )
    value, scale = result.value, np.array([size[1], size[0]]) / 100
    if value.rle is not None:
        pixels = label_studio_values(value.rle)
        if pixels.size != size[0] * size[1] * 4:
            raise ValueError(f"found a brush of {pixels.size} values; expected 4 a pixel, {size[0] * size[1] * 4}")
        return Region(pixels.reshape(*size, 4)[..., 3] > 0)
    if value.points is not None:
        return polygon(np.array(value.points) * scale, size)
    if None not in (value.x, value.y, value.radiusX, value.radiusY):
        x, y, across, down = np.array([value.x, value.y, value.radiusX, value.radiusY]) * np.tile(scale, 2)
        return ellipse((x, y), (across, down), value.rotation, size)
    raise ValueError("found neither points nor rle nor radii; expected a polygon, a brush or an ellipse")
