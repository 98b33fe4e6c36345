"""Random variations of a training pair: scale with crop, flip, colour and sharpness.

Every choice comes from the pair's own seed, so a training can be repeated exactly.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from components.errors import UsageError
from trainer import color
from trainer.config import TrainingSettings
from trainer.input_pipeline import Augmentation

# Largest change of brightness, as a share of the full range, and of contrast, as a factor around 1.
BRIGHTNESS = 0.15
CONTRAST = 0.25


def build(settings: TrainingSettings, input_size: tuple[int, int]) -> Augmentation | None:
    """Returns the augmentation that the settings ask for, or None.

    Args:
        settings: `augment`, `crop_size`, `min_scale`, `max_scale`, `color`, `exposure` and `blur`.
        input_size: height and width of the stored images in pixels.

    Raises:
        UsageError: for a crop that the image does not hold.
    """
    crop = settings.crop_size or input_size
    if crop[0] > input_size[0] or crop[1] > input_size[1]:
        raise UsageError(
            f"training.crop_size: found {crop[0]}x{crop[1]}, expected at most the input size, "
            f"{input_size[0]}x{input_size[1]}; make it smaller, or raise size"
        )
    return functools.partial(augment, crop_size=crop, settings=settings) if settings.augment else None


def augment(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, crop_size: tuple[int, int], settings: TrainingSettings
) -> tuple[tf.Tensor, tf.Tensor]:
    """Varies one pair; the mask follows every geometric change of the image exactly.

    Args:
        image: RGB, 0 to 255, float32 [H, W, 3].
        mask: class indices, uint8 [H, W].
        seed: integer [2].
        crop_size: height and width of the result in pixels, at most the image's.
        settings: `min_scale` and `max_scale`, see `scale_and_crop`; `color`, `exposure`, `blur`, see `trainer.color`.

    Returns:
        Image and mask of the crop size, same types.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    image, mask = scale_and_crop(image, mask, seeds[0], crop_size, settings.min_scale, settings.max_scale)
    image, mask = flip(image, mask, seeds[1])
    if settings.color:
        image = color.tint(image, tf.random.experimental.stateless_fold_in(seeds[2], 1), settings.color)
    if settings.exposure > 1:
        image = color.expose(image, tf.random.experimental.stateless_fold_in(seeds[2], 2), settings.exposure)
    image = tf.image.stateless_random_brightness(image, 255 * BRIGHTNESS, seeds[2])
    image = tf.image.stateless_random_contrast(image, 1 - CONTRAST, 1 + CONTRAST, seeds[3])
    if settings.blur:
        image = color.blur(image, tf.random.experimental.stateless_fold_in(seeds[3], 1), settings.blur)
    return tf.clip_by_value(image, 0.0, 255.0), mask


def scale_and_crop(
    image: tf.Tensor,
    mask: tf.Tensor,
    seed: tf.Tensor,
    crop_size: tuple[int, int],
    min_scale: float,
    max_scale: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a random window of a pair, scaled at random: bilinear for the image, nearest for the mask.

    The scale is uniform from `min_scale` to `max_scale`, yet never so small that the window would
    be larger than the image: at the smallest scale it holds all of one side. Cropping before scaling
    gives the same picture as the other way round, for less work.
    """
    height, width = image.shape[0], image.shape[1]
    smallest = max(min_scale, crop_size[0] / height, crop_size[1] / width)
    largest = max(smallest, max_scale)
    share, top, left = tf.unstack(tf.random.stateless_uniform([3], seed))
    scale = smallest + share * (largest - smallest)
    rows = tf.clip_by_value(tf.cast(tf.round(crop_size[0] / scale), tf.int32), 1, height)
    columns = tf.clip_by_value(tf.cast(tf.round(crop_size[1] / scale), tf.int32), 1, width)
    row = tf.cast(tf.floor(top * tf.cast(height - rows + 1, tf.float32)), tf.int32)
    column = tf.cast(tf.floor(left * tf.cast(width - columns + 1, tf.float32)), tf.int32)
    image = image[row : row + rows, column : column + columns]
    mask = mask[row : row + rows, column : column + columns, tf.newaxis]
    # Antialiased, as a window of a large image shrinks.
    image = tf.ensure_shape(tf.image.resize(image, crop_size, antialias=True), [*crop_size, 3])
    mask = tf.ensure_shape(tf.image.resize(mask, crop_size, method="nearest"), [*crop_size, 1])
    return image, mask[..., 0]


def flip(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors a pair left to right, half of the time. Up and down are never exchanged in a street."""
    mirrored = tf.random.stateless_uniform([], seed) < 0.5
    return (
        tf.cond(mirrored, lambda: tf.reverse(image, axis=[1]), lambda: image),
        tf.cond(mirrored, lambda: tf.reverse(mask, axis=[1]), lambda: mask),
    )
