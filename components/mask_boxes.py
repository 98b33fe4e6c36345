"""Boxes around the connected components of a mask, as an object detector would return."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage


@dataclasses.dataclass(frozen=True)
class MaskBox:
    """The box of a connected component of one class; diagonal neighbours are connected.

    Attributes:
        index: class index.
        box: (y_min, x_min, y_max, x_max) in pixels, the maximum exclusive.
        pixels: number of pixels of the component.
    """

    index: int
    box: tuple[int, int, int, int]
    pixels: int

    @property
    def fill(self) -> float:
        """The fraction of the box that the component covers, above 0 to 1."""
        top, left, bottom, right = self.box
        return self.pixels / ((bottom - top) * (right - left))


def mask_boxes(mask: np.ndarray, indices: Sequence[int], least_pixels: int = 1) -> list[MaskBox]:
    """Returns the boxes of a mask's connected components, by class and then from top to bottom.

    Touching objects of one class are one component; a partly hidden object may be several.

    Args:
        mask: class indices, uint8 [H, W].
        indices: the classes to find.
        least_pixels: smaller components are left out.
    """
    found = []
    for index in indices:
        labels, _ = ndimage.label(mask == index, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:].tolist()
        for (rows, columns), pixels in zip(ndimage.find_objects(labels), sizes, strict=True):
            if pixels >= least_pixels:
                found.append(MaskBox(index, (rows.start, columns.start, rows.stop, columns.stop), pixels))
    return found
