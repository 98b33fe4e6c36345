"""What the members of the FCN family share: VGG16 with the pixels it was trained on, and its pools."""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import preprocessing, vgg16

# pool5 is a 32nd of the image.
STRIDE = 32


def build(settings: ModelSettings, input_size: tuple[int | None, int | None]) -> tuple[Any, list[Any]]:
    """Returns the image input, RGB, 0 to 255, [B, H, W, 3], and pool3, pool4 and pool5.

    Args:
        settings: a pretrained encoder gets the pixels it was trained on (BGR minus ImageNet's mean),
            a new one -1 to 1; `normalization` puts batch normalisation on the pools.
        input_size: height and width in pixels; None where any that `STRIDE` divides may come.
    """
    image = preprocessing.image_input(input_size)
    pretrained = settings.encoder_weights != "none"
    prepare = preprocessing.bgr_minus_imagenet_mean if pretrained else preprocessing.minus_one_to_one
    pools = vgg16.encoder(prepare(image))[2:]
    if settings.normalization:
        pools = [
            keras.layers.BatchNormalization(momentum=0.9, name=f"normalize_pool{index}")(pool)
            for index, pool in enumerate(pools, 3)
        ]
    return image, pools
