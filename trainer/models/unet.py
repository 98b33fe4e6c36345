"""UNet: four encoder blocks, a bottleneck and four decoder blocks with skips from the encoder.

Source: Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, with `same` padding, so that skips need no cropping, and
with dropout after each pooling and concatenation.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import preprocessing, upsampling
from trainer.models.normalization import BatchNormalization

STRIDE = 16
DROPOUT = 0.3
LEVELS = 4
# The last layer of the encoder.
DEEPEST = "bottleneck_relu2"


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `base_filters` of the first block (64 in the paper; each level doubles them), `dropout` (0.3),
    `upsampling` (transposed convolutions) and `normalization` between each convolution and its ReLU (off in the paper).
    """
    image = preprocessing.image_input(input_size)
    x = preprocessing.minus_one_to_one(image)
    skips = []
    for level in range(1, LEVELS + 1):
        skip = conv2d_block(x, settings.base_filters * 2 ** (level - 1), settings.normalization, f"encoder{level}")
        x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(skip)
        x = keras.layers.Dropout(dropout(settings), name=f"encoder{level}_dropout")(x)
        skips.append(skip)
    x = conv2d_block(x, settings.base_filters * 2**LEVELS, settings.normalization, "bottleneck")
    for level in range(LEVELS, 0, -1):
        x = decoder_block(x, skips[level - 1], level, settings)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="unet")


def conv2d_block(x: Any, filters: int, normalization: bool, name: str, convolutions: int = 2) -> Any:
    """Applies 3x3 convolutions, each with a ReLU; keeps height and width."""
    # Without normalisation, He initialisation keeps the variance of the features (section 3 of the paper).
    initializer = "glorot_uniform" if normalization else "he_normal"
    for k in range(1, convolutions + 1):
        # Batch normalisation subtracts the mean, so a bias before it would have no effect.
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=not normalization,
            kernel_initializer=initializer,
            name=f"{name}_conv{k}",
        )(x)
        if normalization:
            x = BatchNormalization(name=f"{name}_normalize{k}")(x)
        x = keras.layers.Activation("relu", name=f"{name}_relu{k}")(x)
    return x


def decoder_block(x: Any, skip: Any | None, level: int, settings: ModelSettings, convolutions: int = 2) -> Any:
    """Doubles height and width, concatenates the encoder's features of that size, if any, and convolves."""
    filters, name = settings.base_filters * 2 ** (level - 1), f"decoder{level}"
    if upsampling.interpolates(settings.upsampling):
        x = upsampling.interpolate(x, 2, settings.upsampling, f"{name}_up")
    else:
        x = keras.layers.Conv2DTranspose(filters, 3, strides=2, padding="same", name=f"{name}_up")(x)
    if skip is not None:
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([x, skip])
    x = keras.layers.Dropout(dropout(settings), name=f"{name}_dropout")(x)
    return conv2d_block(x, filters, settings.normalization, name, convolutions)


def dropout(settings: ModelSettings) -> float:
    """Returns the dropout rate."""
    return DROPOUT if settings.dropout is None else settings.dropout


def deep_layers(levels: int) -> tuple[str, ...]:
    """Returns the last layers of a decoder's levels, deepest first, without the last level."""
    return tuple(f"decoder{level}_relu2" for level in range(levels, 1, -1))
