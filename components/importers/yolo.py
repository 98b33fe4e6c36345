"""YOLO's segmentation labels: a text file per image, a class and a polygon per line, and a `data.yaml`.

Format: https://docs.ultralytics.com/datasets/segment/, as read by ultralytics/data/utils.py (`img2label_paths`,
`check_det_dataset`, `verify_image_label`; commit 00bfe34). Lines have no order, so smaller shapes lie above larger
ones, as in `polygons2masks_overlap`. An image without a label file has no object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from components.annotations.entries import BadAnnotationError, validate
from components.annotations.regions import Shape, Size, polygon
from components.errors import UsageError
from components.importers.source import Item, Source, collected, list_images, read_lines
from components.yaml_loading import load_mapping

_BOX_COLUMNS = 5
_TOLERANCE = 0.01


class _Data(BaseModel):
    names: dict[int, str] | list[str] = Field(min_length=1)
    path: str = ""
    train: str | list[str] | None = None
    val: str | list[str] | None = None
    validation: str | list[str] | None = None
    test: str | list[str] | None = None


def read(source: Path) -> Source:
    """Reads a `data.yaml`, or the folder that holds one YAML file."""
    path = source if source.is_file() else _yaml_file(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}; expected a YAML file. Export or copy it again") from None
    data = validate(_Data, load_mapping(text, str(path)), path)
    names = data.names if isinstance(data.names, dict) else dict(enumerate(data.names))
    result = Source(dict.fromkeys(names[index] for index in sorted(names)), smaller_above=True)
    root = path.parent / data.path
    # `path` may name a folder of another machine.
    root = root if root.is_dir() else path.parent
    given = {"train": data.train, "val": data.val or data.validation, "test": data.test}
    for split, entries in given.items():
        for entry in [entries] if isinstance(entries, str) else entries or []:
            with collected(result.problems):
                for image, name in _images(_resolve(root, entry, f"{path}: {split}")):
                    result.items.append(Item(image, name, split, partial(_shapes, _label_file(image), names)))
    return result


def _yaml_file(folder: Path) -> Path:
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    named = [path for path in found if path.stem == "data"] or found
    if len(named) != 1:
        raise UsageError(
            f"{folder}: found {len(named)} YAML files; expected one with names, train and val. Pass the file itself"
        )
    return named[0]


def _resolve(root: Path, entry: str, where: str) -> Path:
    """Returns the folder or list of a split; Roboflow writes `../train/images` for `train/images`."""
    for place in (root / entry, root / entry.removeprefix("../")):
        if place.exists():
            return place
    raise BadAnnotationError(
        f"{where}: {root / entry} does not exist; expected a folder of images or a text file that lists them."
        " Correct the entry"
    )


def _images(place: Path) -> Iterator[tuple[Path, str]]:
    """Yields path and name of each image in a folder, or in a file that lists one per line."""
    if place.is_dir():
        yield from ((place / name, name) for name in list_images(place))
        return
    for line in read_lines(place):
        image = place.parent / line
        yield image, image.name


def _label_file(image: Path) -> Path:
    """Returns the label file's path: the last folder `images` becomes `labels`."""
    parts = list(image.with_suffix(".txt").parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts)


def _shapes(path: Path, names: dict[int, str], size: Size, lost: Counter[str]) -> Iterator[Shape]:
    if not path.is_file():
        lost["images without a label file, all background"] += 1
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadAnnotationError(f"{path}: not UTF-8: {error}; expected text. Save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            index, *numbers = map(float, line.split())
        except ValueError:
            raise BadAnnotationError(
                f"{where}: found {line!r:.60}; expected a class and x y pairs from 0 to 1. Correct the line"
            ) from None
        if index not in names:
            raise BadAnnotationError(
                f"{where}: found the class {index:g}; expected 0 to {max(names)}. Correct it or add it to names"
            )
        if 1 + len(numbers) == _BOX_COLUMNS:
            lost["boxes without a shape"] += 1
            continue
        outside = [value for value in numbers if not -_TOLERANCE <= value <= 1 + _TOLERANCE]
        if outside:
            raise BadAnnotationError(
                f"{where}: found {outside[0]:g}; expected coordinates from 0 to 1, fractions of the image's"
                " width and height. Divide pixels by them"
            )
        try:
            region = polygon(np.reshape(numbers, (-1, 2)) * (size[1], size[0]), size)
        except ValueError:
            raise BadAnnotationError(
                f"{where}: found {len(numbers)} coordinates; expected x y pairs of at least 3 corners. Correct the line"
            ) from None
        yield Shape(names[int(index)], region)
