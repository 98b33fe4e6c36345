"""Box coding, overlap and non-maximum suppression, by Keras' and TensorFlow's functions."""

from __future__ import annotations

import functools
import math
from typing import Any

import tensorflow as tf
from keras.utils import bounding_boxes

# Divisors of the offsets (centre y, x, logarithm of height, width), which balance the losses of boxes and classes.
# Source: Detectron, BBOX_REG_WEIGHTS (10, 10, 5, 5); proposals have none.
ANCHOR_VARIANCE = (1.0, 1.0, 1.0, 1.0)
BOX_VARIANCE = (0.1, 0.1, 0.2, 0.2)

# Keeps the boxes of an untrained network finite. Source: Detectron, BBOX_XFORM_CLIP.
_LARGEST_GROWTH = math.log(1000 / 16)

# Returns the IoU, [B, N, M], of boxes [B, N, 4] or [N, 4] with boxes [B, M, 4].
iou = functools.partial(bounding_boxes.compute_iou, bounding_box_format="yxyx")


def encode(origins: Any, boxes: Any, variance: tuple[float, ...]) -> tf.Tensor:
    """Returns the offsets of boxes [..., N, 4] from the boxes `origins`, float32 of the same shape."""
    return bounding_boxes.encode_box_to_deltas(origins, boxes, "yxyx", "yxyx", variance=variance)


def decode(origins: Any, offsets: Any, variance: tuple[float, ...], size: tuple[int, int]) -> tf.Tensor:
    """Inverts `encode`, and clips the boxes [..., N, 4] to an image's height and width in pixels, `size`; float32."""
    offsets = tf.cast(offsets, tf.float32)
    largest = [_LARGEST_GROWTH / each for each in variance[2:]]
    offsets = tf.concat([offsets[..., :2], tf.minimum(offsets[..., 2:], largest)], axis=-1)
    found = bounding_boxes.decode_deltas_to_boxes(origins, offsets, "yxyx", "yxyx", variance=variance)
    return tf.clip_by_value(found, 0.0, tf.constant([*size, *size], tf.float32))


def have_area(boxes: tf.Tensor) -> tf.Tensor:
    """Returns which boxes [..., 4] are not padding, bool [...]."""
    return tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)


def keep_best(
    boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, number: int, max_iou: float, min_score: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies non-maximum suppression within groups.

    Args:
        boxes: float32 [B, N, 4].
        scores: float32 [B, N].
        groups: integer [B, N] or [N], 0 or more; boxes of different groups do not suppress each other.
        number: maximum number of boxes to keep.
        max_iou: overlap above which the box with the lower score is removed.
        min_score: boxes without a higher score are removed.

    Returns:
        Indices of the kept boxes by descending score, int32 [B, number], and which of them are valid, bool [B, number].
    """
    # Shifts each group to where it cannot overlap with another.
    apart = tf.cast(groups, tf.float32)[..., tf.newaxis] * (tf.reduce_max(boxes) + 1)
    kept, count = tf.image.non_max_suppression_padded(
        boxes + apart, scores, number, max_iou, min_score, pad_to_max_output_size=True
    )
    return tf.ensure_shape(kept, [None, number]), tf.range(number) < count[:, tf.newaxis]
