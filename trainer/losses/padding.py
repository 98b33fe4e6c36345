"""The label of padding: pixels that fill up a batch to its full number of images."""

from __future__ import annotations

import tensorflow as tf

# In masks, where class indices begin at 0. Such pixels count in no loss and no score.
PADDING = -1


def real_pixels(masks: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each pixel that is data and 0 for padding, float32; masks: class indices or `PADDING`."""
    # Compared as float32, because TensorFlow compares int32 on the CPU, even tensors on a GPU.
    return tf.cast(tf.cast(masks, tf.float32) != PADDING, tf.float32)


def real_images(masks: tf.Tensor) -> tf.Tensor:
    """Returns how many images of a batch are data, int32 []; masks: class indices or `PADDING`, [B, H, W]."""
    return tf.cast(tf.reduce_sum(tf.reduce_max(real_pixels(masks), axis=[1, 2])), tf.int32)
