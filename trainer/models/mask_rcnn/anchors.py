"""The anchors: boxes of three aspect ratios at every pixel of the pyramid, which proposals are relative to."""

from __future__ import annotations

import math

import numpy as np

# Of the pyramid's levels P2 to P6, in pixels.
STRIDES = (4, 8, 16, 32, 64)

# Height to width. Source: Lin et al. 2017, arXiv 1612.03144, section 4.1.
RATIOS = (0.5, 1.0, 2.0)

# Side of a square anchor in strides: 32 pixels at P2 to 512 at P6, as in the paper.
_SIDE = 8

# The paper's images have a shorter side of 800 pixels. Smaller images have smaller objects, but anchors of less than
# three strides would leave gaps between neighbours.
_SHORTER_SIDE = 800
_SMALLEST_SCALE = 3 / _SIDE


def scale(size: tuple[int, int]) -> float:
    """Returns the size of anchors for an input's height and width in pixels, relative to the paper's; at most 1."""
    return float(np.clip(min(size) / _SHORTER_SIDE, _SMALLEST_SCALE, 1))


def counts(size: tuple[int, int]) -> list[int]:
    """Returns the number of anchors of each level."""
    return [len(RATIOS) * math.prod(math.ceil(side / stride) for side in size) for stride in STRIDES]


def anchors(size: tuple[int, int]) -> np.ndarray:
    """Returns the anchors for an input's height and width, ordered by level, row, column and ratio, float32 [A, 4]."""
    levels = []
    for stride in STRIDES:
        sides = _SIDE * stride * scale(size) * np.stack([np.sqrt(RATIOS), 1 / np.sqrt(RATIOS)], axis=-1)
        rows, columns = ((np.arange(math.ceil(side / stride)) + 0.5) * stride for side in size)
        centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[:, :, np.newaxis]
        levels.append(np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)
