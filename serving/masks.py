"""Chooses classes at an image's own size in strips, so that memory does not grow with the image."""

from __future__ import annotations

import tensorflow as tf

# Probabilities of a strip: 4 MiB, of which a few copies exist at once.
_STRIP_VALUES = 1 << 20


def class_mask(probabilities: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes probabilities to an image's size, bilinearly, and chooses the likeliest class of each pixel.

    Resizing before choosing keeps edges smooth. The arithmetic is that of `tf.image.resize`
    (tensorflow/core/kernels/image/resize_bilinear_op.cc at 2.16: half-pixel centres, first along rows of pixels,
    then along columns), a strip of rows at a time: the whole would take 4 bytes a pixel and class.

    Args:
        probabilities: float32 [h, w, num_classes].
        size: height and width, int32 [2].

    Returns:
        Class indices, uint8 [height, width].
    """
    height, width = size[0], size[1]
    shape = tf.shape(probabilities)
    left, right, across = _weights(shape[1], width)
    top, bottom, down = _weights(shape[0], height)
    rows = tf.maximum(_STRIP_VALUES // (width * shape[2]), 1)
    count = -(-height // rows)

    def strip(index: tf.Tensor, strips: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        begin, end = index * rows, tf.minimum((index + 1) * rows, height)
        first = top[begin]
        seen = probabilities[first : bottom[end - 1] + 1]
        wide = _between(tf.gather(seen, left, axis=1), tf.gather(seen, right, axis=1), across[:, tf.newaxis])
        upper, lower = (tf.gather(wide, edge[begin:end] - first) for edge in (top, bottom))
        values = _between(upper, lower, down[begin:end, tf.newaxis, tf.newaxis])
        return index + 1, strips.write(index, tf.cast(tf.argmax(values, axis=-1, output_type=tf.int32), tf.uint8))

    strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None])
    _, strips = tf.while_loop(lambda index, _: index < count, strip, (0, strips), parallel_iterations=1)
    return tf.ensure_shape(strips.concat(), [None, None])


def _weights(before: tf.Tensor, after: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns, for each place along an axis of a new length, the two old places around it and the way between them."""
    scale = tf.cast(before, tf.float32) / tf.cast(after, tf.float32)
    place = (tf.range(tf.cast(after, tf.float32)) + 0.5) * scale - 0.5
    floor = tf.floor(place)
    lower = tf.maximum(tf.cast(floor, tf.int32), 0)
    upper = tf.minimum(tf.cast(tf.math.ceil(place), tf.int32), before - 1)
    return lower, upper, place - floor


def _between(low: tf.Tensor, high: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return low + (high - low) * weight
