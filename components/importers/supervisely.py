"""Supervisely's projects: `meta.json`, and one JSON file per image in the folder `ann` of each data set.

Format: supervisely/project/project.py and supervisely/geometry/ of github.com/supervisely/supervisely, version 6.9.2.
Coordinates are rounded down to indices of pixels, and a shape includes its border (`cv2.fillPoly`, `cv2.rectangle`).
Later objects lie above earlier ones; rectangles count as shapes.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from components.annotations.entries import BadAnnotationError, annotated, validate
from components.annotations.regions import Region, Shape, Size, decode_bitmap
from components.importers.source import Item, Source, collected, parse_color, read_json

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
    """Reads a project's folder; data sets called train, val and test are the splits."""
    meta = validate(_Meta, read_json(source / "meta.json"), source / "meta.json")
    result = Source({entry.title: parse_color(entry.color) for entry in meta.classes})
    names = set(result.labels)
    for path in sorted(source.rglob("ann/*.json")):
        with collected(result.problems):
            annotation = validate(_Annotation, read_json(path), path)
            result.lost["tags of images"] += len(annotation.tags)
            result.items.append(_item(source, path, annotation, names))
    return result


def _item(source: Path, path: Path, annotation: _Annotation, names: set[str]) -> Item:
    folder = path.parent.parent
    # Nested data sets lie in folders called `datasets`.
    parts = [part for part in folder.relative_to(source).parts if part != "datasets"]
    return Item(
        image=folder / "img" / path.stem,
        name="/".join([*parts, path.stem]),
        split=parts[0] if parts else None,
        read=partial(_shapes, path, annotation.objects, names),
        size=(annotation.size.height, annotation.size.width),
    )


def _shapes(path: Path, raw: list[Any], names: set[str], size: Size, lost: Counter[str]) -> Iterator[Shape]:
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
        with annotated(f"{where}: {found.geometryType}", "Export the project again"):
            region = _region(found, size)
        yield Shape(found.classTitle, region)


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
    """Decodes a PNG, which zlib may have compressed, to bool [h, w]: its alpha channel, or else its grey values.

    As `Bitmap.base64_2_data` of supervisely/geometry/bitmap.py, version 6.9.2.
    """
    content = base64.b64decode(data)
    try:
        content = zlib.decompress(content)
    except zlib.error:
        # In an uncompressed PNG, a pixel counts if any channel is not 0.
        values = np.asarray(decode_bitmap(content))
        return values.any(axis=-1) if values.ndim == 3 else values > 0
    image = decode_bitmap(content)
    alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
    return np.asarray(image.convert("RGBA"))[..., 3] > 0 if alpha else np.asarray(image.convert("L")) > 0
