"""UNet's decoder on an encoder of `encoders`, whose features of each stride are the skips.

Sources: the decoder of Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, on a pretrained network as in Iglovikov
and Shvets 2018, arXiv 1801.05746. The last level has one convolution only, because it is the most expensive.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing, unet
from trainer.models.normalization import BatchNormalization

STRIDE = 32
LEVELS = 5


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder`; `base_filters` of the decoder at the image's size, doubled at each halving up to 16 times;
    `upsampling` (transposed convolutions); `dropout` after each concatenation (0.3); `normalization` on each
    skip, and between each convolution of the decoder and its ReLU.
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings)
    names = [name for name in encoder.skips if name is not None]
    *skips, x = encoders.extract(encoder, encoders.pixels(settings)(image), [*names, encoder.features[-1]])
    x = _normalized(x, settings, "normalize_deepest")
    x = unet.conv2d_block(x, settings.base_filters * 2 ** (LEVELS - 1), settings.normalization, "head", 1)
    for level in range(LEVELS, 0, -1):
        # Most encoders start with a stride of 2 or 4, without features of the larger sizes.
        skip = _normalized(skips.pop(), settings, f"normalize_skip{level}") if skips else None
        x = unet.decoder_block(x, skip, level, settings, convolutions=2 if level > 1 else 1)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="unet")


def _normalized(features: Any, settings: ModelSettings, name: str) -> Any:
    return BatchNormalization(name=name)(features) if settings.normalization else features
