"""Functions of the losses on whole regions: which pixels count, and the mean over classes and images."""

from __future__ import annotations

import tensorflow as tf

from components.class_map import ClassMap
from trainer.distribution import total
from trainer.losses.padding import real_images


def truth(masks: tf.Tensor, class_map: ClassMap) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits the masks of a batch by class.

    Args:
        masks: class indices or `PADDING`, [B, H, W].
        class_map: names the ignored class.

    Returns:
        Which pixels count, float32 [B, H, W, 1], and which of them each class covers, float32
        [B, H, W, num_classes]: all zero for the ignored class and for padding.
    """
    scored = [0.0 if i == class_map.ignore_index else 1.0 for i in range(class_map.num_classes)]
    # All zero for a label outside the classes, so for padding too.
    covered = tf.one_hot(tf.cast(masks, tf.int32), class_map.num_classes) * tf.constant(scored)
    return tf.reduce_sum(covered, axis=-1, keepdims=True), covered


def mean_over_present(losses: tf.Tensor, pixels: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the global batch's images of the mean over the classes that each holds, float32 [].

    An image whose pixels are all of the ignored class counts as 0. An image of padding does not count.

    Args:
        losses: loss of each class, float32 [B, classes].
        pixels: number of pixels of each class, float32 [B, classes].
        masks: class indices or `PADDING`, [B, H, W].
    """
    present = tf.cast(pixels > 0, tf.float32)
    images = tf.math.divide_no_nan(tf.reduce_sum(present * losses, axis=1), tf.reduce_sum(present, axis=1))
    return tf.math.divide_no_nan(total(tf.reduce_sum(images)), total(tf.cast(real_images(masks), tf.float32)))
