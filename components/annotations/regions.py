"""Polygons, ellipses and run-length encodings as pixels."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

Size = tuple[int, int]  # height and width, in pixels
_ELLIPSE_CORNERS = 360


@dataclasses.dataclass(frozen=True)
class Region:
    """Pixels of an image.

    Attributes:
        mask: bool [h, w], a crop of the image.
        top: row of the image where the mask begins; may lie outside.
        left: column of the image where the mask begins; may lie outside.
    """

    mask: np.ndarray
    top: int = 0
    left: int = 0


@dataclasses.dataclass(frozen=True)
class Shape:
    """A region and its class; `crowd` marks a group of objects, as COCO's `iscrowd` does."""

    label: str
    region: Region
    crowd: bool = False


def polygon(points: np.ndarray | Sequence[float] | Sequence[Sequence[float]], size: Size) -> Region:
    """Returns the pixels whose centres lie inside a polygon, by the even-odd rule.

    The centre of pixel 0 is at 0.5. `rleFrPoly` of the COCO API (common/maskApi.c, commit 8c9bcc3) fills the same
    pixels, but rounds the corners to fifths of a pixel. `PIL.ImageDraw.polygon` truncates coordinates to whole numbers
    and adds the border, which makes every object larger.

    Args:
        points: corners, [[x, y], ...] or [x, y, ...], in pixels.
        size: height and width of the image.

    Raises:
        ValueError: fewer than three corners, an odd number of coordinates, or a coordinate that is not finite.
    """
    flat = np.asarray(points, dtype=float).ravel()
    if flat.size < 6 or flat.size % 2 or not np.isfinite(flat).all():
        raise ValueError(f"found a polygon of {flat.size} coordinates; expected at least 3 corners, all of them finite")
    corners = flat.reshape(-1, 2) - 0.5
    highest = (size[1], size[0])
    left, top = np.clip(np.ceil(corners.min(axis=0)), 0, highest).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, highest).astype(int)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y0, y1)), top, bottom).astype(int)
    counts = np.clip(np.ceil(np.maximum(y0, y1)), top, bottom).astype(int) - first
    # Each edge crosses the centres of `counts` rows, starting at row `first`.
    edge = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    crossing = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    width = right - left + 1
    toggles = np.bincount((row - top) * width + column - left, minlength=(bottom - top) * width)
    inside = np.cumsum(toggles.reshape(bottom - top, width), axis=1)[:, :-1] % 2 == 1
    return Region(inside, int(top), int(left))


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float, size: Size) -> Region:
    """Returns the pixels of an ellipse (a polygon of 360 corners) rotated clockwise; center and radii are (x, y)."""
    angle = np.linspace(0, 2 * math.pi, _ELLIPSE_CORNERS, endpoint=False)
    return polygon(_rotate(np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii + center, center, degrees), size)


def rectangle(x0: float, y0: float, x1: float, y1: float, degrees: float, size: Size) -> Region:
    """Returns the pixels of a rectangle rotated clockwise around its centre."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return polygon(_rotate(corners, ((x0 + x1) / 2, (y0 + y1) / 2), degrees), size)


def _rotate(points: np.ndarray, center: tuple[float, float], degrees: float) -> np.ndarray:
    """Rotates points, float [n, 2], clockwise around a centre; y points down."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (points - center) @ np.array([[cosine, sine], [-sine, cosine]]) + center


def decode_bitmap(data: bytes) -> Image.Image:
    """Decodes an image that is part of an annotation. Raises ValueError."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image
    except Exception as error:  # damaged files raise many types, SyntaxError and struct.error among them
        raise ValueError(str(error)) from None


def full_mask(size: Size, *regions: Region) -> np.ndarray:
    """Returns the pixels that any of the regions covers, a mask of the whole image, bool [H, W]."""
    mask = np.zeros(size, dtype=bool)
    for region in regions:
        place, inside = crop(region, size)
        mask[place] |= inside
    return mask


def crop(region: Region, size: Size) -> tuple[tuple[slice, slice], np.ndarray]:
    """Returns rows and columns of a region inside an image, and its mask there."""
    top, left = (min(max(start, 0), side) for start, side in zip((region.top, region.left), size, strict=True))
    inside = region.mask[top - region.top :, left - region.left :][: size[0] - top, : size[1] - left]
    return (slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])), inside


def coco_runs(text: str) -> list[int]:
    """Returns the runs of COCO's compressed encoding, 5 bits a character (`rleFrString`, maskApi.c, commit 8c9bcc3).

    Raises ValueError if the text ends within a number or has other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"found the character {character!r}; expected those from '0' to 'o'")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("found text that ends within a number; expected the whole encoding")
    return runs


def label_studio_values(data: Sequence[int]) -> np.ndarray:
    """Returns the values of Label Studio's brush encoding, uint8: four channels a pixel, row by row.

    As `decode_rle` of label_studio_converter/brush.py, version 0.0.59. The header has 32 bits of length, 5 bits of word
    size, and 4 times 4 bits of size of a run length. Each block has a flag, 2 bits that choose a size, a length, and
    one word if the flag is set, else as many words as the length.

    Raises ValueError if the data ends early or its words are not bytes.
    """
    bits = np.unpackbits(np.asarray(data, dtype=np.uint8))
    position = 0

    def take(count: int) -> np.ndarray:
        nonlocal position
        position += count
        if position > len(bits):
            raise ValueError(f"found {len(data)} bytes that end before the mask does; expected the whole encoding")
        return bits[position - count : position]

    def read(count: int) -> int:
        padded = np.concatenate([np.zeros(-count % 8, dtype=np.uint8), take(count)])
        return int.from_bytes(np.packbits(padded).tobytes(), "big")

    length, word = read(32), read(5) + 1
    if word != 8:
        raise ValueError(f"found words of {word} bits; expected 8")
    sizes = [read(4) + 1 for _ in range(4)]
    parts: list[np.ndarray] = []
    done = 0
    while done < length:
        repeated = read(1)
        count = 1 + read(sizes[read(2)])
        values = np.packbits(take(8 if repeated else 8 * count))
        parts.append(np.repeat(values, count) if repeated else values)
        done += count
    return np.concatenate([*parts, np.zeros(0, dtype=np.uint8)])[:length]
