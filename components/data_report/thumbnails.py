"""Draws small pictures of images, masks and faulty files as `data:` addresses of a bounded size."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from components import drawing
from components.class_map import ClassMap
from components.dataset.description import DatasetDescription
from components.dataset.encoded import MAX_PIXELS
from components.dataset.pairs import LABEL_OUTSIDE_MAP

MAX_SIDE = 320  # pixels
MAX_BYTES = 15_000  # of one JPEG, before base64
HIGHLIGHT = (255, 0, 170)
# Tried in this order until a picture fits MAX_BYTES. Noise fits at the last of them.
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
    """Marks one class in a dimmed picture.

    Args:
        picture: what `photo` returned.
        indices: the full-size mask, uint8 [H, W].
        index: the class to mark.

    Returns:
        A picture of the same size. Objects thinner than a pixel of it are marked too.
    """
    # The box filter leaves a trace of every pixel of the class, which nearest neighbour would skip.
    fraction = Image.fromarray((indices == index).astype(np.float32)).resize(picture.size, Image.Resampling.BOX)
    dimmed = np.asarray(picture.convert("L").convert("RGB")) // 2 + 64
    marked = (np.asarray(fraction) > 0)[..., None]
    return Image.fromarray(np.where(marked, np.array(HIGHLIGHT, np.uint8), dimmed.astype(np.uint8)))


def faulty_file(data: bytes, reason: str, description: DatasetDescription) -> Image.Image | None:
    """Returns a picture of a file that was left out, or None if it does not decode or is too large to decode.

    Grey levels are stretched, as a mask of small values would be black. In a mask with values that no class names,
    named values have their class's colour and the others are white.

    Args:
        data: the file's bytes.
        reason: why it was left out, one of `pairs.REASONS`.
        description: gives the classes.
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
        return mask(_indices(values[..., 0], description), description.class_map)
    picture = _shrink(Image.fromarray(values), Image.Resampling.BOX)
    return ImageOps.autocontrast(picture) if mode == "L" or mode.startswith("I") else picture


def _indices(values: np.ndarray, description: DatasetDescription) -> np.ndarray:
    """Returns the class of each value, 255 if no class names it; both uint8 [H, W]."""
    table = np.full(256, 255, np.uint8)
    for value, index in description.index_of_value().items():
        if value < len(table):
            table[value] = index
    return table[values]


def jpeg_address(picture: Image.Image) -> str:
    """Returns a picture as the `data:` address of a JPEG of at most `MAX_BYTES` bytes."""
    for side, quality in _SIDES_AND_QUALITIES:
        buffer = io.BytesIO()
        _shrink(picture, Image.Resampling.BOX, side).save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrink(image: Image.Image, resample: Image.Resampling, side: int = MAX_SIDE) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)
