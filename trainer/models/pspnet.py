"""PSPNet: a dilated ResNet50 whose features are concatenated with their averages over 1, 4, 9 and 36 regions.

Source: Zhao, Shi, Qi, Wang and Jia 2017, arXiv 1612.01105, without softmax. The first layers are ResNet50's own 7x7
convolution.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import dilation, encoders, upsampling
from trainer.models.normalization import convolution
from trainer.models.pyramid import RegionAverages, ResizedLike

STRIDE = 8
BINS = (1, 2, 3, 6)
FILTERS = 512
DROPOUT = 0.1


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder` (ResNet50 in the paper), dilated to an output stride of 8, `dropout` before the classes (0.1)
    and `upsampling` of the scores (bilinear).
    """
    encoder = encoders.chosen(settings)
    image, (features,) = dilation.extract(settings, encoder, input_size, [encoder.deepest], STRIDE)
    x = convolution(pyramid(features), FILTERS, 3, "fuse")
    x = keras.layers.Dropout(DROPOUT if settings.dropout is None else settings.dropout, name="dropout")(x)
    return keras.Model(image, upsampling.classify(x, num_classes, STRIDE, settings.upsampling), name="pspnet")


def pyramid(features: Any) -> Any:
    """Concatenates features [B, h, w, C] with their averages over regions of four sizes: [B, h, w, 2C]."""
    levels = [features]
    for bins in BINS:
        x = RegionAverages(bins, name=f"pyramid{bins}_averages")(features)
        x = convolution(x, features.shape[-1] // len(BINS), 1, f"pyramid{bins}")
        levels.append(ResizedLike(name=f"pyramid{bins}_resized")((x, features)))
    return keras.layers.Concatenate(name="pyramid")(levels)
