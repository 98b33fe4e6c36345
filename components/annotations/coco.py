"""COCO's JSON of instances: polygons and run-length encodings, by image.

Format: https://cocodataset.org/#format-data, as read by PythonAPI/pycocotools/coco.py of
github.com/cocodataset/cocoapi, commit 8c9bcc3.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from components.annotations.entries import BadAnnotationError, annotated, parse_json, validate
from components.annotations.regions import Region, Shape, Size, coco_runs, full_mask, polygon
from components.instances import Instances, decode_mask, encode_runs


class _Category(BaseModel):
    id: int
    name: str


class Image(BaseModel):
    """An entry of `images`."""

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


class File(BaseModel):
    """A JSON file; the entries of images and annotations are validated one by one."""

    images: list[Any]
    annotations: list[Any]
    categories: list[_Category] = Field(min_length=1)

    def by_image(self) -> dict[Any, list[Any]]:
        """Returns the annotations by image id; None is the key of those without a valid id."""
        annotations: dict[Any, list[Any]] = defaultdict(list)
        for annotation in self.annotations:
            key = annotation.get("image_id") if isinstance(annotation, dict) else None
            annotations[key if isinstance(key, int | str) else None].append(annotation)
        return annotations


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
        return list(shapes(self.of(path)[1], self.names, f"{self.where}: image {path}", size, Counter()))


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
    file = validate(File, parse_json(data, where), where)
    by_image = file.by_image()
    images = [validate(Image, raw, f"{where}: images") for raw in file.images]
    return Annotations(
        where,
        {category.id: category.name for category in file.categories},
        {image.file_name: ((image.height, image.width), by_image[image.id]) for image in images},
    )


def shapes(raw: list[Any], names: dict[int, str], where: str, size: Size, lost: Counter[str]) -> Iterator[Shape]:
    """Yields the shapes of an image.

    Args:
        raw: its annotations, not validated.
        names: names of the categories by id.
        where: the image, for messages.
        size: its height and width.
        lost: counts of what shapes cannot hold.

    Raises:
        BadAnnotationError: an annotation is wrong.
    """
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
