"""RoIAlign: interpolates the features inside a box to a grid of fixed size (Mask R-CNN, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.models.mask_rcnn import anchors

# Samples per bin along each axis.
_SAMPLES = 2


def align(values: tf.Tensor, maps: tuple[tf.Tensor, tf.Tensor, tf.Tensor], boxes: tf.Tensor, bins: int) -> tf.Tensor:
    """Averages 2x2 bilinear samples in each bin of each box.

    Same as torchvision's `roi_align` (0.23, ops/cpu/roi_align_kernel.cpp) with `sampling_ratio=2, aligned=True`.
    `tf.image.crop_and_resize` takes one sample per bin, and no pyramid.

    Args:
        values: one or more feature maps, flattened and concatenated, [B, L, C].
        maps: index of the first value, height and width of each box's feature map, int32 [B, R] each.
        boxes: in pixels of that map, float32 [B, R, 4]; they get no gradient.
        bins: height and width of the result.

    Returns:
        [B, R, bins, bins, C], of the dtype of `values`, or float32 for integers.
    """
    first, height, width = (each[..., tf.newaxis] for each in maps)
    boxes = tf.stop_gradient(boxes)
    places = (tf.range(bins * _SAMPLES, dtype=tf.float32) + 0.5) / (bins * _SAMPLES)
    rows, columns = (
        _neighbours(boxes[..., i, None], boxes[..., i + 2, None], places, n) for i, n in ((0, height), (1, width))
    )
    kind = values.dtype if values.dtype.is_floating else tf.float32
    total: Any = 0
    for row, row_weight in rows:
        for column, column_weight in columns:
            index = (first + row * width)[..., tf.newaxis] + column[..., tf.newaxis, :]
            weight = row_weight[..., tf.newaxis] * column_weight[..., tf.newaxis, :]
            total += tf.cast(tf.gather(values, index, batch_dims=1), kind) * tf.cast(weight, kind)[..., tf.newaxis]
    shape = [-1, boxes.shape[1], bins, _SAMPLES, bins, _SAMPLES, values.shape[-1]]
    return tf.reduce_mean(tf.reshape(total, shape), axis=[3, 5])


def _neighbours(
    begin: tf.Tensor, end: tf.Tensor, places: tf.Tensor, length: tf.Tensor
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Returns the two pixels around each sample along an axis, int32 [B, R, S], and their weights, float32.

    A sample more than a pixel outside of the map has weight 0; a nearer one takes the border's value.
    """
    position = begin - 0.5 + places * (end - begin)
    last = tf.cast(length - 1, tf.float32)
    inside = tf.cast((position >= -1) & (position <= last + 1), tf.float32)
    position = tf.clip_by_value(position, 0.0, last)
    low = tf.floor(position)
    high = tf.minimum(low + 1, last)
    fraction = position - low
    return [(tf.cast(low, tf.int32), inside * (1 - fraction)), (tf.cast(high, tf.int32), inside * fraction)]


def levels_of(boxes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the pyramid level of each box [..., 4], int32 [...], from 0 for P2 to 3 for P5.

    Source: Lin et al. 2017, equation 1, with k0 = 4 for a box of 224x224 pixels, scaled as the anchors are.
    """
    area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    level = tf.floor(4 + tf.math.log(tf.sqrt(area) / (224 * anchors.scale(size)) + 1e-6) / math.log(2))
    return tf.cast(tf.clip_by_value(level, 2, 5), tf.int32) - 2


@keras.saving.register_keras_serializable("segpipe")
class RoiAlign(keras.layers.Layer):
    """Extracts the features of boxes, [B, R, 4], from the levels P2 to P5, [B, h, w, C]: [B, R, bins, bins, C]."""

    def __init__(self, bins: int, size: Sequence[int], **kwargs: Any) -> None:
        """Args: see `align`; `size`: height and width of the network's input in pixels."""
        # In half precision, boxes would be wrong by pixels.
        super().__init__(autocast=False, **kwargs)
        self._bins, self._size = bins, (size[0], size[1])

    def call(self, boxes: Any, levels: Sequence[Any]) -> Any:
        """Returns the features."""
        shapes = [each.shape[1:3] for each in levels]
        starts = [sum(h * w for h, w in shapes[:index]) for index in range(len(shapes))]
        chosen = levels_of(boxes, self._size)
        first, height, width = (tf.gather(each, chosen) for each in (starts, *zip(*shapes, strict=True)))
        stride = tf.gather([float(each) for each in anchors.STRIDES[: len(shapes)]], chosen)
        flat = tf.concat(
            [tf.reshape(each, [-1, math.prod(each.shape[1:3]), each.shape[-1]]) for each in levels], axis=1
        )
        return align(flat, (first, height, width), boxes / stride[..., tf.newaxis], self._bins)
