"""Soft Dice loss: the overlap of prediction and truth, with equal weight for small and large classes."""

from __future__ import annotations

import tensorflow as tf

from components.class_map import ClassMap
from trainer.losses import regions


class Dice:
    """One minus the Dice coefficient of probabilities and truth, averaged over the classes in an image.

    Source: Milletari, Navab and Ahmadi 2016, arXiv 1606.04797, section 3, with squares in the denominator.
    """

    def __init__(self, class_map: ClassMap) -> None:
        self._class_map = class_map

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        counted, truth = regions.truth(masks, self._class_map)
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32)) * counted
        overlap = tf.reduce_sum(probabilities * truth, axis=[1, 2])
        # The truth is 0 or 1, so it equals its square.
        pixels = tf.reduce_sum(truth, axis=[1, 2])
        size = tf.reduce_sum(probabilities**2, axis=[1, 2]) + pixels
        return regions.mean_over_present(1 - tf.math.divide_no_nan(2 * overlap, size), pixels, masks)
