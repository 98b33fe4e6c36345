"""What every importer returns: images, their shapes and classes, and what the format has that masks cannot hold."""

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
from components.dataset.yaml_settings import explain

BACKGROUND = "background"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
Color = tuple[int, int, int]
Size = tuple[int, int]  # height and width, in pixels
Model = TypeVar("Model", bound=BaseModel)


class BadAnnotationError(Exception):
    """A file or an entry that cannot be imported; the message says where, what was found, expected, and what to do."""


@dataclasses.dataclass(frozen=True)
class Region:
    """Pixels of an image.

    Attributes:
        mask: bool [h, w], a cutting of the image.
        top: row of the image where the mask begins.
        left: column of the image where the mask begins.
    """

    mask: np.ndarray
    top: int = 0
    left: int = 0


@dataclasses.dataclass(frozen=True)
class Shape:
    """A region with its class."""

    label: str
    region: Region


@dataclasses.dataclass(frozen=True)
class Label:
    """A class of the source; without a colour it gets one by its place in the list."""

    name: str
    color: Color | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """An image to import.

    Attributes:
        image: its file.
        name: its path inside the source, with slashes; unique within a split.
        split: the split that the source puts it in, as the source calls it, or None.
        read: returns the shapes, those below first; takes the size that the mask gets, and the counts of what is lost.
            Raises BadAnnotationError.
        size: height and width that the annotation gives; None: those of the image, turned as viewers show it.
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
        ignore: the label whose pixels do not count, or None.
        smaller_above: whether smaller shapes cover larger ones, for formats whose shapes have no order.
        lost: counts of what the masks cannot hold, by kind.
        problems: what could not be read.
    """

    labels: list[Label]
    items: list[Item]
    ignore: str | None = None
    smaller_above: bool = False
    lost: Counter[str] = dataclasses.field(default_factory=Counter)
    problems: list[str] = dataclasses.field(default_factory=list)


def is_background(label: str) -> bool:
    """Tells whether a label means what no shape covers; labelme calls it `_background_`."""
    return label.strip("_").lower() == BACKGROUND


def read_json(path: Path) -> Any:
    """Returns a JSON file's content. Raises BadAnnotationError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise BadAnnotationError(f"{path}: cannot be read: {error.strerror}; expected a JSON file") from None
    except ValueError as error:
        raise BadAnnotationError(
            f"{path}: found text that is no JSON: {error}; expected a JSON file. Export or copy it again"
        ) from None


def validate(model: type[Model], value: Any, where: object) -> Model:
    """Returns a value as a pydantic model. Raises BadAnnotationError that names the place, the field and what it is."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        if not isinstance(value, dict):
            message = f"{where}: found {value!r:.80}; expected an object with the keys {', '.join(model.model_fields)}"
        else:
            message = explain(error, model, str(where))
        raise BadAnnotationError(f"{message}. Correct the entry, or export the data again") from None


def inner_path(name: str, where: object) -> str:
    """Returns an image's path as a source gives it, with slashes. Raises BadAnnotationError if it leads elsewhere."""
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
