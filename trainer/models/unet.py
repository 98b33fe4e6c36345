"""UNet: four encoder blocks, a bottleneck and four decoder blocks that see the encoder's features again.

Source: Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, with `same` padding, so that the
features of both sides have one size, and with dropout after each pooling and concatenation.
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
# The layer that ends the encoder.
DEEPEST = "bottleneck_relu2"


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `base_filters` of the first block (64 in the source; each level doubles them),
            `dropout` (0.3), `upsampling` (by transposed convolutions), and `normalization`, which puts
            batch normalisation between each convolution and its ReLU (off in the source).
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image = preprocessing.image_input(input_size)
    x = preprocessing.minus_one_to_one(image)
    skips = []
    for level in range(1, LEVELS + 1):
        features, x = encoder_block(x, level, settings)
        skips.append(features)
    x = conv2d_block(x, settings.base_filters * 2**LEVELS, settings.normalization, "bottleneck")
    for level in range(LEVELS, 0, -1):
        x = decoder_block(x, skips[level - 1], level, settings)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 1, name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="unet")


def conv2d_block(x: Any, filters: int, normalization: bool, name: str, convolutions: int = 2) -> Any:
    """Applies 3x3 convolutions, each with a ReLU; height and width stay."""
    # Without normalisation, weights of this variance keep that of the features (section 3 of the source).
    initializer = "glorot_uniform" if normalization else "he_normal"
    for k in range(1, convolutions + 1):
        # Batch normalisation subtracts the mean, so a bias before it could learn nothing.
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=not normalization,
            kernel_initializer=initializer,
            name=f"{name}_conv{k}",
        )(x)
        if normalization:
            x = BatchNormalization(momentum=0.9, name=f"{name}_normalize{k}")(x)
        x = keras.layers.Activation("relu", name=f"{name}_relu{k}")(x)
    return x


def encoder_block(x: Any, level: int, settings: ModelSettings) -> tuple[Any, Any]:
    """Returns a level's features, and the same pooled 2x2 for the next level."""
    filters = settings.base_filters * 2 ** (level - 1)
    features = conv2d_block(x, filters, settings.normalization, f"encoder{level}")
    pooled = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(features)
    return features, keras.layers.Dropout(rate(settings), name=f"encoder{level}_dropout")(pooled)


def decoder_block(x: Any, skip: Any, level: int, settings: ModelSettings) -> Any:
    """Doubles height and width, concatenates the encoder's features of that size and convolves both."""
    filters = settings.base_filters * 2 ** (level - 1)
    x = upsampled(x, filters, settings, f"decoder{level}_up")
    x = keras.layers.Concatenate(name=f"decoder{level}_concatenate")([x, skip])
    x = keras.layers.Dropout(rate(settings), name=f"decoder{level}_dropout")(x)
    return conv2d_block(x, filters, settings.normalization, f"decoder{level}")


def upsampled(x: Any, filters: int, settings: ModelSettings, name: str) -> Any:
    """Doubles height and width: a transposed convolution to so many filters, or interpolation of those there are."""
    if upsampling.interpolates(settings.upsampling):
        return upsampling.interpolate(x, 2, settings.upsampling, name)
    return keras.layers.Conv2DTranspose(filters, 3, strides=2, padding="same", name=name)(x)


def rate(settings: ModelSettings) -> float:
    """Returns the share of features that is dropped."""
    return DROPOUT if settings.dropout is None else settings.dropout


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layers that auxiliary scores can be taken from: the decoder's levels but the last."""
    return tuple(f"decoder{level}_relu2" for level in range(LEVELS, 1, -1))
