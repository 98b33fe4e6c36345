"""Boxes relative to other boxes, and their overlap: Keras' own functions, in this project's format."""

from __future__ import annotations

import functools
import math
from typing import Any

import tensorflow as tf
from keras.utils import bounding_boxes

# What the offsets (centre y, x, logarithm of height, width) are divided by, so that the losses weigh boxes and classes
# alike: those of proposals are learned as they are. Source: Detectron, BBOX_REG_WEIGHTS (10, 10, 5, 5).
ANCHOR_VARIANCE = (1.0, 1.0, 1.0, 1.0)
BOX_VARIANCE = (0.1, 0.1, 0.2, 0.2)

# An untrained network must not give infinite boxes. Source: Detectron, BBOX_XFORM_CLIP.
_LARGEST_GROWTH = math.log(1000 / 16)

# From two lists of boxes, [B, N, 4] or [N, 4], and [B, M, 4], to their intersection over union, [B, N, M].
iou = functools.partial(bounding_boxes.compute_iou, bounding_box_format="yxyx")


def encode(origins: Any, boxes: Any, variance: tuple[float, ...]) -> tf.Tensor:
    """Returns boxes [..., N, 4] as offsets from others, `origins`, float32 of the same shape."""
    return bounding_boxes.encode_box_to_deltas(origins, boxes, "yxyx", "yxyx", variance=variance)


def decode(origins: Any, offsets: Any, variance: tuple[float, ...], size: tuple[int, int]) -> tf.Tensor:
    """Returns the boxes that offsets [..., N, 4] from others stand for, cut at the image's borders, float32.

    Args:
        origins: boxes [..., N, 4].
        offsets: what `encode` returns.
        variance: as given to `encode`.
        size: height and width of the image in pixels.
    """
    offsets = tf.cast(offsets, tf.float32)
    largest = [_LARGEST_GROWTH / each for each in variance[2:]]
    offsets = tf.concat([offsets[..., :2], tf.minimum(offsets[..., 2:], largest)], axis=-1)
    found = bounding_boxes.decode_deltas_to_boxes(origins, offsets, "yxyx", "yxyx", variance=variance)
    return tf.clip_by_value(found, 0.0, tf.constant([*size, *size], tf.float32))


def have_area(boxes: tf.Tensor) -> tf.Tensor:
    """Tells which boxes [..., 4] are real and not padding, bool [...]."""
    return tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)


def keep_best(
    boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, number: int, max_iou: float, min_score: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Suppresses boxes that overlap with a better one of their group.

    Args:
        boxes: float32 [B, N, 4].
        scores: float32 [B, N].
        groups: integer [B, N] or [N], 0 or more; boxes of different groups do not suppress each other.
        number: how many to keep.
        max_iou: overlap above which the lesser box goes.
        min_score: boxes without a higher score go too.

    Returns:
        Indices of the kept boxes by falling score, int32 [B, number], and whether there is one, bool [B, number].
    """
    # Far apart, they do not overlap.
    apart = tf.cast(groups, tf.float32)[..., tf.newaxis] * (tf.reduce_max(boxes) + 1)
    kept, count = tf.image.non_max_suppression_padded(
        boxes + apart, scores, number, max_iou, min_score, pad_to_max_output_size=True
    )
    return tf.ensure_shape(kept, [None, number]), tf.range(number) < count[:, tf.newaxis]
