"""COCO's instance annotations: one JSON file per split, polygons and run-length encodings.

Format: https://cocodataset.org/#format-data, as read by PythonAPI/pycocotools/coco.py of
github.com/cocodataset/cocoapi, commit 8c9bcc3. Annotations have no order, so in a mask smaller ones lie above larger
ones. A crowd keeps its class.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from components.errors import UsageError
from components.importers.regions import coco_runs, full_mask, polygon
from components.importers.source import (
    BadAnnotationError,
    Item,
    Region,
    Shape,
    Size,
    Source,
    annotated,
    collected,
    first_file,
    inner_path,
    parse_json,
    read_json,
    validate,
)
from components.instances import Instances, decode_mask, encode_runs


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
    iscrowd: int = 0
    keypoints: list[float] | None = None
    attributes: dict[str, Any] | None = None


class _File(BaseModel):
    images: list[Any]
    annotations: list[Any]
    categories: list[_Category] = Field(min_length=1)


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The annotations of one file.

    Attributes:
        where: the file, for messages.
        names: names of the categories by id.
        images: size and annotations of each image, by `file_name`.
    """

    where: str
    names: dict[int, str]
    images: dict[str, tuple[Size, list[Any]]]

    def of(self, path: str) -> tuple[Size, list[Any]]:
        """Returns size and annotations of the image whose `file_name` the path ends in. Raises BadAnnotationError."""
        parts = path.split("/")
        for start in range(len(parts)):
            if (found := self.images.get("/".join(parts[start:]))) is not None:
                return found
        raise BadAnnotationError(
            f"{self.where}: found {len(self.images)} images without {parts[-1]}; expected it as the file_name of one."
            " Add it to `images`, or delete the image"
        )

    def shapes(self, path: str, size: Size) -> list[Shape]:
        """Returns the shapes of the image that `of` finds. Raises BadAnnotationError."""
        return list(_shapes(self.of(path)[1], self.names, f"{self.where}: image {path}", size, Counter()))


def encode(name: str, size: Size, instances: Instances, names: Sequence[str]) -> bytes:
    """Returns the JSON of one image's instances, as `parse` reads it.

    Args:
        name: the image's file name.
        size: its height and width.
        instances: their classes are indices of `names`.
        names: class names, written as the categories.
    """
    num_runs, runs = encode_runs(instances.masks)
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": int(index),
            "segmentation": {"size": size, "counts": counts.tolist()},
            "iscrowd": int(crowd),
        }
        for number, (index, crowd, counts) in enumerate(
            zip(instances.classes, instances.crowd, np.split(runs, np.cumsum(num_runs))[:-1], strict=True), start=1
        )
    ]
    image = {"id": 1, "file_name": name, "height": size[0], "width": size[1]}
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return json.dumps({"images": [image], "annotations": annotations, "categories": categories}).encode()


def parse(data: bytes, where: str) -> Annotations:
    """Reads the annotations in the bytes of a JSON file. Raises BadAnnotationError."""
    file = validate(_File, parse_json(data, where), where)
    by_image = _by_image(file)
    images = [validate(_Image, raw, f"{where}: images") for raw in file.images]
    return Annotations(
        where,
        {category.id: category.name for category in file.categories},
        {image.file_name: ((image.height, image.width), by_image[image.id]) for image in images},
    )


def read(source: Path) -> Source:
    """Reads one JSON file, or a folder with `annotations/instances_{split}.json` or JSON files beside the images."""
    paths = [source] if source.is_file() else _annotation_files(source)
    problems: list[str] = []
    parsed: list[tuple[Path, _File]] = []
    for path in paths:
        with collected(problems):
            parsed.append((path, validate(_File, read_json(path), path)))
    names: dict[int, str] = {}
    for path, file in parsed:
        for category in file.categories:
            if names.setdefault(category.id, category.name) != category.name:
                raise UsageError(
                    f"{path}: categories: id {category.id} is {category.name!r} here and {names[category.id]!r} in"
                    " another file; expected the same categories in all files. Import them one at a time"
                )
    labels = dict.fromkeys(names[key] for key in sorted(names))
    result = Source(labels, smaller_above=True, has_instances=True, problems=problems)
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


def _by_image(file: _File) -> dict[Any, list[Any]]:
    """Returns a file's annotations by image id; None is the key of those without a valid id."""
    annotations: dict[Any, list[Any]] = defaultdict(list)
    for annotation in file.annotations:
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        annotations[key if isinstance(key, int | str) else None].append(annotation)
    return annotations


def _add_images(result: Source, path: Path, file: _File, names: dict[int, str]) -> None:
    annotations = _by_image(file)
    ids = set()
    for raw in file.images:
        with collected(result.problems):
            image = validate(_Image, raw, f"{path}: images")
            name = inner_path(image.file_name, f"{path}: images: id {image.id}")
            ids.add(image.id)
            read_shapes = partial(_shapes, annotations[image.id], names, f"{path}: image {image.file_name}")
            item = Item(_find_image(path, name), name, _split(path), read_shapes, (image.height, image.width))
            result.items.append(item)
    result.lost["annotations of no image"] += sum(len(found) for key, found in annotations.items() if key not in ids)


def _find_image(path: Path, name: str) -> Path:
    """Returns the path of an image: in COCO's folders of splits, or beside the annotation file."""
    split = _split(path)
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    folders = [root / split, root / "images" / split, root / "images", path.parent, root]
    year = re.sub(r"\d{4}$", "", split)
    folders += [root / year, root / "images" / year]
    return first_file(*(folder / name for folder in folders))


def _shapes(raw: list[Any], names: dict[int, str], where: str, size: Size, lost: Counter[str]) -> Iterator[Shape]:
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
        with annotated(f"{place}: segmentation", "Correct or delete the annotation"):
            region = _region(annotation.segmentation, size)
        yield Shape(names[annotation.category_id], region, bool(annotation.iscrowd))


def _region(segmentation: list[list[float]] | _Runs, size: Size) -> Region:
    if isinstance(segmentation, list):
        parts = [polygon(part, size) for part in segmentation]
        return parts[0] if len(parts) == 1 else Region(full_mask(size, *parts))
    if segmentation.size != size:
        raise ValueError(f"size: found {list(segmentation.size)}; expected {list(size)}, the image's height and width")
    counts = segmentation.counts
    return Region(decode_mask(coco_runs(counts) if isinstance(counts, str) else counts, *size))
