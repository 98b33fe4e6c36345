"""Random variations of a training pair: enlargement with crop, flip, brightness and contrast.

Every choice comes from the pair's own seed, so a training can be repeated exactly.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from trainer.config import TrainingSettings
from trainer.input_pipeline import Augmentation

# Largest change of brightness, as a share of the full range, and of contrast, as a factor around 1.
BRIGHTNESS = 0.15
CONTRAST = 0.25


def build(settings: TrainingSettings) -> Augmentation | None:
    """Returns the augmentation that the settings ask for, or None."""
    return functools.partial(augment, max_scale=settings.max_scale) if settings.augment else None


def augment(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, max_scale: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Varies one pair; the mask follows every geometric change of the image exactly.

    Args:
        image: RGB, 0 to 255, float32 [H, W, 3].
        mask: class indices, uint8 [H, W].
        seed: integer [2].
        max_scale: largest enlargement, at least 1.

    Returns:
        Image and mask, same shapes and types.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    image, mask = scale_and_crop(image, mask, seeds[0], max_scale)
    image, mask = flip(image, mask, seeds[1])
    image = tf.image.stateless_random_brightness(image, 255 * BRIGHTNESS, seeds[2])
    image = tf.image.stateless_random_contrast(image, 1 - CONTRAST, 1 + CONTRAST, seeds[3])
    return tf.clip_by_value(image, 0.0, 255.0), mask


def scale_and_crop(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, max_scale: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Enlarges a random window of a pair to the full size: bilinear for the image, nearest for the mask.

    Cropping before enlarging gives the same picture as the other way round, for less work.
    """
    height, width = image.shape[0], image.shape[1]
    scale, top, left = tf.unstack(tf.random.stateless_uniform([3], seed))
    share = 1 / (1 + scale * (max_scale - 1))
    rows = tf.cast(tf.round(height * share), tf.int32)
    columns = tf.cast(tf.round(width * share), tf.int32)
    row = tf.cast(tf.floor(top * tf.cast(height - rows + 1, tf.float32)), tf.int32)
    column = tf.cast(tf.floor(left * tf.cast(width - columns + 1, tf.float32)), tf.int32)
    image = image[row : row + rows, column : column + columns]
    mask = mask[row : row + rows, column : column + columns, tf.newaxis]
    image = tf.ensure_shape(tf.image.resize(image, (height, width)), [height, width, 3])
    mask = tf.ensure_shape(tf.image.resize(mask, (height, width), method="nearest"), [height, width, 1])
    return image, mask[..., 0]


def flip(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors a pair left to right, half of the time. Up and down are never exchanged in a street."""
    mirrored = tf.random.stateless_uniform([], seed) < 0.5
    return (
        tf.cond(mirrored, lambda: tf.reverse(image, axis=[1]), lambda: image),
        tf.cond(mirrored, lambda: tf.reverse(mask, axis=[1]), lambda: mask),
    )
