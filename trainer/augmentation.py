"""Random variations of a training batch: scale with crop, flip, colour and sharpness.

They run on the device, inside the compiled training step. Every choice comes from the batch's seed, so a training can
be repeated exactly, with XLA or without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from components.errors import UsageError
from trainer import color, resampling
from trainer.config import TrainingSettings

# Images, RGB 0 to 255, uint8 or float32 [B, H, W, 3], masks, uint8 [B, H, W] or [B, H, W, M], and seed, int64 [2] ->
# images, float32 [B, h, w, 3], and masks, int32 [B, h, w] or [B, h, w, M]. All sizes but B are static; XLA needs B too.
Augmentation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def build(settings: TrainingSettings, input_size: tuple[int, int], depth: bool = False) -> Augmentation | None:
    """Returns the augmentation that the settings ask for, or None.

    Args:
        settings: `augment`, `crop_size`, `min_scale` and `max_scale`.
        input_size: height and width of the stored images in pixels.
        depth: whether the masks hold depth, see `scale_and_crop`.

    Raises:
        UsageError: for a crop that the image does not hold.
    """
    crop = settings.crop_size or input_size
    if crop[0] > input_size[0] or crop[1] > input_size[1]:
        raise UsageError(
            f"training.crop_size: found {crop[0]}x{crop[1]}, expected at most the input size, "
            f"{input_size[0]}x{input_size[1]}; make it smaller, or raise size"
        )
    return functools.partial(augment, crop_size=crop, settings=settings, depth=depth) if settings.augment else None


def augment(
    images: tf.Tensor,
    masks: tf.Tensor,
    seed: tf.Tensor,
    crop_size: tuple[int, int],
    settings: TrainingSettings,
    depth: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Varies a batch, each pair by itself; a mask follows every geometric change of its image exactly.

    Args:
        images: RGB, 0 to 255, uint8 or float32 [B, H, W, 3].
        masks: class indices, uint8 [B, H, W]; with depth as `scale_and_crop` has them.
        seed: integer [2].
        crop_size: height and width of the result in pixels, at most the images'.
        settings: `min_scale` and `max_scale`, see `scale_and_crop`.
        depth: whether the masks hold depth.

    Returns:
        Images, 0 to 255, float32 [B, *crop_size, 3], and masks, int32 [B, *crop_size, ...].
    """
    seeds = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    scales = settings.min_scale, settings.max_scale
    images, masks = scale_and_crop(images, masks, seeds[0], crop_size, *scales, depth=depth)
    images = color.jitter(images, seeds[1])
    return tf.clip_by_value(images, 0.0, 255.0), masks


def scale_and_crop(
    images: tf.Tensor,
    masks: tf.Tensor,
    seed: tf.Tensor,
    crop_size: tuple[int, int],
    min_scale: float,
    max_scale: float,
    flip: float = 0.5,
    depth: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a random window of each pair, scaled and mirrored at random.

    The scale is uniform from `min_scale` to `max_scale`, yet never so small that the window would be larger than the
    image: at the smallest scale it holds all of one side. The window lies anywhere; its borders may cross pixels.
    Left and right are exchanged with the probability `flip`. Up and down are never exchanged.

    What is enlarged looks nearer, so depth is divided by the scale (Eigen et al. 2014, arXiv 1406.2283, section 3.4).

    Args:
        images: uint8 or float32 [B, H, W, 3].
        masks: class indices, uint8 or int32 [B, H, W]; with depth, class indices and depth, uint16 [B, H, W, 2].
        seed: integer [2].
        crop_size: height and width of the result in pixels, at most H and W.
        min_scale: smallest scale, above 0.
        max_scale: largest scale.
        flip: probability of mirroring.
        depth: whether the masks hold depth.

    Returns:
        Images, interpolated, float32 [B, *crop_size, 3], and masks, nearest, int32 [B, *crop_size, ...].
    """
    height, width = images.shape[1:3]
    smallest = max(min_scale, crop_size[0] / height, crop_size[1] / width)
    largest = max(smallest, max_scale)
    zoom, top, left, side = color.uniform(4, images, seed)
    scale = smallest + zoom * (largest - smallest)
    # Rounding must not lead beyond the image.
    extents = tf.minimum(crop_size[0] / scale, height), tf.minimum(crop_size[1] / scale, width)
    top, left = top * (height - extents[0]), left * (width - extents[1])
    right, mirrored = left + extents[1], side < flip
    rows = top, top + extents[0]
    columns = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    masks = resampling.nearest(masks, rows, columns, crop_size)
    if depth:
        # As float32, because TensorFlow computes int32 on the CPU.
        factors = tf.stack([tf.ones_like(scale), 1 / scale], axis=-1)[:, tf.newaxis, tf.newaxis]
        masks = tf.cast(tf.round(tf.cast(masks, tf.float32) * factors), tf.int32)
    return resampling.linear(images, rows, columns, crop_size, largest_step=1 / smallest), masks
