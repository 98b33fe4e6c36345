"""The instances of an image: masks, classes, COCO's run-length encoding and boxes. NumPy only."""

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
        crowd: whether it is a group of objects, which is not trained on nor scored, bool [N].
    """

    masks: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    @classmethod
    def stack(cls, found: Sequence[tuple[np.ndarray, int, bool]], size: tuple[int, ...]) -> Instances:
        """Returns the instances of a list of (mask, class index, crowd); size is height and width."""
        masks = np.array([mask for mask, _, _ in found], bool).reshape(-1, *size)
        classes = np.array([index for _, index, _ in found], np.int64)
        return cls(masks, classes, np.array([crowd for _, _, crowd in found], bool))


def encode_runs(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the run-length encoding of masks, as `rleEncode` of the COCO API does (maskApi.c, commit 8c9bcc3).

    Args:
        masks: bool [N, H, W].

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
        if (own < 0).any() or own.sum() != height * width:
            raise ValueError(
                f"found runs of {own.sum()} pixels; expected {height * width}, of a mask of {width}x{height}"
            )
        mask[:] = np.repeat(np.arange(len(own)) % 2 == 1, own).reshape(width, height).T
    return masks


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
