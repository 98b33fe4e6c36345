"""What every importer returns: images, their shapes and classes, and counts of what masks cannot hold."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from components import files
from components.dataset.layout import IMAGE_EXTENSIONS
from components.dataset.yaml_settings import explain

BACKGROUND = "background"
VOID = "void"
IMAGE_SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
Color = tuple[int, int, int]
Size = tuple[int, int]  # height and width, in pixels
Model = TypeVar("Model", bound=BaseModel)


class BadAnnotationError(Exception):
    """A file or an entry that cannot be imported; the message says where, what was found, expected, and what to do."""


@dataclasses.dataclass(frozen=True)
class Region:
    """Pixels of an image.

    Attributes:
        mask: bool [h, w], a crop of the image.
        top: row of the image where the mask begins.
        left: column of the image where the mask begins.
    """

    mask: np.ndarray
    top: int = 0
    left: int = 0


@dataclasses.dataclass(frozen=True)
class Shape:
    """A region with its class; `crowd` if it is a group of objects, as COCO's `iscrowd` says."""

    label: str
    region: Region
    crowd: bool = False


@dataclasses.dataclass(frozen=True)
class Label:
    """A class of the source; if its colour is None, its index gives one."""

    name: str
    color: Color | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """An image to import.

    Attributes:
        image: its file.
        name: its path inside the source, with slashes; unique within a split.
        split: the split that the source puts it in, as the source calls it, or None.
        read: takes the mask's size and the counts of what is lost; returns the shapes, the lowest first. Raises
            BadAnnotationError.
        size: height and width that the annotation gives; if None, those of the image turned as its EXIF data says.
    """

    image: Path
    name: str
    split: str | None
    read: Callable[[Size, Counter[str]], list[Shape]]
    size: Size | None = None


@dataclasses.dataclass
class Source:
    """A data set in a foreign format.

    Attributes:
        labels: its classes in index order, without the background.
        items: its images.
        ignore: the label whose pixels are neither trained on nor scored, or None.
        smaller_above: whether smaller shapes cover larger ones, for formats whose shapes have no order.
        has_instances: whether each shape is an object, or a group of them, of its own.
        lost: counts of what the masks cannot hold, by kind.
        problems: what could not be read.
    """

    labels: list[Label]
    items: list[Item]
    ignore: str | None = None
    smaller_above: bool = False
    has_instances: bool = False
    lost: Counter[str] = dataclasses.field(default_factory=Counter)
    problems: list[str] = dataclasses.field(default_factory=list)


def is_background(label: str) -> bool:
    """Tells whether a label is the background, which labelme calls `_background_`."""
    return label.strip("_").lower() == BACKGROUND


def read_json(path: Path) -> Any:
    """Returns a JSON file's content. Raises BadAnnotationError."""
    try:
        return parse_json(path.read_bytes(), path)
    except OSError as error:
        raise BadAnnotationError(
            f"{path}: cannot be read: {error.strerror}; expected a JSON file. Export or copy it again"
        ) from None


def parse_json(data: bytes, where: object) -> Any:
    """Returns the content of a JSON file's bytes. Raises BadAnnotationError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadAnnotationError(
            f"{where}: found invalid JSON: {error}; expected a JSON file. Export or copy it again"
        ) from None


def validate(model: type[Model], value: Any, where: object) -> Model:
    """Returns a value as a pydantic model. Raises BadAnnotationError that names the place, the field and its value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        if not isinstance(value, dict):
            message = f"{where}: found {value!r:.80}; expected an object with the keys {', '.join(model.model_fields)}"
        else:
            message = explain(error, model, str(where))
        raise BadAnnotationError(f"{message}. Correct the entry, or export the data again") from None


def inner_path(name: str, where: object) -> str:
    """Returns an image's path inside a source, with slashes. Raises BadAnnotationError if it leaves the source."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadAnnotationError(
            f"{where}: found the image path {name!r}; expected a path inside the source. Correct the path"
        )
    return str(path)


def list_images(folder: Path) -> Iterator[str]:
    """Yields the paths of all images below a folder, relative to it, with slashes, in sorted order."""
    return (path for path in files.list_files(str(folder)) if Path(path).suffix.lower() in IMAGE_SUFFIXES)


def parse_color(text: str) -> Color | None:
    """Returns the colour that `#rrggbb` stands for, or None for other text."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return None
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
