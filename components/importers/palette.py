"""Pascal VOC's colours of class indices."""

from __future__ import annotations

from components.importers.source import Color


def voc_color(index: int) -> Color:
    """Returns the colour of a class index, 0 to 255; all differ, and 0 is black.

    Bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue (VOCcode/
    VOClabelcolormap.m of the VOC2012 development kit).
    """
    red, green, blue = (
        sum((index >> (3 * step + channel) & 1) << (7 - step) for step in range(3)) for channel in range(3)
    )
    return red, green, blue
