"""Random variations of images' light, colours and sharpness, which leave their masks as they are.

Each image of a batch has its own draws. On a GPU the matrix products may use TF32, which keeps 11 significant bits of
a pixel: more than the 8 of the stored image.
"""

from __future__ import annotations

import math

import tensorflow as tf

# Weight of red, green and blue in the brightness that the eye sees (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)

# Largest change of brightness, as a fraction of the full range, and of contrast, as a factor around 1.
BRIGHTNESS = 0.15
CONTRAST = 0.25

# A Gaussian's tail beyond so many standard deviations is left out.
BLUR_REACH = 3.0

# Rows that are blurred by one matrix product. Small blocks save multiplications by zero.
BLUR_BLOCK = 32


def uniform(number: int, images: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
    """Returns uniform random numbers from 0 to 1: `number` tensors, float32 [B], for images [B, ...].

    Args:
        number: how many an image needs.
        images: the batch.
        seed: integer [2].
    """
    # Integers are the same with XLA and without; TensorFlow and XLA turn them into floating-point numbers differently.
    shape = [number, tf.shape(images)[0]]
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    return tf.unstack(tf.cast(bits, tf.float32) / 2**32 + 0.5)


def jitter(images: tf.Tensor, seed: tf.Tensor, color: float, exposure: float) -> tf.Tensor:
    """Changes saturation, white balance, exposure, brightness and contrast at random.

    All of them are linear in a pixel's channels, so together they are one matrix and one shift for each image.

    Args:
        images: RGB, 0 to 255, float32 [B, H, W, 3].
        seed: integer [2].
        color: largest change of saturation and of each channel's gain, as a factor around 1; 0 changes neither.
        exposure: largest factor, at least 1, by which all values are multiplied or divided. Darker and lighter are
            equally likely, and so are equal ratios; 1 changes nothing.

    Returns:
        Same shape and type; values may leave the range.
    """
    saturation, red, green, blue, *light = uniform(7, images, seed)
    gains = tf.stack([_within(color, draw) for draw in (red, green, blue)], axis=-1)
    gains *= tf.exp((2 * light[0] - 1) * math.log(exposure))[:, tf.newaxis]
    mix = color_matrix(_within(color, saturation), gains)
    brightness = 255 * BRIGHTNESS * (2 * light[1] - 1)
    contrast = _within(CONTRAST, light[2])[:, tf.newaxis, tf.newaxis]
    # Contrast is a factor around each channel's mean, as in tf.image.adjust_contrast. One axis after the other is
    # faster on a CPU.
    mean = tf.reduce_mean(tf.reduce_mean(images, axis=1), axis=1)[:, tf.newaxis]
    shift = (1 - contrast) * tf.matmul(mean, mix) + brightness[:, tf.newaxis, tf.newaxis]
    pixels = tf.reshape(images, [-1, images.shape[1] * images.shape[2], 3])
    return tf.reshape(tf.matmul(pixels, contrast * mix) + shift, tf.shape(images))


def color_matrix(saturation: tf.Tensor, gains: tf.Tensor) -> tf.Tensor:
    """Returns the matrices, float32 [B, 3, 3], that change saturation, then the channels' gains.

    Args:
        saturation: factor of each pixel's distance from grey of the same luma, float32 [B].
        gains: factors of red, green and blue, float32 [B, 3].
    """
    # Of each output channel (column), how much it takes from red, green and blue (rows).
    grey = tf.tile(tf.constant(LUMA)[:, tf.newaxis], [1, 3])
    saturation = saturation[:, tf.newaxis, tf.newaxis]
    return (saturation * tf.eye(3) + (1 - saturation) * grey) * gains[:, tf.newaxis]


def blur(images: tf.Tensor, seed: tf.Tensor, largest: float) -> tf.Tensor:
    """Blurs half of the images by a Gaussian of random width.

    Args:
        images: float32 [B, H, W, 3].
        seed: integer [2].
        largest: largest standard deviation in pixels, above 0; the others are uniform between 0 and it.

    Returns:
        Same shape, type and range.
    """
    chosen, width = uniform(2, images, seed)
    return gaussian(images, tf.where(chosen < 0.5, width * largest, 0.0), largest)


def gaussian(images: tf.Tensor, deviations: tf.Tensor, largest: float) -> tf.Tensor:
    """Convolves each image with its own Gaussian; beyond its border lies its mirror image.

    Args:
        images: float32 [B, H, W, 3], of known height and width.
        deviations: standard deviations in pixels, float32 [B]; 0 leaves an image as it is.
        largest: upper bound of them, which sizes the kernel.

    Returns:
        Same shape, type and range.
    """
    radius = min(math.ceil(BLUR_REACH * largest), *images.shape[1:3])
    # Row i of a block is row i + radius of its neighbourhood, which a matrix of such distances blurs.
    distances = tf.range(BLUR_BLOCK + 2 * radius) - tf.range(BLUR_BLOCK)[:, tf.newaxis] - radius
    # The least deviation gives all weight to the pixel itself.
    exponents = -0.5 * (tf.cast(distances, tf.float32) / tf.maximum(deviations, 0.01)[:, tf.newaxis, tf.newaxis]) ** 2
    kernels = tf.nn.softmax(tf.where(tf.abs(distances) <= radius, exponents, -math.inf))
    for _ in range(2):
        images = tf.transpose(_blurred_rows(images, kernels, radius), [0, 2, 1, 3])
    return images


def _blurred_rows(images: tf.Tensor, kernels: tf.Tensor, radius: int) -> tf.Tensor:
    """Multiplies blocks of rows, each with `radius` more rows on both sides, by an image's matrix."""
    height, width, channels = images.shape[1:]
    # Matrix products, because TensorFlow's depthwise convolution has crashed on three channels on a CPU.
    rows = tf.reshape(images, [-1, height, width * channels])
    padded = tf.pad(rows, [[0, 0], [radius, radius], [0, 0]], "SYMMETRIC")
    padded = tf.pad(padded, [[0, 0], [0, -height % BLUR_BLOCK], [0, 0]])
    blocks = tf.signal.frame(padded, BLUR_BLOCK + 2 * radius, BLUR_BLOCK, axis=1)
    blurred = tf.reshape(
        tf.matmul(kernels[:, tf.newaxis], blocks), [-1, height + -height % BLUR_BLOCK, width, channels]
    )
    return blurred[:, :height]


def _within(largest: float, draw: tf.Tensor) -> tf.Tensor:
    """Returns a factor from 1 - largest to 1 + largest, given a number from 0 to 1."""
    return 1 + largest * (2 * draw - 1)
