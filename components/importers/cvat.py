"""CVAT's own format, "CVAT for images 1.1": `annotations.xml` and the images.

Format: https://docs.cvat.ai/docs/contributing/advanced-topics/xml-annotation-format/ (version 1.1), written by
`dump_as_cvat_annotation` of cvat/apps/dataset_manager/formats/cvat.py (commit a01a8a8). Shapes with a higher z_order
lie above, then later ones. Boxes count as shapes, as in CVAT's own export of masks (formats/mask.py, `boxes_to_masks`,
commit 0097fd1). A mask is a run-length encoding along the rows of its box, outside first (formats/transformations.py,
`MaskConverter`, commit 03501dd).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field

from components.errors import UsageError
from components.importers.regions import ellipse, from_runs, polygon, rectangle
from components.importers.source import (
    BadAnnotationError,
    Item,
    Label,
    Region,
    Shape,
    Size,
    Source,
    inner_path,
    parse_color,
    validate,
)

_LOST = {"polyline": "points and lines", "points": "points and lines", "cuboid": "cuboids", "skeleton": "skeletons"}


class _Image(BaseModel):
    name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    subset: str | None = None


class _Shape(BaseModel):
    label: str
    z_order: int = 0


class _Box(_Shape):
    xtl: float
    ytl: float
    xbr: float
    ybr: float
    rotation: float = 0


class _Ellipse(_Shape):
    cx: float
    cy: float
    rx: float
    ry: float
    rotation: float = 0


def _numbers(separators: str) -> BeforeValidator:
    """Returns a validator that splits text at blanks and at any of the separators."""

    def divide(text: Any) -> Any:
        for separator in separators:
            text = text.replace(separator, " ")
        return text.split()

    return BeforeValidator(divide)


class _Polygon(_Shape):
    points: Annotated[list[float], _numbers(",;")]


class _Mask(_Shape):
    rle: Annotated[list[int], _numbers(",")]
    left: int
    top: int
    width: int = Field(gt=0)
    height: int = Field(gt=0)


_MODELS: dict[str, type[_Shape]] = {"box": _Box, "ellipse": _Ellipse, "polygon": _Polygon, "mask": _Mask}


def read(source: Path) -> Source:
    """Read `annotations.xml`, or the folder that holds it."""
    path = source if source.is_file() else source / "annotations.xml"
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; expected CVAT's export, unpacked. Pass its folder") from None
    except (OSError, ET.ParseError) as error:
        raise UsageError(
            f"{path}: found {error}; expected XML in CVAT's format for images 1.1. Export it again"
        ) from None
    if root.tag != "annotations" or (root.find("image") is None and root.find("track") is not None):
        what = "tracks of a video" if root.tag == "annotations" else f"the element {root.tag}"
        raise UsageError(f"{path}: found {what}; expected images. Export the task as 'CVAT for images 1.1'")
    # The parent element is `task`, `project` or `job`.
    labels = [
        Label(name.strip(), parse_color(label.findtext("color", "")))
        for label in root.iterfind("./meta//labels/label")
        # Parts of a skeleton are labels too.
        if (name := label.findtext("name")) and label.find("parent") is None
    ]
    result = Source(labels, [])
    result.lost["tracks"] = len(root.findall("track"))
    for element in root.iterfind("image"):
        where = f"{path}: image {element.get('name', '?')}"
        try:
            image = validate(_Image, dict(element.attrib), where)
            name = inner_path(image.name, where)
        except BadAnnotationError as error:
            result.problems.append(str(error))
            continue
        folders = [path.parent / "images" / (image.subset or ""), path.parent / "images", path.parent]
        place = next((folder / name for folder in folders if (folder / name).is_file()), folders[1] / name)
        shapes = partial(_shapes, element, {label.name for label in labels}, where)
        result.items.append(Item(place, name, image.subset, shapes, (image.height, image.width)))
    return result


def _shapes(element: ET.Element, names: set[str], where: str, size: Size, lost: Counter[str]) -> list[Shape]:
    found: list[tuple[int, Shape]] = []
    for number, child in enumerate(element):
        place = f"{where}: {child.tag} {number}"
        if child.tag == "tag":
            lost["tags of images"] += 1
            continue
        lost["attributes"] += len(child.findall("attribute"))
        model = _MODELS.get(child.tag)
        if model is None:
            lost[_LOST.get(child.tag, "unknown elements")] += 1
            continue
        shape = validate(model, dict(child.attrib), place)
        if shape.label not in names:
            raise BadAnnotationError(
                f"{place}: found the label {shape.label!r}; expected one of {', '.join(sorted(names))}. Correct it"
            )
        try:
            found.append((shape.z_order, Shape(shape.label, _region(shape, size))))
        except ValueError as error:
            raise BadAnnotationError(f"{place}: {error}. Draw the shape again, or delete it") from None
    return [shape for _, shape in sorted(found, key=lambda entry: entry[0])]


def _region(shape: _Shape, size: Size) -> Region:
    if isinstance(shape, _Box):
        return rectangle(shape.xtl, shape.ytl, shape.xbr, shape.ybr, shape.rotation, size)
    if isinstance(shape, _Ellipse):
        return ellipse((shape.cx, shape.cy), (shape.rx, shape.ry), shape.rotation, size)
    if isinstance(shape, _Mask):
        return Region(from_runs(shape.rle, (shape.height, shape.width)).mask, shape.top, shape.left)
    assert isinstance(shape, _Polygon)
    return polygon(np.array(shape.points), size)
