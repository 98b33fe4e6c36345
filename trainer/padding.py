"""The label of padding, the pixels of images that only complete a batch."""

from __future__ import annotations

import tensorflow as tf

# In masks, beside class indices from 0. No loss or metric counts such pixels.
PADDING = -1


def real_pixels(masks: tf.Tensor) -> tf.Tensor:
    """Returns 1 for data and 0 for padding, float32, for masks of class indices or `PADDING`."""
    # Compared as float32, because TensorFlow compares int32 on the CPU, even tensors on a GPU.
    return tf.cast(tf.cast(masks, tf.float32) != PADDING, tf.float32)


def real_images(masks: tf.Tensor) -> tf.Tensor:
    """Returns the number of images that are not padding, int32 [], for masks [B, H, W]."""
    return tf.cast(tf.reduce_sum(tf.reduce_max(real_pixels(masks), axis=[1, 2])), tf.int32)
