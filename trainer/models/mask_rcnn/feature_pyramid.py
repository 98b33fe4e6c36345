"""The feature pyramid network (Lin et al. 2017, arXiv 1612.03144): deep features added to those of finer strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers


def build(features: Sequence[Any], filters: int) -> list[Any]:
    """Builds a pyramid on an encoder's features of strides 4, 8, 16 and 32, [B, h, w, C].

    Returns:
        The levels P2 to P6, [B, h, w, filters], of strides 4 to 64; their layers are called p2 to p6.
    """
    levels: list[Any] = []
    merged = None
    for level, each in reversed(list(enumerate(features, 2))):
        lateral = layers.Conv2D(filters, 1, name=f"p{level}_lateral")(each)
        above = None if merged is None else layers.UpSampling2D(name=f"p{level}_upsampled")(merged)
        merged = lateral if above is None else layers.Add(name=f"p{level}_merged")([lateral, above])
        levels.insert(0, layers.Conv2D(filters, 3, padding="same", name=f"p{level}")(merged))
    # P6 is for proposals only, as in section 4.1.
    return [*levels, layers.MaxPooling2D(1, strides=2, name="p6")(levels[-1])]
