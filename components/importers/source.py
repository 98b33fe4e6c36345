"""The types and helpers that all importers share: images with their shapes, classes, and issues of the source."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from components import files
from components.annotations.entries import BadAnnotationError, parse_json
from components.annotations.regions import Shape, Size
from components.dataset.layout import IMAGE_EXTENSIONS

BACKGROUND = "background"
VOID = "void"
IMAGE_SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
Color = tuple[int, int, int]


@contextlib.contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Adds a BadAnnotationError in the block to `problems`, and continues after the block."""
    try:
        yield
    except BadAnnotationError as error:
        problems.append(str(error))


@dataclasses.dataclass(frozen=True)
class Item:
    """An image to import.

    Attributes:
        image: its file.
        name: its path inside the source, with slashes; unique within a split.
        split: name of its split in the source, or None.
        read: takes the mask's size and the counts of what is lost; yields the shapes, bottom first. Raises
            BadAnnotationError.
        size: height and width in the annotation; None for those of the image after EXIF rotation.
    """

    image: Path
    name: str
    split: str | None
    read: Callable[[Size, Counter[str]], Iterable[Shape]]
    size: Size | None = None


@dataclasses.dataclass
class Source:
    """A data set in a foreign format.

    Attributes:
        labels: colour by class, in index order; a class without a colour gets the one of its index.
        items: its images.
        ignore: the label whose pixels are neither trained on nor scored, or None.
        smaller_above: whether smaller shapes cover larger ones, for formats whose shapes have no order.
        has_instances: whether each shape is one object, or a group of objects.
        lost: counts of what the masks cannot hold, by kind.
        problems: error messages of files and entries that are left out.
    """

    labels: dict[str, Color | None] = dataclasses.field(default_factory=dict)
    items: list[Item] = dataclasses.field(default_factory=list)
    ignore: str | None = None
    smaller_above: bool = False
    has_instances: bool = False
    lost: Counter[str] = dataclasses.field(default_factory=Counter)
    problems: list[str] = dataclasses.field(default_factory=list)


def is_background(label: str) -> bool:
    """Tells whether a label is the background, `_background_` in labelme."""
    return label.strip("_").lower() == BACKGROUND


def read_json(path: Path) -> Any:
    """Returns a JSON file's content. Raises BadAnnotationError."""
    try:
        return parse_json(path.read_bytes(), path)
    except OSError as error:
        raise BadAnnotationError(
            f"{path}: cannot be read: {error.strerror}; expected a JSON file. Export or copy it again"
        ) from None


def inner_path(name: str, where: object) -> str:
    """Returns an image's path inside a source, with slashes. Raises BadAnnotationError if it leaves the source."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadAnnotationError(
            f"{where}: found the image path {name!r}; expected a path inside the source. Correct the path"
        )
    return str(path)


def first_file(*candidates: Path) -> Path:
    """Returns the first path that is a file, or the first path if none exists."""
    return next((path for path in candidates if path.is_file()), candidates[0])


def read_lines(path: Path) -> list[str]:
    """Returns the stripped lines of a text file that are not empty; no lines if the file does not exist."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [line.strip() for line in text.splitlines() if line.strip()]


def list_images(folder: Path) -> Iterator[str]:
    """Yields the paths of all images below a folder, relative to it, with slashes, in sorted order."""
    return (path for path in files.list_files(str(folder)) if Path(path).suffix.lower() in IMAGE_SUFFIXES)


def parse_color(text: str) -> Color | None:
    """Returns the colour of a text `#rrggbb`, or None for other text."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return None
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def voc_color(index: int) -> Color:
    """Returns Pascal VOC's colour of a class index, 0 to 255; all differ, and 0 is black.

    Bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue (VOCcode/
    VOClabelcolormap.m of the VOC2012 development kit).
    """
    red, green, blue = (
        sum((index >> (3 * step + channel) & 1) << (7 - step) for step in range(3)) for channel in range(3)
    )
    return red, green, blue
