"""The mean average precision that chooses the epoch of an instance segmentation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer.metrics import add, counter

_MIN_IOU = 0.5

# Scores are counted in as many steps, so that the state has one size and adds up over devices.
_STEPS = 1000


class MaskAP50(keras.metrics.Metric):
    """Mean over the classes in the truth of the average precision at an IoU of masks of 0.5.

    As COCO's AP50, but with the area under the whole curve of precision and recall in place of 101 points, scores in
    steps of a thousandth, and masks at the size of the network's input.
    """

    def __init__(self, things: int, name: str = "mask_ap50") -> None:
        super().__init__(name=name)
        self._things = things
        # Hits and misses.
        self._found = counter((2, things, _STEPS), "found")
        self._true = counter((things,), "true")

    def update_state(self, overlap: Any, labels: Any, classes: Any, scores: Any) -> None:
        """Adds a batch.

        Args:
            overlap: IoU of the masks found with the true ones, float32 [B, D, M].
            labels: 1 + position in things of each true instance, 0 for no instance, int32 [B, M].
            classes: position in things of each instance found, by falling score; -1 for no instance, int32 [B, D].
            scores: 0 to 1, float32 [B, D].
        """
        same = classes[..., tf.newaxis] + 1 == labels[:, tf.newaxis]
        hits = _hits(tf.where(same & (labels > 0)[:, tf.newaxis], overlap, 0.0))
        steps = tf.cast(tf.minimum(scores, 0.9999) * _STEPS, tf.int32)
        # -1 is no class of `one_hot`, so that no instance adds nothing.
        of_class = tf.one_hot(classes, self._things)
        of_step = tf.one_hot(steps, _STEPS)
        add(
            self._found,
            tf.stack(
                [tf.einsum("bd,bdk,bds->ks", tf.cast(each, tf.float32), of_class, of_step) for each in (hits, ~hits)]
            ),
        )
        add(self._true, tf.reduce_sum(tf.one_hot(labels - 1, self._things), axis=[0, 1]))

    def result(self) -> tf.Tensor:
        """Returns the mean of everything added, float32 []; not a number without a true instance."""
        true = tf.convert_to_tensor(self._true)
        hits, misses = tf.unstack(tf.cumsum(tf.convert_to_tensor(self._found), axis=-1, reverse=True))
        precision = tf.math.divide_no_nan(hits, hits + misses)
        recall = tf.math.divide_no_nan(hits, true[:, tf.newaxis])
        # From the lowest score to the highest, recall falls; the best precision at a recall or a higher one counts.
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
    """Tells which instances, from the first to the last, find a true one that none before has found, bool [B, D]."""

    def take(state: tuple[tf.Tensor, tf.Tensor], overlap: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        free, _ = state
        left = overlap * free
        hit = tf.reduce_max(left, axis=-1) >= _MIN_IOU
        taken = tf.one_hot(tf.argmax(left, axis=-1), overlap.shape[-1]) * tf.cast(hit, tf.float32)[:, tf.newaxis]
        return free - taken, hit

    first = tf.ones_like(overlap[:, 0]), tf.zeros_like(overlap[:, 0, 0], tf.bool)
    return tf.transpose(tf.scan(take, tf.transpose(overlap, [1, 0, 2]), first)[1])
