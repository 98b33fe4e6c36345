"""FCN-16: FCN-32 whose scores are upsampled by 2, added to those of pool4, and upsampled by 16.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.2, with `same` padding and without softmax.
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
    image, (_, pool4, pool5) = fcn_encoder.build(settings, input_size)
    features = fcn_encoder.classified_features(settings, pool5)
    with preprocessing.scores_policy():
        scores = keras.layers.Conv2D(num_classes, 1, name="scores_conv7")(features)
        scores = upsampling.scores(scores, 2, settings.upsampling, "up_conv7")
        # The skip's scores start at zero, so that training starts as FCN-32: section 4.2 of the paper.
        skip = keras.layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name="scores_pool4")(pool4)
        scores = keras.layers.Add(name="add_pool4")([scores, skip])
        logits = upsampling.scores(scores, 16, settings.upsampling, "up_pool4")
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn16")
