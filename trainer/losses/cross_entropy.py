"""Losses that look at each pixel by itself: cross-entropy and focal loss, weighted by class."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.distribution import total
from trainer.losses.padding import real_pixels

# Focusing exponent of the source's best model.
GAMMA = 2.0


class CrossEntropy:
    """Mean over pixels of class weight times cross-entropy, divided by the mean weight.

    A pixel of weight 0, and padding, neither adds to the loss nor counts in the mean.
    """

    def __init__(self, weights: np.ndarray) -> None:
        """Takes the weight of each class, float32 [num_classes]."""
        self._weights = tf.constant(weights, tf.float32)

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        real = real_pixels(masks)
        # Padding becomes class 0, of weight 0: a label outside the classes fails on a CPU and gives NaN on a GPU.
        labels = tf.cast(tf.cast(masks, tf.float32) * real, tf.int32)
        weights = tf.gather(self._weights, labels) * real
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
        costs = weights * self.costs(entropies)
        return tf.math.divide_no_nan(total(tf.reduce_sum(costs)), total(tf.reduce_sum(weights)))

    def costs(self, entropies: tf.Tensor) -> tf.Tensor:
        """Returns what pixels cost, given their cross-entropy; both float32 [B, H, W]."""
        return entropies


class Focal(CrossEntropy):
    """Cross-entropy that falls faster where the network is already right.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 5: a pixel whose true class has the
    probability p costs (1 - p)^gamma times its cross-entropy; the class weights are its alpha.
    """

    def __init__(self, weights: np.ndarray, gamma: float = GAMMA) -> None:
        super().__init__(weights)
        self._gamma = gamma

    def costs(self, entropies: tf.Tensor) -> tf.Tensor:
        """Returns what pixels cost, given their cross-entropy; both float32 [B, H, W]."""
        # 1 - p, without the rounding of 1 - exp(-x) near 0.
        return (-tf.math.expm1(-entropies)) ** self._gamma * entropies
