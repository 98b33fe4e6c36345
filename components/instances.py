"""The instances of an image: masks, classes, COCO's run-length encoding and boxes. Needs only NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Instances:
    """The N instances of an image.

    Attributes:
        masks: bool [N, H, W]; they may overlap.
        classes: class index of each, int64 [N].
        crowd: whether each is a group of objects, which is background in training and not scored, bool [N].
    """

    masks: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    @classmethod
    def stack(cls, found: Sequence[tuple[np.ndarray, int, bool]], size: tuple[int, ...]) -> Instances:
        """Makes instances of a list of (mask, class index, crowd); size is height and width."""
        masks = np.array([mask for mask, _, _ in found], bool).reshape(-1, *size)
        classes = np.array([index for _, index, _ in found], np.int64)
        return cls(masks, classes, np.array([crowd for _, _, crowd in found], bool))


def encode_runs(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encodes masks, bool [N, H, W], as `rleEncode` of the COCO API does (maskApi.c, commit 8c9bcc3).

    Returns:
        The number of runs of each mask, int64 [N], and the runs of all masks, int64 [sum of the numbers]: down the
        columns, zeros and ones in turn, zeros first.
    """
    every = [_runs(mask.ravel(order="F")) for mask in masks]
    return np.array([len(runs) for runs in every], np.int64), np.concatenate([np.zeros(0, np.int64), *every])


def _runs(pixels: np.ndarray) -> np.ndarray:
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = [0, 0] if pixels[0] else [0]
    return np.diff([*start, *edges, len(pixels)])


def decode_runs(num_runs: np.ndarray, runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the masks, bool [N, height, width], that `encode_runs` encoded.

    Raises:
        ValueError: a negative run, or runs that do not sum up to the pixels of each mask.
    """
    if num_runs.sum() != len(runs):
        raise ValueError(f"found {len(runs)} runs; expected {num_runs.sum()}, the sum of the masks' numbers of runs")
    masks = np.zeros((len(num_runs), height, width), bool)
    for mask, own in zip(masks, np.split(runs, np.cumsum(num_runs)[:-1]), strict=False):
        mask[:] = decode_mask(own, height, width)
    return masks


def decode_mask(runs: np.ndarray | Sequence[int], height: int, width: int, by_columns: bool = True) -> np.ndarray:
    """Returns the mask, bool [height, width], of runs in pixels that alternate between zeros and ones, zeros first.

    The runs go down the columns, as in COCO, or along the rows, as in CVAT.

    Raises:
        ValueError: a negative run, or runs that do not sum up to the mask's pixels.
    """
    lengths = np.asarray(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(
            f"found runs of {lengths.sum()} pixels; expected {height * width}, of a mask of {width}x{height}"
        )
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels.reshape(width, height).T if by_columns else pixels.reshape(height, width)


def boxes(masks: np.ndarray) -> np.ndarray:
    """Returns the bounding boxes of masks, bool [N, H, W].

    Returns:
        (y_min, x_min, y_max, x_max) in pixels, the maximum exclusive, float32 [N, 4]; zeros for a mask without pixels.
    """
    sides = [masks.any(axis=2), masks.any(axis=1)]
    low = [side.argmax(axis=1) if side.size else np.zeros(len(masks)) for side in sides]
    high = [side.shape[1] - side[:, ::-1].argmax(axis=1) if side.size else np.zeros(len(masks)) for side in sides]
    found = np.stack([*low, *high], axis=1).astype(np.float32).reshape(-1, 4)
    return found * masks.any(axis=(1, 2))[:, None]
