"""DeepLabV3+: dilated convolutions of several rates on a dilated encoder, and a decoder with a skip from stride 4.

Source: Chen, Zhu, Papandreou, Schroff and Adam 2018, arXiv 1802.02611, in the form for ResNet: output stride 16, and
plain convolutions where the form for Xception has separable ones. Without softmax.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import dilation, encoders, upsampling
from trainer.models.normalization import convolution
from trainer.models.pyramid import RegionAverages, ResizedLike

STRIDE = 16
# Of the 3x3 convolutions, for output stride 16.
RATES = (6, 12, 18)
FILTERS = 256
# Of the encoder's features at stride 4: more would outweigh those of the pyramid.
FINE_FILTERS = 48
# Not in the paper; its code has keep_prob 0.9: research/deeplab/model.py of tensorflow/models.
DROPOUT = 0.1


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder` (ResNet50, the smaller of the paper's ResNets), dilated to an output stride of 16, `dropout` on
    the pyramid (0.1) and `upsampling` of the scores (bilinear).
    """
    encoder = encoders.chosen(settings)
    layers = [encoder.features[1], encoder.deepest]
    image, (fine, features) = dilation.extract(settings, encoder, input_size, layers, STRIDE)
    x = convolution(pyramid(features), FILTERS, 1, "pyramid")
    x = keras.layers.Dropout(DROPOUT if settings.dropout is None else settings.dropout, name="dropout")(x)
    x = upsampling.interpolate(x, 4, "bilinear", "pyramid_up")
    x = keras.layers.Concatenate(name="decoder")([x, convolution(fine, FINE_FILTERS, 1, "fine")])
    for k in (1, 2):
        x = convolution(x, FILTERS, 3, f"decoder{k}")
    return keras.Model(image, upsampling.classify(x, num_classes, 4, settings.upsampling), name="deeplabv3plus")


def pyramid(features: Any) -> Any:
    """Concatenates convolutions of features [B, h, w, C] at each rate and their average: [B, h, w, 5 * FILTERS]."""
    average = convolution(RegionAverages(1, name="average")(features), FILTERS, 1, "average")
    return keras.layers.Concatenate(name="levels")(
        [
            convolution(features, FILTERS, 1, "rate1"),
            *(convolution(features, FILTERS, 3, f"rate{rate}", rate) for rate in RATES),
            ResizedLike(name="average_resized")((average, features)),
        ]
    )
