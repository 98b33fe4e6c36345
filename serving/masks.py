"""Chooses classes at an image's own size in strips, so that memory does not grow with the image."""

from __future__ import annotations

import tensorflow as tf

# Probabilities per strip: 4 MiB, of which a few copies exist at once.
_STRIP_VALUES = 1 << 20


def class_mask(probabilities: tf.Tensor, size: tf.Tensor, with_confidence: bool = False) -> list[tf.Tensor]:
    """Resizes probabilities to an image's size, bilinearly, and chooses the likeliest class of each pixel.

    Resizing before choosing classes keeps edges smooth. The arithmetic is that of `tf.image.resize`
    (tensorflow/core/kernels/image/resize_bilinear_op.cc at 2.16: half-pixel centres, first along rows of pixels, then
    along columns), in strips of rows: resizing at once would take 4 bytes per pixel and class.

    Args:
        probabilities: float32 [h, w, num_classes].
        size: height and width, int32 [2].
        with_confidence: whether to return the confidence too.

    Returns:
        Class indices and, if asked, `confidence_levels`, uint8 [height, width] each.
    """
    functions = [_classes, confidence_levels] if with_confidence else [_classes]
    height, width = size[0], size[1]
    shape = tf.shape(probabilities)
    left, right, across = _weights(shape[1], width)
    top, bottom, down = _weights(shape[0], height)
    rows = tf.maximum(_STRIP_VALUES // (width * shape[2]), 1)
    count = -(-height // rows)

    def strip(index: tf.Tensor, *strips: tf.TensorArray) -> tuple[tf.Tensor | tf.TensorArray, ...]:
        begin, end = index * rows, tf.minimum((index + 1) * rows, height)
        first = top[begin]
        seen = probabilities[first : bottom[end - 1] + 1]
        wide = _between(tf.gather(seen, left, axis=1), tf.gather(seen, right, axis=1), across[:, tf.newaxis])
        upper, lower = (tf.gather(wide, edge[begin:end] - first) for edge in (top, bottom))
        values = _between(upper, lower, down[begin:end, tf.newaxis, tf.newaxis])
        return index + 1, *(
            array.write(index, function(values)) for array, function in zip(strips, functions, strict=True)
        )

    empty = [tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None]) for _ in functions]
    _, *strips = tf.while_loop(lambda index, *_: index < count, strip, (0, *empty), parallel_iterations=1)
    return [tf.ensure_shape(array.concat(), [None, None]) for array in strips]


def confidence_levels(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns the largest of the probabilities, float32 [..., num_classes], as uint8 [...], 0 to 255 for 0 to 1."""
    return tf.cast(tf.round(255 * tf.minimum(tf.reduce_max(probabilities, axis=-1), 1)), tf.uint8)


def _classes(probabilities: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(probabilities, axis=-1, output_type=tf.int32), tf.uint8)


def _weights(before: tf.Tensor, after: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns, for each place along a resized axis, the two source places around it and its distance to the first."""
    scale = tf.cast(before, tf.float32) / tf.cast(after, tf.float32)
    place = (tf.range(tf.cast(after, tf.float32)) + 0.5) * scale - 0.5
    floor = tf.floor(place)
    lower = tf.maximum(tf.cast(floor, tf.int32), 0)
    upper = tf.minimum(tf.cast(tf.math.ceil(place), tf.int32), before - 1)
    return lower, upper, place - floor


def _between(low: tf.Tensor, high: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return low + (high - low) * weight
