"""Cross-entropy that gives rare classes more weight and the ignored class none."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.class_map import ClassMap
from trainer.input_pipeline import SplitFacts


def class_weights(facts: SplitFacts, class_map: ClassMap, balance: float) -> np.ndarray:
    """Returns the weight of each class in the loss, float32 [num_classes].

    Median frequency balancing (Eigen and Fergus 2015, arXiv 1411.4734): a class's frequency is its
    share of the pixels of those images that hold it; its weight is the median of all frequencies
    over its own.

    Args:
        facts: pixel counts of the training split.
        class_map: names the ignored class, which weighs 0 and does not enter the median.
        balance: exponent of the weights; 0 weighs all classes alike, 1 is the source's formula.
    """
    weights = np.ones(class_map.num_classes, np.float64)
    scored = np.array(class_map.scored_indices)
    seen = scored[facts.class_pixels[scored] > 0]
    if seen.size:
        frequencies = facts.class_pixels[seen] / facts.present_pixels[seen]
        weights[seen] = (np.median(frequencies) / frequencies) ** balance
    if class_map.ignore_index is not None:
        weights[class_map.ignore_index] = 0.0
    return weights.astype(np.float32)


class WeightedCrossEntropy(keras.losses.Loss):
    """Mean over pixels of class weight times cross-entropy, divided by the mean weight.

    A pixel of weight 0 neither adds to the loss nor counts in the mean.
    """

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__(name="cross_entropy")
        self._weights = tf.constant(weights, tf.float32)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns the loss, float32 [].

        Args:
            y_true: class indices [B, H, W].
            y_pred: logits [B, H, W, num_classes].
        """
        labels = tf.cast(y_true, tf.int32)
        weights = tf.gather(self._weights, labels)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(y_pred, tf.float32))
        return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))
