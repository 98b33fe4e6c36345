"""What the losses on whole regions share: who counts in an image, and the mean over classes and images."""

from __future__ import annotations

import tensorflow as tf

from components.class_map import ClassMap
from trainer.strategy import total


def truth(labels: tf.Tensor, class_map: ClassMap) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits the masks of a batch by class.

    Args:
        labels: class indices, int32 [B, H, W].
        class_map: names the ignored class.

    Returns:
        Which pixels count, float32 [B, H, W, 1], and which of them each class covers, float32
        [B, H, W, num_classes]: all zero for the ignored class.
    """
    scored = [0.0 if i == class_map.ignore_index else 1.0 for i in range(class_map.num_classes)]
    counted = tf.gather(tf.constant(scored), labels)[..., tf.newaxis]
    return counted, tf.one_hot(labels, class_map.num_classes) * counted


def mean_over_present(losses: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the global batch's images of the mean over the classes that each holds, float32 [].

    An image that holds none counts as 0.

    Args:
        losses: loss of each class, float32 [B, classes].
        pixels: number of pixels of each class, float32 [B, classes].
    """
    present = tf.cast(pixels > 0, tf.float32)
    images = tf.math.divide_no_nan(tf.reduce_sum(present * losses, axis=1), tf.reduce_sum(present, axis=1))
    return total(tf.reduce_sum(images)) / total(tf.cast(tf.size(images), tf.float32))
