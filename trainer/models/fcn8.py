"""FCN-8: a VGG16 encoder whose pool5 is upsampled in three steps, with skips from pool4 and pool3.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, in the form that decodes pool5 directly,
without conv6 and conv7. The softmax is left out: loss and export work on logits.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling
from trainer.models.upsampling import Interpolation

STRIDE = fcn_encoder.STRIDE


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `normalization` adds batch normalisation on pool3, pool4 and pool5; `head_filters`
            a 3x3 ReLU convolution on pool5; `upsampling` "nearest" or "bilinear" puts interpolation in
            place of the decoder's transposed convolutions; `encoder` another network in place of VGG16.
            All default to the source's network.
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image, (pool3, pool4, pool5) = fcn_encoder.build(settings, input_size)
    if settings.head_filters:
        head = keras.layers.Conv2D(settings.head_filters, 3, activation="relu", padding="same", name="head")
        pool5 = head(pool5)
    with preprocessing.scores_policy():
        if upsampling.interpolates(settings.upsampling):
            logits = interpolating_decoder(pool3, pool4, pool5, num_classes, settings.upsampling)
        else:
            logits = decoder(pool3, pool4, pool5, num_classes)
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn8")


def decoder(pool3: Any, pool4: Any, pool5: Any, num_classes: int) -> Any:
    """Upsamples pool5 [B, H/32, W/32, C] by 2, 2 and 8, adding pool4 and pool3: logits [B, H, W, num_classes]."""
    x = keras.layers.Conv2DTranspose(num_classes, 4, strides=2, use_bias=False, name="up_pool5")(pool5)
    x = keras.layers.Cropping2D(1, name="crop_pool5")(x)
    x = keras.layers.Add(name="add_pool4")([x, _skip(pool4, num_classes, "skip_pool4")])
    x = keras.layers.Conv2DTranspose(num_classes, 4, strides=2, kernel_initializer=Interpolation(2), name="up_pool4")(x)
    x = keras.layers.Cropping2D(1, name="crop_pool4")(x)
    x = keras.layers.Add(name="add_pool3")([x, _skip(pool3, num_classes, "skip_pool3")])
    up_pool3 = keras.layers.Conv2DTranspose(
        num_classes, 8, strides=8, kernel_initializer=Interpolation(8), name="up_pool3"
    )
    return up_pool3(x)


def interpolating_decoder(pool3: Any, pool4: Any, pool5: Any, num_classes: int, method: str) -> Any:
    """Does what `decoder` does with class scores of each pool, linear, that only interpolation enlarges.

    A block of 8x8 pixels without overlap, the last layer of `decoder`, cannot follow an edge inside the block.
    """
    x = upsampling.interpolate(_scores(pool5, num_classes, "scores_pool5"), 2, method, "up_pool5")
    x = keras.layers.Add(name="add_pool4")([x, _scores(pool4, num_classes, "scores_pool4")])
    x = upsampling.interpolate(x, 2, method, "up_pool4")
    x = keras.layers.Add(name="add_pool3")([x, _scores(pool3, num_classes, "scores_pool3")])
    return upsampling.interpolate(x, 8, method, "up_pool3")


def _scores(pool: Any, num_classes: int, name: str) -> Any:
    return keras.layers.Conv2D(num_classes, 1, name=name)(pool)


def _skip(pool: Any, num_classes: int, name: str) -> Any:
    return keras.layers.Conv2D(num_classes, 1, activation="relu", padding="same", name=name)(pool)
