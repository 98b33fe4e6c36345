"""Encode images and masks for a page as `data:` URLs, at most `MAX_WIDTH` pixels wide."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image

from components import drawing
from components.class_map import ClassMap

MAX_WIDTH = 480
_JPEG_QUALITY = 85


def photo(data: bytes) -> Image.Image:
    """Returns an encoded image, upright and shrunk. Raises what `drawing.photo` raises."""
    return _shrink(Image.fromarray(drawing.photo(data)), Image.Resampling.LANCZOS)


def mask(indices: np.ndarray) -> np.ndarray:
    """Returns class indices or other values, uint8 or float32 [H, W], shrunk by nearest neighbour."""
    return np.asarray(_shrink(Image.fromarray(indices), Image.Resampling.NEAREST))


def masks(stack: np.ndarray) -> np.ndarray:
    """Returns masks, bool [N, H, W], shrunk by nearest neighbour."""
    size = mask(np.zeros(stack.shape[1:], np.uint8)).shape
    return np.array([mask(each.astype(np.uint8)) for each in stack], bool).reshape(-1, *size)


def photo_address(image: Image.Image) -> str:
    """Returns a photo as the URL of a JPEG."""
    return _address(image, "JPEG", quality=_JPEG_QUALITY)


def marks_address(pixels: np.ndarray) -> str:
    """Returns a marked photo, uint8 [H, W, 3], as the URL of a JPEG in full colour resolution, for sharp edges."""
    return _address(Image.fromarray(pixels), "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def mask_address(indices: np.ndarray, class_map: ClassMap) -> str:
    """Returns class indices in the classes' colours, as the URL of a palette PNG, a third of the size of RGB."""
    image = Image.fromarray(indices)
    image.putpalette(class_map.colorize(np.arange(256)).tobytes())
    return _address(image, "PNG", optimize=True)


def _shrink(image: Image.Image, resample: Image.Resampling) -> Image.Image:
    if image.width <= MAX_WIDTH:
        return image
    return image.resize((MAX_WIDTH, max(1, round(image.height * MAX_WIDTH / image.width))), resample)


def _address(image: Image.Image, encoding: Literal["JPEG", "PNG"], **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return f"data:image/{encoding.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
