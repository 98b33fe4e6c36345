"""The mask of one image: its size, and shapes painted on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from components.dataset.encoded import BadFileError, decode
from components.dataset.orientation import upright
from components.importers.palette import ANY_SIZE
from components.importers.source import IMAGE_SUFFIXES, BadAnnotationError, Item, Shape, Size, is_background


def mask_size(item: Item) -> Size:
    """Returns the size of an item's mask. Raises BadAnnotationError if its image is broken or does not fit."""
    if item.image.suffix.lower() not in IMAGE_SUFFIXES:
        raise BadAnnotationError(
            f"{item.image}: found the extension {item.image.suffix or 'none'}; expected .png, .jpg or .jpeg. Convert"
            " the image and correct its name in the annotation"
        )
    try:
        image = decode(item.image.read_bytes(), ANY_SIZE, ("PNG", "JPEG"))
    except OSError as error:
        raise BadAnnotationError(
            f"{item.image}: {error.strerror}; expected the image of an annotation. Copy it there, or delete the"
            " annotation"
        ) from None
    except BadFileError as error:
        raise BadAnnotationError(
            f"{item.image}: found {error.found}; expected {error.expected}. Copy the image again, or delete"
            " its annotation"
        ) from None
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
    """Returns a mask with the shapes painted over the background in their order.

    Args:
        shapes: those below first.
        size: height and width of the mask.
        index_of: the index of each class; other labels are counted as lost, those of the background erase.
        smaller_above: whether to paint shapes of more pixels first.
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
        region = shape.region
        top, left = max(region.top, 0), max(region.left, 0)
        inside = region.mask[top - region.top :, left - region.left :][: size[0] - top, : size[1] - left]
        if top >= size[0] or left >= size[1] or not inside.any():
            lost["shapes that cover no pixel"] += 1
            continue
        place = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
        lost["pixels of one class under another"] += int((covered[place] & inside & (mask[place] != index)).sum())
        mask[place][inside] = index
        covered[place] |= inside
    return mask
