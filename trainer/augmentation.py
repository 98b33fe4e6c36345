"""Random augmentation of training batches: scale, crop, flip, brightness and contrast.

Runs on the device, inside the compiled training step. All randomness comes from the batch's seed, so a training can be
repeated exactly, with or without XLA.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from components.errors import UsageError
from trainer import color, resampling
from trainer.config import TrainingSettings

# Augments each pair of a batch separately; masks get exactly the geometric changes of their images.
# Images, RGB 0 to 255, uint8 or float32 [B, H, W, 3], masks, uint8 [B, H, W] or [B, H, W, M], and seed, int64 [2] ->
# images, float32 [B, h, w, 3], and masks, int32 [B, h, w] or [B, h, w, M]. All sizes but B are static; XLA needs B too.
Augmentation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def build(settings: TrainingSettings, input_size: tuple[int, int], depth: bool = False) -> Augmentation | None:
    """Returns the augmentation of the settings, or None.

    Args:
        settings: `augment`, `crop_size`, `min_scale` and `max_scale`.
        input_size: height and width of the stored images in pixels.
        depth: whether the masks contain depth, see `scale_and_crop`.

    Raises:
        UsageError: the crop is larger than the image.
    """
    crop = settings.crop_size or input_size
    if crop[0] > input_size[0] or crop[1] > input_size[1]:
        raise UsageError(
            f"training.crop_size: found {crop[0]}x{crop[1]}, expected at most the input size, "
            f"{input_size[0]}x{input_size[1]}; make it smaller, or raise size"
        )
    if not settings.augment:
        return None

    def augment(images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.unstack(tf.random.split(seed, 2, alg="philox"))
        scales = settings.min_scale, settings.max_scale
        images, masks = scale_and_crop(images, masks, seeds[0], crop, *scales, depth=depth)
        return tf.clip_by_value(color.jitter(images, seeds[1]), 0.0, 255.0), masks

    return augment


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
    """Cuts a random window out of each pair, scaled and mirrored at random.

    The scale is uniform from `min_scale` to `max_scale`, but never so small that the window would be larger than the
    image. The window may be anywhere, also between pixels. It is mirrored left to right with the probability `flip`,
    and never upside down.

    What is enlarged looks nearer, so depth is divided by the scale (Eigen et al. 2014, arXiv 1406.2283, section 3.4).

    Args:
        images: uint8 or float32 [B, H, W, 3].
        masks: class indices, uint8 or int32 [B, H, W]; with depth, class indices and depth, uint16 [B, H, W, 2].
        seed: integer [2].
        crop_size: height and width of the result in pixels, at most H and W.
        min_scale: smallest scale, above 0.
        max_scale: largest scale.
        flip: probability of mirroring.
        depth: whether the masks contain depth.

    Returns:
        Images, interpolated, float32 [B, *crop_size, 3], and masks, nearest, int32 [B, *crop_size, ...].
    """
    height, width = images.shape[1:3]
    smallest = max(min_scale, crop_size[0] / height, crop_size[1] / width)
    largest = max(smallest, max_scale)
    zoom, top, left, side = color.uniform(4, images, seed)
    scale = smallest + zoom * (largest - smallest)
    # Rounding must not exceed the image.
    extents = tf.minimum(crop_size[0] / scale, height), tf.minimum(crop_size[1] / scale, width)
    top, left = top * (height - extents[0]), left * (width - extents[1])
    right, mirrored = left + extents[1], side < flip
    rows = top, top + extents[0]
    columns = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    masks = resampling.nearest(masks, rows, columns, crop_size)
    if depth:
        # In float32, because TensorFlow computes int32 on the CPU.
        factors = tf.stack([tf.ones_like(scale), 1 / scale], axis=-1)[:, tf.newaxis, tf.newaxis]
        masks = tf.cast(tf.round(tf.cast(masks, tf.float32) * factors), tf.int32)
    return resampling.linear(images, rows, columns, crop_size, largest_step=1 / smallest), masks
