"""Random brightness and contrast, drawn for each image separately. Masks do not change."""

from __future__ import annotations

import tensorflow as tf

# Largest change of brightness, as a fraction of the full range, and of contrast, as a factor around 1.
BRIGHTNESS = 0.15
CONTRAST = 0.25


def uniform(number: int, images: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
    """Returns `number` tensors of uniform random numbers from 0 to 1, float32 [B], for images [B, ...]; seed [2]."""
    # Draws integers, because TensorFlow and XLA convert random bits to floating-point numbers differently.
    shape = [number, tf.shape(images)[0]]
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    return tf.unstack(tf.cast(bits, tf.float32) / 2**32 + 0.5)


def jitter(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes brightness and contrast of images, float32 [B, H, W, 3], at random; values may leave 0 to 255."""
    brightness, contrast = (2 * draw[:, None, None, None] - 1 for draw in uniform(2, images, seed))
    # Contrast is a factor around each channel's mean, as in tf.image.adjust_contrast. Two reductions are faster than
    # one on a CPU.
    mean = tf.reduce_mean(tf.reduce_mean(images, axis=1), axis=1)[:, None, None]
    factor = 1 + CONTRAST * contrast
    return factor * images + ((1 - factor) * mean + 255 * BRIGHTNESS * brightness)
