"""FCN-32: VGG16 with convolutions for its dense layers, and class scores that are upsampled by 32.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.2, without softmax, and with `same` padding instead
of a border of 100 pixels that is cropped later.
"""

from __future__ import annotations

import keras

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder` (VGG16 in the paper), `normalization` of its features, `dropout` after conv6 and conv7 of VGG16
    (0.5) and `upsampling` (transposed convolutions).
    """
    image, (_, _, pool5) = fcn_encoder.build(settings, input_size)
    features = fcn_encoder.classified_features(settings, pool5)
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores_conv7")(features)
        logits = upsampling.scores(scores, 32, settings.upsampling, "up_conv7")
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn32")
