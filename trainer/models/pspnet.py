"""PSPNet: a dilated ResNet50 whose features are joined by their averages over whole, halves, thirds and sixths.

Source: Zhao, Shi, Qi, Wang and Jia 2017, arXiv 1612.01105; the first layers are ResNet50's own 7x7
convolution. The softmax is left out: loss and export work on logits.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import dilation, encoders, preprocessing, upsampling
from trainer.models.normalization import convolution
from trainer.models.pyramid import RegionAverages, ResizedLike

STRIDE = 8
ENCODER = "resnet50"
BINS = (1, 2, 3, 6)
FILTERS = 512
DROPOUT = 0.1
# The coarsest level is one place an image: of one image, its batch normalisation would learn nothing.
MIN_BATCH = 2


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `encoder` (ResNet50 in the source), dilated so that its features are an eighth of the
            image; `dropout` before the classes (0.1); `upsampling` of the scores (bilinear).
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    encoder = encoders.chosen(settings, ENCODER)
    image, (features,) = dilation.extract(settings, encoder, input_size, [encoder.deepest], STRIDE)
    x = convolution(pyramid(features), FILTERS, 3, "fuse")
    rate = DROPOUT if settings.dropout is None else settings.dropout
    x = keras.layers.Dropout(rate, name="dropout")(x)
    method = "bilinear" if settings.upsampling == "default" else settings.upsampling
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores")(x)
        logits = upsampling.scores(scores, STRIDE, method, "up_scores")
    return keras.Model(image, preprocessing.float32_logits(logits), name="pspnet")


def pyramid(features: Any) -> Any:
    """Joins features [B, h, w, C] with what each level of the pyramid says of the region around: [B, h, w, 2C]."""
    levels = [features]
    for bins in BINS:
        x = RegionAverages(bins, name=f"pyramid{bins}_averages")(features)
        x = convolution(x, features.shape[-1] // len(BINS), 1, f"pyramid{bins}")
        levels.append(ResizedLike(name=f"pyramid{bins}_resized")((x, features)))
    return keras.layers.Concatenate(name="pyramid")(levels)


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layer that auxiliary scores are taken from in the source: the end of the fourth stage."""
    return (encoders.chosen(settings, ENCODER).features[3],)
