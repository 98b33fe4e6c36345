"""Helpers of the region losses, Dice and Lovasz: one-hot truth, and the mean over classes and images."""

from __future__ import annotations

import tensorflow as tf

from components.class_map import ClassMap
from trainer.distribution import total
from trainer.padding import real_images


def truth(masks: tf.Tensor, class_map: ClassMap) -> tuple[tf.Tensor, tf.Tensor]:
    """Encodes masks one-hot.

    Args:
        masks: class indices or `PADDING`, [B, H, W].
        class_map: defines the ignored class.

    Returns:
        Which pixels are scored, float32 [B, H, W, 1], and the one-hot truth, float32 [B, H, W, num_classes], all zero
        for the ignored class and padding.
    """
    scored = [0.0 if i == class_map.ignore_index else 1.0 for i in range(class_map.num_classes)]
    # `tf.one_hot` gives zeros for labels outside the classes, such as padding.
    covered = tf.one_hot(tf.cast(masks, tf.int32), class_map.num_classes) * tf.constant(scored)
    return tf.reduce_sum(covered, axis=-1, keepdims=True), covered


def mean_over_present(losses: tf.Tensor, pixels: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the images of the global batch of the mean over the classes in each, float32 [].

    An image with nothing but the ignored class counts as 0. Padding is not part of the mean.

    Args:
        losses: loss of each class, float32 [B, classes].
        pixels: number of pixels of each class, float32 [B, classes].
        masks: class indices or `PADDING`, [B, H, W].
    """
    present = tf.cast(pixels > 0, tf.float32)
    images = tf.math.divide_no_nan(tf.reduce_sum(present * losses, axis=1), tf.reduce_sum(present, axis=1))
    return tf.math.divide_no_nan(total(tf.reduce_sum(images)), total(tf.cast(real_images(masks), tf.float32)))
