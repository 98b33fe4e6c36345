"""Colour depth maps and their errors for the report."""

from __future__ import annotations

import numpy as np

from components import drawing

# Five colours of Matplotlib's Viridis, from near to far; their lightness grows evenly.
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
# The relative error at which the error picture has the full colour.
MAX_ERROR = 0.5


def colored(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
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


def error(truth: np.ndarray, estimate: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Returns the dim photo with relative errors in `drawing.WRONG`, uint8 [H, W, 3]; unknown: `drawing.IGNORED`.

    Args:
        truth: values of the depth map, [H, W]; 0 is unknown.
        estimate: values of the estimated depth map, [H, W].
        photo: uint8 [H, W, 3].
    """
    known = (truth > 0)[..., np.newaxis]
    relative = np.abs(estimate - truth) / np.maximum(truth, 1)
    opacity = np.minimum(relative / MAX_ERROR, 1)[..., np.newaxis]
    grey = photo.sum(axis=-1, keepdims=True) / 6 + 32
    mixed = grey * (1 - opacity) + np.array(drawing.WRONG) * opacity
    return np.where(known, np.rint(mixed), drawing.IGNORED).astype(np.uint8)
