"""RoIAlign: the features inside a box, interpolated to a grid of fixed size (Mask R-CNN, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.models.mask_rcnn import anchors

# Samples of a bin along each axis.
_SAMPLES = 2


def align(values: tf.Tensor, maps: tuple[tf.Tensor, tf.Tensor, tf.Tensor], boxes: tf.Tensor, bins: int) -> tf.Tensor:
    """Averages 2x2 bilinear samples in each bin of each box.

    As torchvision's `roi_align` (0.23, ops/cpu/roi_align_kernel.cpp) with `sampling_ratio=2, aligned=True`.

    Args:
        values: one or more maps of features, each flattened, one after another, [B, L, C].
        maps: index of the first value, height and width of the map that each box lies on, int32 [B, R] each.
        boxes: in pixels of that map, float32 [B, R, 4]; no gradient flows to them.
        bins: height and width of the result.

    Returns:
        [B, R, bins, bins, C], of the type of `values`; float32 of integers.
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
    """Returns the two pixels around each sample of a span along an axis, int32 [B, R, S], and their weights, float32.

    A sample more than a pixel outside of the map weighs nothing; one nearer takes the border's value.
    """
    position = begin - 0.5 + places * (end - begin)
    last = tf.cast(length - 1, tf.float32)
    inside = tf.cast((position >= -1) & (position <= last + 1), tf.float32)
    position = tf.clip_by_value(position, 0.0, last)
    low = tf.floor(position)
    high = tf.minimum(low + 1, last)
    way = position - low
    return [(tf.cast(low, tf.int32), inside * (1 - way)), (tf.cast(high, tf.int32), inside * way)]


def levels_of(boxes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the level of the pyramid for each box [..., 4], int32 [...], 0 for P2 to 3 for P5.

    Source: Lin et al. 2017, equation 1, with k0 = 4 for a box of 224x224 pixels, scaled as the anchors are.
    """
    area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    level = tf.floor(4 + tf.math.log(tf.sqrt(area) / (224 * anchors.scale(size)) + 1e-6) / math.log(2))
    return tf.cast(tf.clip_by_value(level, 2, 5), tf.int32) - 2


@keras.saving.register_keras_serializable("segpipe")
class RoiAlign(keras.layers.Layer):
    """Takes the features of boxes, [B, R, 4], from the levels P2 to P5, [B, h, w, C]: [B, R, bins, bins, C]."""

    def __init__(self, bins: int, size: Sequence[int], **kwargs: Any) -> None:
        """Args: see `align`; `size`: height and width of the network's input in pixels."""
        # Boxes in half precision would miss by pixels.
        super().__init__(autocast=False, **kwargs)
        self._bins, self._size = bins, (size[0], size[1])

    def call(self, boxes: Any, levels: Sequence[Any]) -> Any:
        """Returns the layer's output."""
        shapes = [each.shape[1:3] for each in levels]
        starts = [sum(h * w for h, w in shapes[:index]) for index in range(len(shapes))]
        chosen = levels_of(boxes, self._size)
        first, height, width = (tf.gather(each, chosen) for each in (starts, *zip(*shapes, strict=True)))
        stride = tf.gather([float(each) for each in anchors.STRIDES[: len(shapes)]], chosen)
        flat = tf.concat(
            [tf.reshape(each, [-1, math.prod(each.shape[1:3]), each.shape[-1]]) for each in levels], axis=1
        )
        return align(flat, (first, height, width), boxes / stride[..., tf.newaxis], self._bins)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "bins": self._bins, "size": list(self._size)}
