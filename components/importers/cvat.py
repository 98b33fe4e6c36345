"""CVAT's own format, "CVAT for images 1.1": `annotations.xml` and the images.

Format: https://docs.cvat.ai/docs/contributing/advanced-topics/xml-annotation-format/ (version 1.1), written by
`dump_as_cvat_annotation` of cvat/apps/dataset_manager/formats/cvat.py (commit a01a8a8). Shapes with a higher z_order
lie above others, and later shapes above earlier ones. Boxes count as shapes, as in CVAT's own export of masks
(formats/mask.py, `boxes_to_masks`, commit 0097fd1). A mask is a run-length encoding along the rows of its box, outside
first (formats/transformations.py, `MaskConverter`, commit 03501dd).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field

from components.annotations.entries import BadAnnotationError, annotated, validate
from components.annotations.regions import Region, Shape, Size, ellipse, polygon, rectangle
from components.errors import UsageError
from components.importers.source import Item, Source, collected, first_file, inner_path, parse_color
from components.instances import decode_mask

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
    """Returns a validator that splits text at whitespace and at any of the separators."""
    spaces = str.maketrans(dict.fromkeys(separators, " "))
    return BeforeValidator(lambda text: text.translate(spaces).split())


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
    """Reads `annotations.xml`, or the folder that holds it."""
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
    labels = {
        name.strip(): parse_color(label.findtext("color", ""))
        for label in root.iterfind("./meta//labels/label")
        # CVAT lists parts of a skeleton as labels too.
        if (name := label.findtext("name")) and label.find("parent") is None
    }
    result = Source(labels)
    result.lost["tracks"] = len(root.findall("track"))
    for element in root.iterfind("image"):
        where = f"{path}: image {element.get('name', '?')}"
        with collected(result.problems):
            image = validate(_Image, dict(element.attrib), where)
            name = inner_path(image.name, where)
            images = path.parent / "images"
            place = first_file(images / (image.subset or "") / name, images / name, path.parent / name)
            shapes = partial(_shapes, element, set(labels), where)
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
        with annotated(place, "Draw the shape again, or delete it"):
            found.append((shape.z_order, Shape(shape.label, _region(shape, size))))
    return [shape for _, shape in sorted(found, key=lambda entry: entry[0])]


def _region(shape: _Shape, size: Size) -> Region:
    if isinstance(shape, _Box):
        return rectangle(shape.xtl, shape.ytl, shape.xbr, shape.ybr, shape.rotation, size)
    if isinstance(shape, _Ellipse):
        return ellipse((shape.cx, shape.cy), (shape.rx, shape.ry), shape.rotation, size)
    if isinstance(shape, _Mask):
        mask = decode_mask(shape.rle, shape.height, shape.width, by_columns=False)
        return Region(mask, shape.top, shape.left)
    assert isinstance(shape, _Polygon)
    return polygon(np.array(shape.points), size)
