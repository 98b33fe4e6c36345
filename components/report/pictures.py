"""Encode images and masks for a page as `data:` URLs, at most `MAX_WIDTH` pixels wide; colour depth maps."""

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
# Five colours of Matplotlib's Viridis, from near to far; their lightness grows evenly.
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
# The relative error at which the error picture has the full colour.
MAX_ERROR = 0.5


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


def colored_depth(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns a depth map in colours from near to far, uint8 [H, W, 3]; unknown pixels are `drawing.IGNORED`.

    Args:
        depth: values of the depth map, [H, W]; 0 is unknown.
        known: values that set the range of the colours, [N]. The lowest and the highest 1 % are clipped.
    """
    low, high = np.percentile(known, (1, 99)) if known.size else (0, 1)
    place = (depth - low) / max(high - low, 1)
    positions = np.linspace(0, 1, len(_VIRIDIS))
    colors = np.stack([np.interp(place, positions, channel) for channel in _VIRIDIS.T], axis=-1)
    return np.where((depth > 0)[..., np.newaxis], np.rint(colors), drawing.IGNORED).astype(np.uint8)


def depth_error(truth: np.ndarray, estimate: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns the dim photo with relative errors in `drawing.WRONG`, uint8 [H, W, 3]; unknown: `drawing.IGNORED`.

    Args:
        truth: values of the depth map, [H, W]; 0 is unknown.
        estimate: values of the estimated depth map, [H, W].
        image: the photo, uint8 [H, W, 3].
    """
    known = (truth > 0)[..., np.newaxis]
    relative = np.abs(estimate - truth) / np.maximum(truth, 1)
    opacity = np.minimum(relative / MAX_ERROR, 1)[..., np.newaxis]
    grey = image.sum(axis=-1, keepdims=True) / 6 + 32
    mixed = grey * (1 - opacity) + np.array(drawing.WRONG) * opacity
    return np.where(known, np.rint(mixed), drawing.IGNORED).astype(np.uint8)


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
