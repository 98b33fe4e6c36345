"""Colours of classes by their index, as Pascal VOC has them, and the limits of images on import."""

from __future__ import annotations

from components.dataset.encoded import Limits
from components.importers.source import Color

# `segpipe data check` and `segpipe run` apply the limits that the user sets.
ANY_SIZE = Limits(max_side=2**31, min_side=1, max_pixels=2**31)


def voc_color(index: int) -> Color:
    """Returns the colour of a class index, 0 to 255, all different and black for 0.

    Bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue (VOCcode/
    VOClabelcolormap.m of the VOC2012 development kit).
    """
    red, green, blue = (
        sum((index >> (3 * step + channel) & 1) << (7 - step) for step in range(3)) for channel in range(3)
    )
    return red, green, blue
