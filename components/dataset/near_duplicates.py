"""Finds near duplicates of images in other splits: re-encoded, resized or brightened copies.

Each image gets a difference hash of 128 bits (the library dhash): the image is reduced to 9 x 9 grey levels, and a bit
is set if a level is lower than the one to its right (64 bits) or below it (64 bits). Two images are near duplicates if
at most `MAX_DISTANCE` bits differ; docs/reference.md says how this bound was measured.

The bits are cut into `MAX_DISTANCE` + 1 bands. Two hashes that differ in at most `MAX_DISTANCE` bits have a band in
common, so only images with a common band are compared.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator

import dhash
import numpy as np
from PIL import Image

MAX_DISTANCE = 6  # bits
BITS = 128

_GRID = 9
_ROWS = 4096  # compared at once


@dataclasses.dataclass(frozen=True, order=True)
class HashedImage:
    """An image's hashes."""

    split: str
    name: str
    pixels: str  # SHA-256 of the image's pixels, hexadecimal; see `encoded.pixel_hash`
    perceptual: str  # what `perceptual_hash` returned


@dataclasses.dataclass(frozen=True, order=True)
class NearDuplicate:
    """An image and its nearest duplicate in another split."""

    split: str
    name: str  # the name of its pair
    other_split: str
    other_name: str  # the name of its pair
    distance: int  # number of different bits of their hashes, 0 to `MAX_DISTANCE`


def perceptual_hash(image: Image.Image) -> str:
    """Returns the difference hash, 32 hexadecimal digits, of an upright image; scales 16-bit grey levels to 8 bits."""
    size = (_GRID, _GRID)
    if image.mode.startswith("I"):
        levels = np.asarray(image.convert("I").convert("F").resize(size, Image.Resampling.LANCZOS))
        low, high = float(levels.min()), float(levels.max())
        levels = np.rint((levels - low) * (255 / max(1.0, high - low)))
    else:
        levels = np.asarray(image.convert("RGB").convert("L").resize(size, Image.Resampling.LANCZOS))
    # dhash 1.4 gets the levels of an image by a method that Pillow 14 removes.
    return format(dhash.dhash_int(levels.ravel().tolist()), f"0{BITS // 4}x")


def bands(perceptual: str) -> Iterator[str]:
    """Yields the bands of a hash as "POSITION:BITS"; near duplicates have at least one in common."""
    bits = format(int(perceptual, 16), f"0{BITS}b")
    edges = [BITS * place // (MAX_DISTANCE + 1) for place in range(MAX_DISTANCE + 2)]
    for place in range(MAX_DISTANCE + 1):
        yield f"{place}:{bits[edges[place] : edges[place + 1]]}"


def nearest(images: Iterable[HashedImage]) -> Iterator[NearDuplicate]:
    """Yields the nearest duplicate, if any, of each image in each other split, given images with a common band.

    Of several duplicates with the same distance, it is the first by name. Images with the same pixels do not count:
    they are the same image.
    """
    by_split: dict[str, list[HashedImage]] = defaultdict(list)
    for image in sorted(images):
        by_split[image.split].append(image)
    if len(by_split) < 2:
        return
    signs = {split: _signs(members) for split, members in by_split.items()}
    for split, members in by_split.items():
        for other_split in by_split.keys() - {split}:
            others = by_split[other_split]
            pixels = np.array([other.pixels for other in others])
            for start in range(0, len(members), _ROWS):
                rows = members[start : start + _ROWS]
                # Equal bits add 1 to the product of two rows of signs, different bits -1.
                distances = (BITS - signs[split][start : start + _ROWS] @ signs[other_split].T) / 2
                distances[np.array([row.pixels for row in rows])[:, np.newaxis] == pixels] = BITS
                for row, place, distance in zip(rows, distances.argmin(axis=1), distances.min(axis=1), strict=True):
                    if distance <= MAX_DISTANCE:
                        yield NearDuplicate(split, row.name, other_split, others[place].name, int(distance))


def _signs(images: list[HashedImage]) -> np.ndarray:
    """Returns the bits of each image's hash as 1 and -1, float32 [images, BITS]."""
    packed = np.frombuffer(bytes.fromhex("".join(image.perceptual for image in images)), np.uint8)
    return np.unpackbits(packed).reshape(-1, BITS).astype(np.float32) * 2 - 1


def closest(found: Iterable[NearDuplicate]) -> NearDuplicate:
    """Returns the nearest of several duplicates of one image; of the same distance, the first by name."""
    return min(found, key=lambda pair: (pair.distance, pair.other_name))


def near_duplicates(images: Iterable[HashedImage]) -> list[NearDuplicate]:
    """Returns the nearest duplicate of each image in each other split, sorted; compares images with a common band."""
    by_band: dict[str, list[HashedImage]] = defaultdict(list)
    for image in images:
        for band in bands(image.perceptual):
            by_band[band].append(image)
    found: dict[tuple[str, str, str], list[NearDuplicate]] = defaultdict(list)
    for members in by_band.values():
        for pair in nearest(members):
            found[pair.split, pair.name, pair.other_split].append(pair)
    return sorted(map(closest, found.values()))
