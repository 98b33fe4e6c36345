"""UNet's decoder on an encoder that others have trained: the features of each stride are the skips.

Sources: the decoder of Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, on a pretrained network
as Iglovikov and Shvets 2018, arXiv 1801.05746, have it. The last level has one convolution, because
it costs the most.
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
    """Builds the network.

    Args:
        settings: `encoder`; `base_filters` of the decoder at the image's size, doubled by each halving
            up to 16 times; `upsampling` (by transposed convolutions); `dropout` after each
            concatenation; `normalization`, which puts batch normalisation on each skip and between
            each convolution of the decoder and its ReLU.
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings, settings.encoder)
    names = [name for name in encoder.skips if name is not None]
    *skips, x = encoders.extract(encoder, encoders.pixels(settings, encoder)(image), [*names, encoder.features[-1]])
    x = unet.conv2d_block(
        _normalized(x, settings, "normalize_deepest"), _filters(LEVELS, settings), settings.normalization, "head", 1
    )
    for level in range(LEVELS, 0, -1):
        # Most encoders begin with a stride of 2 or 4 and have no features of the larger sizes.
        skip = skips.pop() if skips else None
        x = decoder_block(x, skip, level, settings)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="unet")


def decoder_block(x: Any, skip: Any | None, level: int, settings: ModelSettings) -> Any:
    """Doubles height and width, concatenates the encoder's features of that size, if any, and convolves both."""
    filters = _filters(level, settings)
    x = unet.upsampled(x, filters, settings, f"decoder{level}_up")
    if skip is not None:
        skip = _normalized(skip, settings, f"normalize_skip{level}")
        x = keras.layers.Concatenate(name=f"decoder{level}_concatenate")([x, skip])
    x = keras.layers.Dropout(unet.rate(settings), name=f"decoder{level}_dropout")(x)
    return unet.conv2d_block(x, filters, settings.normalization, f"decoder{level}", 2 if level > 1 else 1)


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layers that auxiliary scores can be taken from: the decoder's levels but the last."""
    return tuple(f"decoder{level}_relu2" for level in range(LEVELS, 1, -1))


def _filters(level: int, settings: ModelSettings) -> int:
    return settings.base_filters * 2 ** (level - 1)


def _normalized(features: Any, settings: ModelSettings, name: str) -> Any:
    if not settings.normalization:
        return features
    return BatchNormalization(momentum=0.9, name=name)(features)
