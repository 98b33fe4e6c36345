"""FCN-8 with conv6 and conv7: scores of three depths, upsampled to pool3's size and added in one step.

Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, in the form that adds all skips at once and upsamples the
sum by 8, without overlap, bias or softmax.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import fcn_encoder, preprocessing, upsampling
from trainer.models.fcn_encoder import skip
from trainer.models.upsampling import Interpolation


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `normalization` of the encoder's features and `upsampling` (transposed convolutions).
    """
    image, (pool3, pool4, pool5) = fcn_encoder.build(settings, input_size)
    method = settings.upsampling
    features = fcn_encoder.conv7(pool5, dropout=0)
    with preprocessing.scores_policy():
        deep = _upsampled_scores(features, num_classes, 4, method, "conv7")
        middle = _upsampled_scores(skip(pool4, num_classes, "pool4_conv"), num_classes, 2, method, "pool4")
        shallow = skip(pool3, num_classes, "pool3_conv")
        scores = keras.layers.Add(name="add")([middle, shallow, deep])
        logits = _upsampled_scores(scores, num_classes, 8, method, "sum")
    return keras.Model(image, preprocessing.float32_logits(logits), name="fcn8_conv7")


def _upsampled_scores(x: Any, num_classes: int, factor: int, method: str, name: str) -> Any:
    """Turns features or scores into class scores of `factor` times their height and width."""
    if upsampling.interpolates(method):
        if x.shape[-1] != num_classes:
            x = keras.layers.Conv2D(num_classes, 1, name=f"scores_{name}")(x)
        return upsampling.interpolate(x, factor, method, f"up_{name}")
    initializer = Interpolation(factor) if x.shape[-1] == num_classes else "glorot_uniform"
    layer = keras.layers.Conv2DTranspose(
        num_classes, factor, strides=factor, use_bias=False, kernel_initializer=initializer, name=f"up_{name}"
    )
    return layer(x)
