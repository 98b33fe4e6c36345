"""FCN-8: a VGG16 encoder whose pool5 is upsampled in three steps, with skips from pool4 and pool3.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, in the form that decodes pool5 directly, without conv6 and
conv7, and without softmax.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling
from trainer.models.fcn_encoder import skip
from trainer.models.upsampling import Interpolation


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder` (VGG16 in the paper), `normalization` of pool3, pool4 and pool5, `head_filters` of a 3x3 ReLU
    convolution on pool5 (0 for none) and `upsampling`: transposed convolutions, or interpolation.
    """
    image, (pool3, pool4, pool5) = fcn_encoder.build(settings, input_size)
    if settings.head_filters:
        pool5 = layers.Conv2D(settings.head_filters, 3, activation="relu", padding="same", name="head")(pool5)
    with preprocessing.scores_policy():
        if upsampling.interpolates(settings.upsampling):
            logits = _interpolating_decoder(pool3, pool4, pool5, num_classes, settings.upsampling)
        else:
            logits = _transposed_decoder(pool3, pool4, pool5, num_classes)
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn8")


def _transposed_decoder(pool3: Any, pool4: Any, pool5: Any, num_classes: int) -> Any:
    """Upsamples pool5 [B, H/32, W/32, C] by 2, 2 and 8, adding pool4 and pool3: logits [B, H, W, num_classes]."""
    x = layers.Conv2DTranspose(num_classes, 4, strides=2, use_bias=False, name="up_pool5")(pool5)
    x = layers.Cropping2D(1, name="crop_pool5")(x)
    x = layers.Add(name="add_pool4")([x, skip(pool4, num_classes, "skip_pool4")])
    x = layers.Conv2DTranspose(num_classes, 4, strides=2, kernel_initializer=Interpolation(2), name="up_pool4")(x)
    x = layers.Cropping2D(1, name="crop_pool4")(x)
    x = layers.Add(name="add_pool3")([x, skip(pool3, num_classes, "skip_pool3")])
    return layers.Conv2DTranspose(num_classes, 8, strides=8, kernel_initializer=Interpolation(8), name="up_pool3")(x)


def _interpolating_decoder(pool3: Any, pool4: Any, pool5: Any, num_classes: int, method: str) -> Any:
    """Classifies each pool linearly, and upsamples the scores by interpolation only.

    The last layer of `_transposed_decoder` writes 8x8 blocks without overlap, which cannot follow an edge inside.
    """
    x = layers.Conv2D(num_classes, 1, name="scores_pool5")(pool5)
    x = upsampling.interpolate(x, 2, method, "up_pool5")
    x = layers.Add(name="add_pool4")([x, layers.Conv2D(num_classes, 1, name="scores_pool4")(pool4)])
    x = upsampling.interpolate(x, 2, method, "up_pool4")
    x = layers.Add(name="add_pool3")([x, layers.Conv2D(num_classes, 1, name="scores_pool3")(pool3)])
    return upsampling.interpolate(x, 8, method, "up_pool3")
