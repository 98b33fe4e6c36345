"""The encoder of the FCN family, with conv6 and conv7: VGG16's two dense layers as convolutions.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 3.1.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.normalization import BatchNormalization

# pool5 has 1/32 of the image's height and width.
STRIDE = 32
CONV7_FILTERS = 4096
# Rate in the paper's published networks.
DROPOUT = 0.5


def build(settings: ModelSettings, input_size: tuple[int | None, int | None]) -> tuple[Any, list[Any]]:
    """Returns the image input, RGB, 0 to 255, [B, H, W, 3], and pool3, pool4 and pool5.

    Args:
        settings: `encoder`, whose features of strides 8, 16 and 32 are the pools; `normalization` applies batch
            normalisation to them.
        input_size: height and width in pixels; None for any multiple of `STRIDE`.
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings)
    pools = encoders.extract(encoder, encoders.pixels(settings)(image), encoder.features[2:])
    if settings.normalization:
        pools = [BatchNormalization(name=f"normalize_pool{index}")(pool) for index, pool in enumerate(pools, 3)]
    return image, pools


def conv7(pool5: Any, dropout: float) -> Any:
    """Applies conv6, 7x7, and conv7, 1x1, each with a ReLU and dropout (if not 0): [B, H/32, W/32, 4096]."""
    x = pool5
    for index, size in ((6, 7), (7, 1)):
        x = keras.layers.Conv2D(CONV7_FILTERS, size, activation="relu", padding="same", name=f"conv{index}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{index}")(x)
    return x


def classified_features(settings: ModelSettings, pool5: Any) -> Any:
    """Returns what FCN-32 and FCN-16 classify: conv7, or pool5 of encoders without dense layers."""
    if settings.encoder != "vgg16":
        return pool5
    return conv7(pool5, DROPOUT if settings.dropout is None else settings.dropout)


def skip(pool: Any, num_classes: int, name: str) -> Any:
    """Returns class scores of a pool, with a ReLU."""
    return keras.layers.Conv2D(num_classes, 1, activation="relu", name=name)(pool)
