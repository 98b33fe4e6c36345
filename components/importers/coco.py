"""COCO's instance annotations: one JSON file per split.

Annotations have no order, so in a mask smaller ones lie above larger ones. A crowd keeps its class.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from components.annotations import coco
from components.annotations.entries import validate
from components.errors import UsageError
from components.importers.source import Item, Source, collected, first_file, inner_path, read_json


def read(source: Path) -> Source:
    """Reads one JSON file, or a folder with `annotations/instances_{split}.json` or JSON files beside the images."""
    paths = [source] if source.is_file() else _annotation_files(source)
    problems: list[str] = []
    parsed: list[tuple[Path, coco.File]] = []
    for path in paths:
        with collected(problems):
            parsed.append((path, validate(coco.File, read_json(path), path)))
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


def _add_images(result: Source, path: Path, file: coco.File, names: dict[int, str]) -> None:
    annotations = file.by_image()
    ids = set()
    for raw in file.images:
        with collected(result.problems):
            image = validate(coco.Image, raw, f"{path}: images")
            name = inner_path(image.file_name, f"{path}: images: id {image.id}")
            ids.add(image.id)
            read_shapes = partial(coco.shapes, annotations[image.id], names, f"{path}: image {image.file_name}")
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
