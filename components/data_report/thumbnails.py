"""Draws small pictures of images, masks and bad files as `data:` addresses of limited size."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from components import drawing
from components.class_map import ClassMap
from components.dataset import masks
from components.dataset.description import DatasetDescription
from components.dataset.encoded import MAX_PIXELS
from components.dataset.pairs import LABEL_OUTSIDE_MAP

MAX_SIDE = 320  # pixels
MAX_BYTES = 15_000  # of one JPEG, before base64
HIGHLIGHT = (255, 0, 170)
# Tried in this order until the JPEG has at most MAX_BYTES. With the last pair even an image of noise does.
_SIDES_AND_QUALITIES = ((MAX_SIDE, 80), (MAX_SIDE, 60), (MAX_SIDE, 40), (MAX_SIDE // 2, 60), (MAX_SIDE // 2, 30))


def photo(data: bytes) -> Image.Image:
    """Returns an encoded image as an upright RGB picture within `MAX_SIDE` x `MAX_SIDE` pixels.

    Raises:
        What `drawing.photo` raises if Pillow cannot decode the image.
    """
    return _shrink(Image.fromarray(drawing.photo(data)), Image.Resampling.BOX)


def mask(indices: np.ndarray, class_map: ClassMap) -> Image.Image:
    """Returns class indices, uint8 [H, W], in the classes' colours, within `MAX_SIDE` x `MAX_SIDE` pixels."""
    small = _shrink(Image.fromarray(indices), Image.Resampling.NEAREST)
    return Image.fromarray(class_map.colorize(np.asarray(small)))


def highlight(picture: Image.Image, indices: np.ndarray, index: int) -> Image.Image:
    """Returns a picture of `photo` dimmed, with the class `index` of the full-size mask, uint8 [H, W], marked.

    Objects thinner than one of its pixels are marked too.
    """
    # With a box filter every pixel of the class counts; nearest neighbour would skip some.
    fraction = Image.fromarray((indices == index).astype(np.float32)).resize(picture.size, Image.Resampling.BOX)
    dimmed = np.asarray(picture.convert("L").convert("RGB")) // 2 + 64
    marked = (np.asarray(fraction) > 0)[..., None]
    return Image.fromarray(np.where(marked, np.array(HIGHLIGHT, np.uint8), dimmed.astype(np.uint8)))


def bad_file(data: bytes, reason: str, description: DatasetDescription) -> Image.Image | None:
    """Returns a picture of a file with an issue, or None if it does not decode or is too large.

    Grey levels are scaled to full contrast, because a mask of small values would be black. If the issue's `reason` is
    `label_outside_map`, values that no class names are white and the others have their class's colour.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as opened:
                mode, pixels = opened.mode, opened.width * opened.height
            if pixels > MAX_PIXELS:
                return None
            values = drawing.photo(data)
    except Exception:  # damaged files raise many types
        return None
    if mode == "L" and reason == LABEL_OUTSIDE_MAP:
        table = masks.index_table(tuple(description.index_of_value().items()), default=255)
        return mask(table[values[..., 0]].astype(np.uint8), description.class_map)
    picture = _shrink(Image.fromarray(values), Image.Resampling.BOX)
    return ImageOps.autocontrast(picture) if mode == "L" or mode.startswith("I") else picture


def jpeg_address(picture: Image.Image) -> str:
    """Returns a picture as the `data:` address of a JPEG of at most `MAX_BYTES` bytes."""
    for side, quality in _SIDES_AND_QUALITIES:
        buffer = io.BytesIO()
        _shrink(picture, Image.Resampling.BOX, side).save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrink(image: Image.Image, resample: Image.Resampling, side: int = MAX_SIDE) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), resample, reducing_gap=None)
    return small
