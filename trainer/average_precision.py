"""Mean average precision, which chooses the best epoch in instance segmentation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer.metrics import add, counter

_MIN_IOU = 0.5

# Bins of the scores, so that the state has a fixed size and sums up over devices.
_BINS = 1000


class MaskAP50(keras.metrics.Metric):
    """Mean over the classes in the truth of the average precision at a mask IoU of 0.5.

    Like COCO's AP50, but with the area under the whole precision-recall curve instead of 101 points, with scores in
    bins of 0.001, and with masks at the network's input size.
    """

    def __init__(self, things: int) -> None:
        super().__init__(name="mask_ap50")
        self._things = things
        # Hits, then misses.
        self._found = counter((2, things, _BINS), "found")
        self._true = counter((things,), "true")

    def update_state(self, overlap: Any, labels: Any, classes: Any, scores: Any) -> None:
        """Adds a batch.

        Args:
            overlap: mask IoU of found and true instances, float32 [B, D, M].
            labels: 1 + index into things of each true instance, 0 for none, int32 [B, M].
            classes: index into things of each found instance, by falling score; -1 for none, int32 [B, D].
            scores: 0 to 1, float32 [B, D].
        """
        same = classes[..., tf.newaxis] + 1 == labels[:, tf.newaxis]
        hits = _hits(tf.where(same & (labels > 0)[:, tf.newaxis], overlap, 0.0))
        bins = tf.cast(tf.minimum(scores, 0.9999) * _BINS, tf.int32)
        # `one_hot` of -1 is all zero, so padding adds nothing.
        of_class = tf.one_hot(classes, self._things)
        of_bin = tf.one_hot(bins, _BINS)
        add(
            self._found,
            tf.stack(
                [tf.einsum("bd,bdk,bds->ks", tf.cast(each, tf.float32), of_class, of_bin) for each in (hits, ~hits)]
            ),
        )
        add(self._true, tf.reduce_sum(tf.one_hot(labels - 1, self._things), axis=[0, 1]))

    def result(self) -> tf.Tensor:
        """Returns the mean over all batches, float32 []; NaN without a true instance."""
        true = tf.convert_to_tensor(self._true)
        hits, misses = tf.unstack(tf.cumsum(tf.convert_to_tensor(self._found), axis=-1, reverse=True))
        precision = tf.math.divide_no_nan(hits, hits + misses)
        recall = tf.math.divide_no_nan(hits, true[:, tf.newaxis])
        # Recall falls from the lowest score to the highest. The best precision at the same or a higher recall counts.
        best = tf.scan(tf.maximum, tf.transpose(precision))
        gained = recall - tf.concat([recall[:, 1:], tf.zeros_like(recall[:, :1])], axis=1)
        average = tf.reduce_sum(tf.transpose(best) * gained, axis=1)
        return tf.cast(tf.reduce_sum(average) / tf.reduce_sum(tf.cast(true > 0, tf.float64)), tf.float32)


def mask_iou(found: tf.Tensor, true: tf.Tensor) -> tf.Tensor:
    """Returns the IoU of masks, bool or 0 and 1, [B, D, H, W] and [B, M, H, W]: float32 [B, D, M]."""
    found, true = (
        tf.cast(tf.reshape(each, [-1, each.shape[1], each.shape[2] * each.shape[3]]), tf.float32)
        for each in (found, true)
    )
    both = tf.matmul(found, true, transpose_b=True)
    either = tf.reduce_sum(found, -1)[..., tf.newaxis] + tf.reduce_sum(true, -1)[:, tf.newaxis] - both
    return tf.math.divide_no_nan(both, either)


def _hits(overlap: tf.Tensor) -> tf.Tensor:
    """Tells which instances, in order, match a true one that is still unmatched, bool [B, D]."""

    def take(state: tuple[tf.Tensor, tf.Tensor], overlap: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        free, _ = state
        left = overlap * free
        hit = tf.reduce_max(left, axis=-1) >= _MIN_IOU
        taken = tf.one_hot(tf.argmax(left, axis=-1), overlap.shape[-1]) * tf.cast(hit, tf.float32)[:, tf.newaxis]
        return free - taken, hit

    first = tf.ones_like(overlap[:, 0]), tf.zeros_like(overlap[:, 0, 0], tf.bool)
    return tf.transpose(tf.scan(take, tf.transpose(overlap, [1, 0, 2]), first)[1])
