"""Supervisely's projects: `meta.json`, and one JSON file per image in the folder `ann` of each data set.

Format: supervisely/project/project.py and supervisely/geometry/ of github.com/supervisely/supervisely, version 6.9.2.
Coordinates, rounded down, are indices of pixels, and the border belongs to a shape (`cv2.fillPoly`, `cv2.rectangle`).
Later objects lie above earlier ones; rectangles count as shapes, as there.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from components.errors import UsageError
from components.importers.source import (
    BadAnnotationError,
    Item,
    Label,
    Region,
    Shape,
    Size,
    Source,
    parse_color,
    read_json,
    validate,
)

_DRAWN = ("polygon", "rectangle", "bitmap")


class _Class(BaseModel):
    title: str
    color: str = ""


class _Meta(BaseModel):
    classes: list[_Class]


class _Points(BaseModel):
    exterior: list[tuple[float, float]]
    interior: list[list[tuple[float, float]]] = []


class _Bitmap(BaseModel):
    data: str
    origin: tuple[int, int]


class _Object(BaseModel):
    classTitle: str
    geometryType: str
    points: _Points | None = None
    bitmap: _Bitmap | None = None
    tags: list[Any] = []


class _Size(BaseModel):
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class _Annotation(BaseModel):
    size: _Size
    objects: list[Any]
    tags: list[Any] = []


def read(source: Path) -> Source:
    """Read a project's folder; data sets called train, val and test are the splits."""
    try:
        meta = validate(_Meta, read_json(source / "meta.json"), source / "meta.json")
    except BadAnnotationError as error:
        raise UsageError(str(error)) from None
    result = Source([Label(entry.title, parse_color(entry.color)) for entry in meta.classes], [])
    names = {entry.title for entry in meta.classes}
    for path in sorted(source.rglob("ann/*.json")):
        try:
            annotation = validate(_Annotation, read_json(path), path)
        except BadAnnotationError as error:
            result.problems.append(str(error))
            continue
        result.lost["tags of images"] += len(annotation.tags)
        folder = path.parent.parent
        # Data sets within data sets lie in folders called `datasets`.
        parts = [part for part in folder.relative_to(source).parts if part != "datasets"]
        size = (annotation.size.height, annotation.size.width)
        image = folder / "img" / path.stem
        split = parts[0] if parts else None
        result.items.append(
            Item(image, "/".join([*parts, path.stem]), split, partial(_shapes, path, annotation.objects, names), size)
        )
    return result


def _shapes(path: Path, raw: list[Any], names: set[str], size: Size, lost: Counter[str]) -> list[Shape]:
    shapes = []
    for number, value in enumerate(raw):
        where = f"{path}: objects.{number}"
        found = validate(_Object, value, where)
        lost["tags of objects"] += len(found.tags)
        if found.geometryType not in _DRAWN:
            lost[f"shapes of the type {found.geometryType}"] += 1
            continue
        if found.classTitle not in names:
            raise BadAnnotationError(
                f"{where}: classTitle: found {found.classTitle!r}; expected a class of meta.json. Add it there"
            )
        try:
            shapes.append(Shape(found.classTitle, _region(found, size)))
        except (ValueError, OSError, zlib.error, binascii.Error) as error:
            raise BadAnnotationError(f"{where}: {found.geometryType}: {error}. Export the project again") from None
    return shapes


def _region(found: _Object, size: Size) -> Region:
    if found.geometryType == "bitmap":
        if found.bitmap is None:
            raise ValueError("bitmap: missing; expected data and origin")
        return Region(_decode(found.bitmap.data), found.bitmap.origin[1], found.bitmap.origin[0])
    corners = found.points.exterior if found.points else []
    needed = 2 if found.geometryType == "rectangle" else 3
    if len(corners) < needed:
        raise ValueError(f"points.exterior: found {len(corners)} points; expected at least {needed}")
    assert found.points is not None
    canvas = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    if found.geometryType == "rectangle":
        (x0, y0), (x1, y1) = corners[:2]
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=1)
    else:
        for ring, value in [(corners, 1), *((hole, 0) for hole in found.points.interior)]:
            draw.polygon([(math.floor(x), math.floor(y)) for x, y in ring], fill=value, outline=value)
    return Region(np.asarray(canvas) > 0)


def _decode(data: str) -> np.ndarray:
    """Returns a bitmap, bool [h, w], of a PNG, compressed by zlib or not; its alpha channel is used if it has one.

    As `Bitmap.base64_2_data` of supervisely/geometry/bitmap.py, version 6.9.2.
    """
    content = base64.b64decode(data)
    try:
        content = zlib.decompress(content)
    except zlib.error:
        # In an uncompressed PNG, a pixel counts if any channel is not 0.
        with Image.open(io.BytesIO(content)) as image:
            values = np.asarray(image)
        return values.any(axis=-1) if values.ndim == 3 else values > 0
    with Image.open(io.BytesIO(content)) as image:
        alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
        return np.asarray(image.convert("RGBA"))[..., 3] > 0 if alpha else np.asarray(image.convert("L")) > 0
