"""Losses of single pixels, weighted by class: cross-entropy and focal loss."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.distribution import total
from trainer.padding import real_pixels

# Focusing exponent of the paper's best model.
GAMMA = 2.0


class CrossEntropy:
    """Mean of the pixels' cross-entropy, weighted by class.

    Pixels of weight 0 and padding are not part of the mean.
    """

    def __init__(self, weights: np.ndarray) -> None:
        """Args: `weights` of the classes, float32 [num_classes]."""
        self._weights = tf.constant(weights, tf.float32)

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        real = real_pixels(masks)
        # Padding becomes class 0 with weight 0: labels outside the classes fail on a CPU and give NaN on a GPU.
        labels = tf.cast(tf.cast(masks, tf.float32) * real, tf.int32)
        weights = tf.gather(self._weights, labels) * real
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
        losses = weights * self._pixel_losses(entropies)
        return tf.math.divide_no_nan(total(tf.reduce_sum(losses)), total(tf.reduce_sum(weights)))

    def _pixel_losses(self, entropies: tf.Tensor) -> tf.Tensor:
        """Returns the pixels' losses for their cross-entropies; both float32 [B, H, W]."""
        return entropies


class Focal(CrossEntropy):
    """Cross-entropy with less weight on pixels that are already classified well.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 5: the cross-entropy of a pixel whose true class has the
    probability p is multiplied by (1 - p)^gamma; the class weights are the paper's alpha.
    """

    def __init__(self, weights: np.ndarray, gamma: float = GAMMA) -> None:
        super().__init__(weights)
        self._gamma = gamma

    def _pixel_losses(self, entropies: tf.Tensor) -> tf.Tensor:
        # 1 - p = -expm1(-x), which is exact near 0, unlike 1 - exp(-x).
        return (-tf.math.expm1(-entropies)) ** self._gamma * entropies
