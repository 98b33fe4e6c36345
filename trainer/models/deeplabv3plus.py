"""DeepLabV3+: dilated convolutions of several rates on a dilated encoder, and a decoder that sees its finer features.

Source: Chen, Zhu, Papandreou, Schroff and Adam 2018, arXiv 1802.02611, in the form for ResNet: output stride 16, and
plain convolutions where the form for Xception has separable ones. The softmax is left out: loss and export work on
logits.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import dilation, encoders, preprocessing, upsampling
from trainer.models.normalization import convolution
from trainer.models.pyramid import RegionAverages, ResizedLike

STRIDE = 16
ENCODER = "resnet50"
# Of the 3x3 convolutions, for output stride 16.
RATES = (6, 12, 18)
FILTERS = 256
# Of the encoder's features at stride 4: more would outweigh those of the pyramid.
FINE_FILTERS = 48
# The paper names none; this is the one of its code, as keep_prob 0.9: research/deeplab/model.py of tensorflow/models.
DROPOUT = 0.1
# The average of an image is one place: of one image, its batch normalisation would learn nothing.
MIN_BATCH = 2


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `encoder` (ResNet50, the smaller of the source's ResNets), dilated so that its features are a
            sixteenth of the image; `dropout` on the pyramid (0.1); `upsampling` of the scores (bilinear).
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    encoder = encoders.chosen(settings, ENCODER)
    layers = [encoder.features[1], encoder.deepest]
    image, (fine, features) = dilation.extract(settings, encoder, input_size, layers, STRIDE)
    x = convolution(pyramid(features), FILTERS, 1, "pyramid")
    x = keras.layers.Dropout(DROPOUT if settings.dropout is None else settings.dropout, name="dropout")(x)
    x = upsampling.interpolate(x, 4, "bilinear", "pyramid_up")
    x = keras.layers.Concatenate(name="decoder")([x, convolution(fine, FINE_FILTERS, 1, "fine")])
    for k in (1, 2):
        x = convolution(x, FILTERS, 3, f"decoder{k}")
    method = "bilinear" if settings.upsampling == "default" else settings.upsampling
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores")(x)
        logits = upsampling.scores(scores, 4, method, "up_scores")
    return keras.Model(image, preprocessing.float32_logits(logits), name="deeplabv3plus")


def pyramid(features: Any) -> Any:
    """Joins features [B, h, w, C] convolved at each rate with their average over the image: [B, h, w, 5 * FILTERS]."""
    average = convolution(RegionAverages(1, name="average")(features), FILTERS, 1, "average")
    return keras.layers.Concatenate(name="levels")(
        [
            convolution(features, FILTERS, 1, "rate1"),
            *(convolution(features, FILTERS, 3, f"rate{rate}", rate) for rate in RATES),
            ResizedLike(name="average_resized")((average, features)),
        ]
    )


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layer that auxiliary scores can be taken from: the end of the encoder's fourth stage."""
    return (encoders.chosen(settings, ENCODER).features[3],)
