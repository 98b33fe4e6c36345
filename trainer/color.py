"""Random variations of a training image's light, colours and sharpness, which leave its mask as it is."""

from __future__ import annotations

import math

import tensorflow as tf

# Share of red, green and blue in what the eye sees as light (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)

# A Gaussian's tail beyond so many standard deviations is left out.
BLUR_REACH = 3.0


def tint(image: tf.Tensor, seed: tf.Tensor, largest: float) -> tf.Tensor:
    """Changes saturation and white balance at random.

    Args:
        image: RGB, 0 to 255, float32 [H, W, 3].
        seed: integer [2].
        largest: largest change of saturation and of each channel's gain, as a factor around 1.

    Returns:
        Same shape and type; values may leave the range.
    """
    draws = tf.random.stateless_uniform([4], seed, 1 - largest, 1 + largest)
    saturation, gains = draws[0], draws[1:]
    # Of each output channel (column), how much it takes from red, green and blue (rows).
    grey = tf.tile(tf.constant(LUMA)[:, tf.newaxis], [1, 3])
    mix = (saturation * tf.eye(3) + (1 - saturation) * grey) * gains
    return tf.reshape(tf.matmul(tf.reshape(image, [-1, 3]), mix), tf.shape(image))


def expose(image: tf.Tensor, seed: tf.Tensor, largest: float) -> tf.Tensor:
    """Makes an image as dark or light at random as another exposure, or another hour, would.

    Args:
        image: RGB, 0 to 255, float32 [H, W, 3].
        seed: integer [2].
        largest: largest factor, at least 1, by which all values are multiplied or divided; darker and lighter are
            equally likely, and so are equal ratios.

    Returns:
        Same shape and type; values may leave the range.
    """
    limit = math.log(largest)
    return image * tf.exp(tf.random.stateless_uniform([], seed, -limit, limit))


def blur(image: tf.Tensor, seed: tf.Tensor, largest: float) -> tf.Tensor:
    """Blurs half of the images by a Gaussian of random width.

    Args:
        image: float32 [H, W, 3].
        seed: integer [2].
        largest: largest standard deviation in pixels, above 0; the others are uniform between 0 and it.

    Returns:
        Same shape, type and range.
    """
    blurred, width = tf.unstack(tf.random.stateless_uniform([2], seed))
    return tf.cond(blurred < 0.5, lambda: gaussian(image, width * largest, largest), lambda: image)


def gaussian(image: tf.Tensor, deviation: tf.Tensor, largest: float) -> tf.Tensor:
    """Convolves an image with a Gaussian; beyond its border lies its mirror image.

    Args:
        image: float32 [H, W, 3], of known height and width.
        deviation: standard deviation in pixels, float32 [].
        largest: upper bound of it, which sizes the kernel.

    Returns:
        Same shape, type and range.
    """
    radius = min(math.ceil(BLUR_REACH * largest), *image.shape[:2])
    places = tf.range(-radius, radius + 1, dtype=tf.float32)
    # A deviation of 0 would divide by itself; this small one leaves the image as it is.
    kernel = tf.unstack(tf.nn.softmax(-0.5 * (places / tf.maximum(deviation, 0.01)) ** 2))
    # Sums of shifted images: TensorFlow's depthwise convolution has crashed on three channels on a CPU.
    for axis, length in enumerate(image.shape[:2]):
        border = [[radius, radius] if axis == i else [0, 0] for i in range(3)]
        padded = tf.pad(image, border, "SYMMETRIC")
        shifted = (tf.gather(padded, tf.range(i, i + length), axis=axis) for i in range(len(kernel)))
        image = tf.add_n([weight * part for weight, part in zip(kernel, shifted, strict=True)])
    return image
