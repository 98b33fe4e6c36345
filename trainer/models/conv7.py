"""VGG16's two dense layers as convolutions, which lets them label every place of an image.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 3.1.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders

FILTERS = 4096
# Share of features dropped after each, in the paper's published networks.
DROPOUT = 0.5


def conv7(pool5: Any, dropout: float | None) -> Any:
    """Applies conv6, 7x7, and conv7, 1x1, each with a ReLU and dropout: [B, H/32, W/32, 4096].

    Args:
        pool5: the encoder's last features, [B, H/32, W/32, C].
        dropout: share of features dropped after each; None for the source's, 0 puts no layer there.
    """
    dropout = DROPOUT if dropout is None else dropout
    x = pool5
    for index, size in ((6, 7), (7, 1)):
        x = keras.layers.Conv2D(FILTERS, size, activation="relu", padding="same", name=f"conv{index}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{index}")(x)
    return x


def deepest(settings: ModelSettings, pool5: Any) -> Any:
    """Returns what FCN-32 and FCN-16 classify: conv7, or pool5 of encoders that have no dense layers to convert."""
    if encoders.name(settings, "vgg16") == "vgg16":
        return conv7(pool5, settings.dropout)
    return pool5
