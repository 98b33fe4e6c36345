"""COCO's instance annotations: one JSON file per split, polygons and run-length encodings.

Format: https://cocodataset.org/#format-data, as PythonAPI/pycocotools/coco.py of github.com/cocodataset/cocoapi, commit
8c9bcc3, reads it. Annotations have no order, so smaller ones lie above larger ones. A crowd counts as its class.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from components.errors import UsageError
from components.importers.regions import coco_runs, from_runs, polygon, union
from components.importers.source import (
    BadAnnotationError,
    Item,
    Label,
    Region,
    Shape,
    Size,
    Source,
    inner_path,
    is_background,
    read_json,
    validate,
)


class _Category(BaseModel):
    id: int
    name: str


class _Image(BaseModel):
    id: int | str
    file_name: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class _Runs(BaseModel):
    size: tuple[int, int]
    counts: list[int] | str


class _Annotation(BaseModel):
    category_id: int
    segmentation: list[list[float]] | _Runs | None = None
    keypoints: list[float] | None = None
    attributes: dict[str, Any] | None = None


class _File(BaseModel):
    images: list[Any]
    annotations: list[Any]
    categories: list[_Category] = Field(min_length=1)


def read(source: Path) -> Source:
    """Read one JSON file, or a folder with `annotations/instances_{split}.json` or JSON files beside the images."""
    paths = [source] if source.is_file() else _annotation_files(source)
    problems: list[str] = []
    parsed: list[tuple[Path, _File]] = []
    for path in paths:
        try:
            parsed.append((path, validate(_File, read_json(path), path)))
        except BadAnnotationError as error:
            problems.append(str(error))
    names: dict[int, str] = {}
    for path, file in parsed:
        for category in file.categories:
            if names.setdefault(category.id, category.name) != category.name:
                raise UsageError(
                    f"{path}: categories: id {category.id} is {category.name!r} here and {names[category.id]!r} in"
                    " another file; expected the same categories in all. Import the files one at a time"
                )
    labels = [Label(names[key]) for key in sorted(names) if not is_background(names[key])]
    result = Source(labels, [], smaller_above=True, problems=problems)
    for path, file in parsed:
        _add_images(result, path, file, names)
    return result


def _annotation_files(source: Path) -> list[Path]:
    """Returns the instance files of a folder, or all its JSON files if none has such a name."""
    found = sorted(source.glob("annotations/instances_*.json"))
    # Roboflow writes one `_annotations.coco.json` beside the images of each split.
    found = found or sorted({*source.glob("annotations/*.json"), *source.glob("*.json"), *source.glob("*/*.coco.json")})
    if not found:
        raise UsageError(
            f"{source}: no COCO annotations; expected annotations/instances_SPLIT.json, or JSON files beside the"
            " images. Pass the folder that holds them, or one JSON file"
        )
    return found


def _split(path: Path) -> str:
    if path.name.endswith(".coco.json"):
        return path.parent.name
    return path.stem.removeprefix("instances_")


def _add_images(result: Source, path: Path, file: _File, names: dict[int, str]) -> None:
    annotations: dict[Any, list[Any]] = defaultdict(list)
    ids = set()
    for annotation in file.annotations:
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        annotations[key if isinstance(key, int | str) else None].append(annotation)
    for raw in file.images:
        try:
            image = validate(_Image, raw, f"{path}: images")
            name = inner_path(image.file_name, f"{path}: images: id {image.id}")
        except BadAnnotationError as error:
            result.problems.append(str(error))
            continue
        ids.add(image.id)
        read_shapes = partial(_shapes, annotations[image.id], names, f"{path}: image {image.file_name}")
        place = _find(path, name)
        result.items.append(Item(place, name, _split(path), read_shapes, (image.height, image.width)))
    result.lost["annotations of no image"] += sum(len(found) for key, found in annotations.items() if key not in ids)


def _find(path: Path, name: str) -> Path:
    """Returns the path of an image: in COCO's folders, named by split, or beside the annotation file."""
    split = _split(path)
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    folders = [root / split, root / "images" / split, root / "images", path.parent, root]
    year = re.sub(r"\d{4}$", "", split)
    folders += [root / year, root / "images" / year]
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def _shapes(raw: list[Any], names: dict[int, str], where: str, size: Size, lost: Counter[str]) -> list[Shape]:
    shapes = []
    for value in raw:
        place = f"{where}: annotation {value.get('id', '?')}"
        annotation = validate(_Annotation, value, place)
        lost["key points"] += 1 if annotation.keypoints else 0
        lost["attributes"] += len(annotation.attributes or {})
        if annotation.category_id not in names:
            raise BadAnnotationError(
                f"{place}: found category_id {annotation.category_id}; expected one of the ids in categories, such as"
                f" {min(names)}. Add the category, or delete the annotation"
            )
        if not annotation.segmentation:
            lost["boxes without a shape"] += 1
            continue
        try:
            shapes.append(Shape(names[annotation.category_id], _region(annotation.segmentation, size)))
        except ValueError as error:
            raise BadAnnotationError(f"{place}: segmentation: {error}. Correct or delete the annotation") from None
    return shapes


def _region(segmentation: list[list[float]] | _Runs, size: Size) -> Region:
    if isinstance(segmentation, list):
        return union([polygon(part, size) for part in segmentation], size)
    if segmentation.size != size:
        raise ValueError(f"size: found {list(segmentation.size)}; expected {list(size)}, the image's height and width")
    counts = segmentation.counts
    return from_runs(coco_runs(counts) if isinstance(counts, str) else counts, size, by_columns=True)
