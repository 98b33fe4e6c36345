"""FCN-8 with conv6 and conv7: the scores of three depths are brought to pool3's size and summed once.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, in the form that sums all skips at once
and upsamples the sum 8 times, without overlap or bias. The softmax is left out: loss and export
work on logits.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling
from trainer.models.conv7 import conv7
from trainer.models.upsampling import Interpolation

STRIDE = fcn_encoder.STRIDE


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `upsampling`, and `normalization`, which adds batch normalisation on the encoder's
            features.
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image, (pool3, pool4, pool5) = fcn_encoder.build(settings, input_size)
    method = settings.upsampling
    features = conv7(pool5, dropout=0)
    with preprocessing.scores_policy():
        deep = _upsample(features, num_classes, 4, method, "conv7")
        middle = _upsample(_skip(pool4, num_classes, "pool4_conv"), num_classes, 2, method, "pool4")
        shallow = _skip(pool3, num_classes, "pool3_conv")
        scores = keras.layers.Add(name="add")([middle, shallow, deep])
        logits = _upsample(scores, num_classes, 8, method, "sum")
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn8_conv7")


def _skip(pool: Any, num_classes: int, name: str) -> Any:
    return keras.layers.Conv2D(num_classes, 1, activation="relu", padding="same", name=name)(pool)


def _upsample(x: Any, num_classes: int, factor: int, method: str, name: str) -> Any:
    """Brings features or scores to class scores of `factor` times their size."""
    if upsampling.interpolates(method):
        if x.shape[-1] != num_classes:
            x = keras.layers.Conv2D(num_classes, 1, name=f"scores_{name}")(x)
        return upsampling.interpolate(x, factor, method, f"up_{name}")
    initializer = Interpolation(factor) if x.shape[-1] == num_classes else "glorot_uniform"
    layer = keras.layers.Conv2DTranspose(
        num_classes, factor, strides=factor, use_bias=False, kernel_initializer=initializer, name=f"up_{name}"
    )
    return layer(x)
