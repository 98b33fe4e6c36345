"""SegFormer-B0: MiT-B0, whose features of four strides are projected, upsampled, fused and classified.

Source: Xie et al. 2021, arXiv 2105.15203, section 3.2, without softmax.
"""

from __future__ import annotations

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing, upsampling
from trainer.models.normalization import convolution

STRIDE = 32
FILTERS = 256
DROPOUT = 0.1


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `dropout` before the classes (0.1) and `upsampling` of the scores (bilinear).
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings)
    features = encoders.extract(encoder, encoders.pixels(settings)(image), encoder.features[1:])
    levels = []
    for level, x in enumerate(features, 1):
        x = keras.layers.Conv2D(FILTERS, 1, name=f"level{level}")(x)
        if level > 1:
            x = upsampling.interpolate(x, 2 ** (level - 1), "bilinear", f"level{level}_up")
        levels.append(x)
    x = keras.layers.Concatenate(name="levels")(levels[::-1])
    x = convolution(x, FILTERS, 1, "fuse")
    x = keras.layers.Dropout(DROPOUT if settings.dropout is None else settings.dropout, name="dropout")(x)
    return keras.Model(image, upsampling.classify(x, num_classes, 4, settings.upsampling), name="segformer")
