"""SegFormer-B0: MiT-B0, whose features of four sizes one perceptron each and one for all turn into class scores.

Source: Xie et al. 2021, arXiv 2105.15203, section 3.2. The softmax is left out: loss and export work on logits.
"""

from __future__ import annotations

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing, upsampling
from trainer.models.normalization import convolution

STRIDE = 32
ENCODER = "mit_b0"
FILTERS = 256
DROPOUT = 0.1


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `dropout` before the classes (0.1); `upsampling` of the scores (bilinear).
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings, ENCODER)
    levels = encoders.extract(encoder, encoders.pixels(settings, encoder)(image), encoder.features[1:])
    grown = []
    for level, x in enumerate(levels, 1):
        x = keras.layers.Conv2D(FILTERS, 1, name=f"level{level}")(x)
        if level > 1:
            x = upsampling.interpolate(x, 2 ** (level - 1), "bilinear", f"level{level}_up")
        grown.append(x)
    x = keras.layers.Concatenate(name="levels")(grown[::-1])
    x = convolution(x, FILTERS, 1, "fuse")
    x = keras.layers.Dropout(DROPOUT if settings.dropout is None else settings.dropout, name="dropout")(x)
    method = "bilinear" if settings.upsampling == "default" else settings.upsampling
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores")(x)
        logits = upsampling.scores(scores, 4, method, "up_scores")
    return keras.Model(image, preprocessing.float32_logits(logits), name="segformer")


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layer that auxiliary scores can be taken from: the end of the encoder's third stage."""
    return (encoders.chosen(settings, ENCODER).features[3],)
