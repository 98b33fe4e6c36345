"""Pascal VOC's segmentation masks, and the same layout with `labelmap.txt` as CVAT and Datumaro write it.

Layout and classes: the VOC2012 development kit, https://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/. The masks
hold a class for every pixel; 255, the border of objects, is ignored. The instance masks in SegmentationObject are not
read.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from components.annotations.entries import BadAnnotationError
from components.annotations.regions import Region, Shape, Size
from components.dataset.description import built_in
from components.errors import UsageError
from components.importers.canvas import read_image
from components.importers.source import IMAGE_SUFFIXES, VOID, Color, Item, Source, first_file, is_background, read_lines

_VOID_INDEX = 255
_LINE = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::.*)?")


def read(source: Path) -> Source:
    """Reads a folder with JPEGImages and SegmentationClass, or VOCdevkit with one such folder in it."""
    roots = [source, *sorted(path for path in source.glob("*") if path.is_dir())]
    found = [root for root in roots if (root / "SegmentationClass").is_dir()]
    if len(found) != 1:
        raise UsageError(
            f"{source}: found {len(found)} folders named SegmentationClass; expected one, beside JPEGImages. Pass the"
            " folder that holds it, such as VOCdevkit/VOC2012. SegmentationObject alone does not say an object's class"
        )
    (root,) = found
    colors = _classes(root)
    labels: dict[str, Color | None] = {name: color for color, name in colors.items()}
    splits = _splits(root)
    result = Source(labels, ignore=VOID if VOID in labels else None)
    masked = {path.stem for path in (root / "SegmentationClass").glob("*.png")}
    # The masks of VOC's test images are not public.
    unmasked = {name for name, split in splits.items() if split == "test"} - masked
    result.lost["test images without a mask"] = len(unmasked)
    for name in sorted({*masked, *splits} - unmasked):
        image = first_file(*(root / "JPEGImages" / f"{name}{suffix}" for suffix in (".jpg", *IMAGE_SUFFIXES)))
        read_shapes = partial(_shapes, root / "SegmentationClass" / f"{name}.png", colors)
        result.items.append(Item(image, name, splits.get(name), read_shapes))
    result.lost["masks that tell objects apart (SegmentationObject)"] = len(
        list((root / "SegmentationObject").glob("*.png"))
    )
    return result


def _classes(root: Path) -> dict[Color, str]:
    """Returns the class of each mask colour, of `labelmap.txt` or else of VOC."""
    path = root / "labelmap.txt"
    if not path.is_file():
        return {item.color: item.name for item in built_in("pascal_voc").classes}
    colors: dict[Color, str] = {}
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        color = (int(match[2]), int(match[3]), int(match[4])) if match else (256, 0, 0)
        if not match or max(color) > 255:
            raise UsageError(f"{path}: found {line!r}; expected label:red,green,blue:parts:actions. Correct the line")
        if color in colors:
            raise UsageError(
                f"{path}: {match[1]} and {colors[color]} have the colour {color}; expected one each. Correct the file"
            )
        colors[color] = match[1]
    return colors


def _splits(root: Path) -> dict[str, str]:
    """Returns the split of every name in ImageSets/Segmentation."""
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        # Some tools add a column to each line.
        names = [line.split()[0] for line in read_lines(root / "ImageSets" / "Segmentation" / f"{split}.txt")]
        splits.update(dict.fromkeys(names, split))
    return splits


def _shapes(path: Path, colors: dict[Color, str], size: Size, lost: Counter[str]) -> list[Shape]:
    """Returns one shape per class; grey masks hold indices, other masks colours."""
    image = read_image(path, ("PNG",), "the mask of an image", "take the image out of ImageSets")
    if (image.height, image.width) != size:
        raise BadAnnotationError(
            f"{path}: found {image.width}x{image.height} pixels; expected the image's {size[1]}x{size[0]}. Resize the"
            " mask without interpolation"
        )
    if image.mode == "L":
        values = np.asarray(image)
        known = {_VOID_INDEX if name == VOID else index: name for index, name in enumerate(colors.values())}
    else:
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
        values = rgb @ np.array([65536, 256, 1])
        known = {red * 65536 + green * 256 + blue: name for (red, green, blue), name in colors.items()}
    present = [int(value) for value in np.unique(values)]
    unknown = [value for value in present if value not in known]
    if unknown:
        shown = unknown[0] if image.mode == "L" else (unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255)
        raise BadAnnotationError(
            f"{path}: found the value {shown} in {int((values == unknown[0]).sum())} pixels; expected those of"
            f" {len(known)} classes. Correct the mask, or add the class to labelmap.txt at {path.parent.parent}"
        )
    return [Shape(known[value], Region(values == value)) for value in present if not is_background(known[value])]
