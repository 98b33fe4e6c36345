"""Matches boxes to instances, and samples the boxes that a step learns from."""

from __future__ import annotations

import tensorflow as tf

from trainer.models.mask_rcnn import boxes as box_math

# Labels of boxes.
POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


def match(
    boxes: tf.Tensor, truth: tf.Tensor, positive: float, negative: float, force_best: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels boxes by their overlap with the true boxes.

    Args:
        boxes: float32 [B, N, 4], or [N, 4] for all images.
        truth: float32 [B, M, 4], padded by boxes without area.
        positive: least IoU of a positive box.
        negative: IoU below which a box is negative; between the two it is neither.
        force_best: whether an instance's boxes of highest IoU are always positive (Ren et al. 2015, section 3.1.2).

    Returns:
        Labels, and indices of the instance of highest IoU, int32 [B, N] each.
    """
    overlap = tf.where(box_math.have_area(truth)[:, tf.newaxis], box_math.iou(boxes, truth), 0.0)
    best = tf.reduce_max(overlap, axis=-1)
    labels = tf.where(best >= positive, POSITIVE, tf.where(best < negative, NEGATIVE, NEITHER))
    if force_best:
        most = tf.reduce_max(overlap, axis=1, keepdims=True)
        labels = tf.where(tf.reduce_any((overlap == most) & (most > 0), axis=-1), POSITIVE, labels)
    return labels, tf.argmax(overlap, axis=-1, output_type=tf.int32)


def sample(
    labels: tf.Tensor, number: int, most_positive: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Samples boxes at random: up to `most_positive` positive ones first, then negative ones.

    Args:
        labels: as returned by `match`, [B, N].
        number: number of boxes per image.
        most_positive: maximum number of positive boxes among them.
        seed: integer [2].

    Returns:
        Indices, int32 [B, number], and bool [B, number]: which are positive, and which are valid.
    """
    draw = tf.random.stateless_uniform(tf.shape(labels), seed)
    positive = tf.where(labels == POSITIVE, draw, -1.0)
    least = tf.math.top_k(positive, min(most_positive, labels.shape[1])).values[:, -1:]
    rank = tf.where((positive >= 0) & (positive >= least), draw + 1, tf.where(labels == NEGATIVE, draw, -1.0))
    values, index = tf.math.top_k(rank, min(number, labels.shape[1]))
    return index, values >= 1, values >= 0
