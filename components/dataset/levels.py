"""Checks that 16-bit images keep enough levels when their values are scaled to 0 to 255."""

from __future__ import annotations

import numpy as np
from PIL import Image

from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, has_16_bits
from components.dataset.pairs import UNSUITABLE_RANGE

# Fewest of 255 levels that an image may span. The full range of a 14-bit camera without scaling spans 63.7, so images
# of all cameras of up to 14 bits are found.
MIN_LEVELS = 64


def check_range(image: Image.Image, data: bytes, description: DatasetDescription) -> None:
    """Checks the values of a decoded 16-bit image; other images pass.

    With `image_range` an image may be dark or flat, but some value must be within the range. `data` is the encoded
    image. Raises BadFileError with the reason `unsuitable_range`.
    """
    if not has_16_bits(data):
        return
    low, high = _extremes(image)
    found = f"16-bit values from {low} to {high}"
    if description.image_range is None:
        levels = (high - low) * 255 / 65535
        if levels < MIN_LEVELS:
            bits = max(8, high.bit_length())
            raise BadFileError(
                UNSUITABLE_RANGE,
                f"{found}, which span {int(levels)} of 255 levels when 0 to 65535 are scaled to 0 to 255",
                f"at least {MIN_LEVELS} levels, or a line such as `image_range: [0, {2**bits - 1}]` in segpipe.yaml",
            )
        return
    black, white = description.image_range
    if high < black or low > white:
        raise BadFileError(UNSUITABLE_RANGE, found, f"values within image_range: [{black}, {white}]")


def _extremes(image: Image.Image) -> tuple[int, int]:
    """Returns the smallest and the largest value; of 16-bit colours, Pillow keeps the high bytes only."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return int(values.min()), int(values.max())
    colors = np.asarray(image.convert("RGB"))
    return int(colors.min()) * 256, int(colors.max()) * 256 + 255
