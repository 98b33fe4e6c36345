"""labelme's JSON files, one an image, in one folder or in several.

Format: labelme/_label_file.py and labelme/_utils/shape.py of github.com/wkentaro/labelme, version 7.1.0. Later shapes
lie above earlier ones, as in `shapes_to_label`, and rectangles count as shapes. Only the area inside a shape is drawn
here; `shape_to_mask` adds the border's pixels, so its objects are half a pixel larger.
"""

from __future__ import annotations

import base64
import math
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from components import files
from components.annotations.entries import annotated, validate
from components.annotations.regions import Region, Shape, Size, decode_bitmap, ellipse, polygon, rectangle
from components.errors import UsageError
from components.importers.source import (
    IMAGE_SUFFIXES,
    VOID,
    Item,
    Source,
    collected,
    first_file,
    read_json,
    read_lines,
    voc_color,
)

IGNORED = "__ignore__"


class _Shape(BaseModel):
    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = "polygon"
    mask: str | None = None
    flags: dict[str, bool] | None = None


class _File(BaseModel):
    shapes: list[Any]
    imagePath: str
    imageHeight: int | None = Field(None, gt=0)
    imageWidth: int | None = Field(None, gt=0)
    flags: dict[str, bool] | None = None


def read(source: Path) -> Source:
    """Reads every JSON file below a folder; classes are in the order of `labels.txt`, then in alphabetical order."""
    if not source.is_dir():
        raise UsageError(f"{source}: not a folder; expected one with labelme's JSON files beside their images")
    result = Source()
    names: set[str] = set()
    for path in files.list_files(str(source)):
        if not path.endswith(".json"):
            continue
        place = source / path
        with collected(result.problems):
            content = read_json(place)
            if not isinstance(content, dict) or "shapes" not in content:
                result.lost["JSON files that are not labelme's"] += 1
                continue
            file = validate(_File, content, place)
            found = [shape.get("label") for shape in file.shapes if isinstance(shape, dict)]
            names |= {label for label in found if isinstance(label, str)}
            result.items.append(_item(place, path, file))
            result.lost["flags of images"] += sum((file.flags or {}).values())
    ordered = [*read_lines(source / "labels.txt"), *sorted(names)]
    result.labels = dict.fromkeys(name for name in ordered if name != IGNORED)
    if IGNORED in names:
        result.labels[VOID] = voc_color(255)
        result.ignore = VOID
    return result


def _item(place: Path, path: str, file: _File) -> Item:
    size = (file.imageHeight, file.imageWidth) if file.imageHeight and file.imageWidth else None
    # Windows writes backslashes.
    image = Path(os.path.normpath(place.parent / file.imagePath.replace("\\", "/")))
    image = first_file(image, *(place.with_suffix(suffix) for suffix in IMAGE_SUFFIXES))
    name = str(Path(path).with_suffix(image.suffix))
    return Item(image, name, None, partial(_shapes, place, file.shapes), size)


def _shapes(path: Path, raw: list[Any], size: Size, lost: Counter[str]) -> Iterator[Shape]:
    for number, value in enumerate(raw):
        where = f"{path}: shapes.{number}"
        shape = validate(_Shape, value, where)
        lost["flags of shapes"] += sum((shape.flags or {}).values())
        kind = shape.shape_type or "polygon"
        if kind in ("point", "points", "line", "linestrip"):
            lost["points and lines"] += 1
            continue
        with annotated(where, "Draw the shape again, or delete it"):
            region = _region(kind, shape, size)
        yield Shape(VOID if shape.label == IGNORED else shape.label, region)


def _region(kind: str, shape: _Shape, size: Size) -> Region:
    points = shape.points
    needed = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}.get(kind)
    if needed is not None and len(points) != needed:
        raise ValueError(f"points: found {len(points)}; expected {needed} for the shape_type {kind}")
    if kind == "mask":
        return _bitmap(shape)
    if kind == "rectangle":
        return rectangle(*points[0], *points[1], 0, size)
    if kind == "circle":
        radius = math.dist(*points)
        return ellipse(points[0], (radius, radius), 0, size)
    if kind in ("polygon", "oriented_rectangle"):
        return polygon(np.array(points), size)
    raise ValueError(f"shape_type: found {kind!r}; expected polygon, rectangle, oriented_rectangle, circle or mask")


def _bitmap(shape: _Shape) -> Region:
    """Returns the pixels of a PNG in base64, whose top left corner is the shape's first point."""
    if not shape.mask:
        raise ValueError("mask: missing; expected a PNG in base64")
    mask = np.asarray(decode_bitmap(base64.b64decode(shape.mask)).convert("L")) > 0
    (x0, y0), _ = shape.points
    return Region(mask, round(y0), round(x0))
