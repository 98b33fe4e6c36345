"""FCN-32: VGG16 with convolutions for dense layers, whose class scores are upsampled 32 times at once.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.2, with `same` padding in
place of a border of 100 pixels that is cropped later. The softmax is left out: loss and export
work on logits.
"""

from __future__ import annotations

import keras

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling
from trainer.models.conv7 import deepest

STRIDE = fcn_encoder.STRIDE


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `dropout` after conv6 and conv7 (0.5 in the source), `upsampling`, `normalization`,
            which adds batch normalisation on the encoder's features, and `encoder`: one other than
            VGG16 has no conv6 and conv7.
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image, (_, _, pool5) = fcn_encoder.build(settings, input_size)
    features = deepest(settings, pool5)
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores_conv7")(features)
        logits = upsampling.scores(scores, 32, settings.upsampling, "up_conv7")
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn32")
