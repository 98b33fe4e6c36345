"""Which boxes should become which instance, and which of them a step learns from."""

from __future__ import annotations

import tensorflow as tf

from trainer.models.mask_rcnn import boxes as box_math

# Labels of boxes.
POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


def match(
    boxes: tf.Tensor, truth: tf.Tensor, positive: float, negative: float, force_best: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels boxes by their overlap with the true ones.

    Args:
        boxes: float32 [B, N, 4], or [N, 4] for all images.
        truth: float32 [B, M, 4], filled up by boxes without area.
        positive: least overlap with an instance of a positive box.
        negative: overlap below which a box is negative; between the two it is neither.
        force_best: whether the boxes that overlap most with an instance are positive anyway (Ren et al. 2015,
            section 3.1.2).

    Returns:
        Labels and indices of the instance that overlaps most, int32 [B, N] each.
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
    """Draws boxes: positive ones first, as many as there are and allowed, and negative ones for the rest.

    Args:
        labels: as `match` returns them, [B, N].
        number: how many to draw of each image.
        most_positive: how many of them may be positive.
        seed: integer [2].

    Returns:
        Indices, int32 [B, number], and bool [B, number]: which are positive, and which are drawn at all.
    """
    draw = tf.random.stateless_uniform(tf.shape(labels), seed)
    positive = tf.where(labels == POSITIVE, draw, -1.0)
    least = tf.math.top_k(positive, min(most_positive, labels.shape[1])).values[:, -1:]
    rank = tf.where((positive >= 0) & (positive >= least), draw + 1, tf.where(labels == NEGATIVE, draw, -1.0))
    values, index = tf.math.top_k(rank, min(number, labels.shape[1]))
    return index, values >= 1, values >= 0
