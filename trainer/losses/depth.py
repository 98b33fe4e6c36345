"""The scale-invariant error of the logarithm of depth."""

from __future__ import annotations

import tensorflow as tf

from trainer.distribution import total

# 0 is the squared error of the logarithm, 1 ignores the scale of an image's depths.
SCALE_INVARIANCE = 0.5


class ScaleInvariantError:
    """Mean over images of the scale-invariant error of pixels with known depth.

    Source: Eigen, Puhrsch and Fergus 2014, arXiv 1406.2283, equation 4 with its lambda of 0.5.
    """

    def __init__(self, depth_scale: float) -> None:
        """Args: `depth_scale` is the value of a depth map at a distance of 1 metre."""
        self._depth_scale = depth_scale

    def __call__(self, depth: tf.Tensor, log_depth: tf.Tensor) -> tf.Tensor:
        """Returns the loss of the global batch, float32 []; 0 if no depth is known.

        Args:
            depth: values of depth maps, float32 [B, H, W]; unknown if 0 or negative (padding).
            log_depth: logarithm of the estimate in metres, float32 [B, H, W, 1].
        """
        known = tf.cast(depth > 0, tf.float32)
        truth = tf.math.log(tf.where(depth > 0, depth / self._depth_scale, 1.0))
        difference = known * (log_depth[..., 0] - truth)
        pixels, error, square = (tf.reduce_sum(each, axis=[1, 2]) for each in (known, difference, difference**2))
        errors = tf.math.divide_no_nan(square, pixels)
        errors -= SCALE_INVARIANCE * tf.math.divide_no_nan(error, pixels) ** 2
        images = tf.reduce_sum(tf.cast(pixels > 0, tf.float32))
        return tf.math.divide_no_nan(total(tf.reduce_sum(errors)), total(images))
