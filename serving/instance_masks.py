"""Pastes the masks of instances into their boxes."""

from __future__ import annotations

import tensorflow as tf

# Probability from which a pixel belongs to a mask (Mask R-CNN, section 3.1).
_IN_MASK = 0.5


def paste(masks: tf.Tensor, found: tf.Tensor, size: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """Pastes masks into their boxes in an image, interpolated, with zeros around them.

    Like Detectron, which pads each mask with zeros (detectron/core/test.py, `segm_results`).

    Args:
        masks: probabilities, float32 [..., h, w].
        found: boxes in pixels of the image, float32 [..., 4].
        size: height and width of the image.

    Returns:
        bool [..., height, width].
    """
    weights = []
    for axis in (0, 1):
        cells = masks.shape[axis - 2]
        begin, end = found[..., axis, tf.newaxis], found[..., axis + 2, tf.newaxis]
        pixels = tf.cast(tf.range(size[axis]), tf.float32) + 0.5
        place = tf.math.divide_no_nan(pixels - begin, end - begin) * cells - 0.5
        near = tf.nn.relu(1 - tf.abs(place[..., tf.newaxis] - tf.range(cells, dtype=tf.float32)))
        weights.append(near * tf.cast((pixels >= begin) & (pixels < end), tf.float32)[..., tf.newaxis])
    return tf.einsum("...yi,...ij,...xj->...yx", weights[0], masks, weights[1]) >= _IN_MASK
