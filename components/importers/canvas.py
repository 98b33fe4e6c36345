"""Draws the mask of one image: finds its size and paints the shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageFile

from components.annotations.entries import BadAnnotationError
from components.annotations.regions import Shape, Size, crop
from components.dataset.conversion import as_png
from components.dataset.encoded import BadFileError, Limits, decode
from components.dataset.orientation import upright
from components.importers.source import IMAGE_SUFFIXES, Item, is_background

# `segpipe data check` and `segpipe run` apply the limits in the settings.
_ANY_SIZE = Limits(max_side=2**31, min_side=1, max_pixels=2**31)
OVERLAPS = "pixels of one class under another"


def read_image(path: Path, formats: tuple[str, ...], purpose: str, alternative: str) -> ImageFile.ImageFile:
    """Decodes an image of any size.

    Args:
        path: the file; TIFF, BMP and WebP are converted to PNG first.
        formats: allowed formats, "PNG" and "JPEG".
        purpose: description of the file, for messages.
        alternative: what to do without the file, for messages.

    Raises:
        BadAnnotationError: the file cannot be read or decoded.
    """
    try:
        return decode(as_png(path.read_bytes(), _ANY_SIZE, str(path)), _ANY_SIZE, formats)
    except OSError as error:
        raise BadAnnotationError(f"{path}: {error.strerror}; expected {purpose}. Add it, or {alternative}") from None
    except BadFileError as error:
        action = error.action or f"copy the file again, or {alternative}"
        raise BadAnnotationError(
            f"{path}: found {error.found}; expected {error.expected}. {action[0].upper()}{action[1:]}"
        ) from None


def mask_size(item: Item) -> Size:
    """Returns the size of an item's mask. Raises BadAnnotationError if its image is broken or has another size."""
    if item.image.suffix.lower() not in IMAGE_SUFFIXES:
        raise BadAnnotationError(
            f"{item.image}: found the extension {item.image.suffix or 'none'}; expected one of"
            f" {', '.join(IMAGE_SUFFIXES)}. Convert the image and correct its name in the annotation"
        )
    image = read_image(item.image, ("PNG", "JPEG"), "the image of an annotation", "delete its annotation")
    turned = upright(image)
    sizes = ((turned.height, turned.width), (image.height, image.width))
    if item.size is None:
        return sizes[0]
    if item.size not in sizes:
        raise BadAnnotationError(
            f"{item.image}: found {image.width}x{image.height} pixels; expected {item.size[1]}x{item.size[0]}, the"
            " annotation's width and height. Use the image that was annotated"
        )
    return item.size


def paint(
    shapes: Sequence[Shape], size: Size, index_of: Mapping[str, int], smaller_above: bool, lost: Counter[str]
) -> np.ndarray:
    """Paints shapes over the background in their order.

    Args:
        shapes: the shapes, bottom first.
        size: height and width of the mask.
        index_of: the index of each class; shapes of the background erase, shapes of other labels are counted as lost.
        smaller_above: whether to paint larger shapes first instead.
        lost: counts of what the mask cannot hold.

    Returns:
        Class indices, uint8 [H, W].
    """
    mask = np.zeros(size, dtype=np.uint8)
    covered = np.zeros(size, dtype=bool)
    order = sorted(shapes, key=lambda shape: -int(shape.region.mask.sum())) if smaller_above else shapes
    for shape in order:
        index = 0 if is_background(shape.label) else index_of.get(shape.label)
        if index is None:
            lost["shapes of classes that are not kept"] += 1
            continue
        place, inside = crop(shape.region, size)
        if not inside.any():
            lost["shapes that cover no pixel"] += 1
            continue
        lost[OVERLAPS] += int((covered[place] & inside & (mask[place] != index)).sum())
        mask[place][inside] = index
        covered[place] |= inside
    return mask
