"""Cuts a window out of each image of a batch and scales it, with operations of static shape that XLA compiles.

The operations also stay on the GPU without XLA: TensorFlow 2.16 and 2.21 have no GPU kernel for gathers of uint8, and
compute int32 on the CPU, so images are gathered as float32 and indices are int64.

A span is one axis of a window: the source coordinates, float32 [B], of the result's first and last edge. The first
pixel of an image covers 0 to 1, so spans may start and end inside a pixel. A reversed span mirrors the axis.
"""

from __future__ import annotations

import math

import tensorflow as tf

Span = tuple[tf.Tensor, tf.Tensor]


def linear(images: tf.Tensor, rows: Span, columns: Span, size: tuple[int, int], largest_step: float) -> tf.Tensor:
    """Resamples the images by linear interpolation, antialiased if a window shrinks.

    The weights are those of `tf.image.resize(method="bilinear", antialias=True)`: a triangle whose half-width is the
    step between two pixels of the result, at least 1. Pixels outside the window count too.

    Args:
        images: uint8 or float32 [B, H, W, C].
        rows: vertical span of each window, within 0 and H.
        columns: horizontal span, within 0 and W.
        size: height and width of the result.
        largest_step: upper bound of source pixels per pixel of the result, on both axes; sets the kernel's size.

    Returns:
        float32 [B, *size, C].
    """
    images = _weighted_rows(tf.cast(images, tf.float32), rows, size[0], largest_step)
    # Gathering whole rows is several times faster on a CPU than gathering pixels.
    images = _weighted_rows(tf.transpose(images, [0, 2, 1, 3]), columns, size[1], largest_step)
    return tf.transpose(images, [0, 2, 1, 3])


def nearest(masks: tf.Tensor, rows: Span, columns: Span, size: tuple[int, int]) -> tf.Tensor:
    """Resamples masks [B, H, W, ...] to int32: each pixel of the result is the source pixel at its centre."""
    height, width = masks.shape[1:3]
    row, column = _pixels(_centres(rows, size[0]), height), _pixels(_centres(columns, size[1]), width)
    places = row[:, :, tf.newaxis] * width + column[:, tf.newaxis]
    return tf.gather(tf.reshape(tf.cast(masks, tf.int32), [-1, height * width, *masks.shape[3:]]), places, batch_dims=1)


def _weighted_rows(images: tf.Tensor, span: Span, length: int, largest_step: float) -> tf.Tensor:
    """Returns the images resampled along axis 1, float32."""
    centres, source = _centres(span, length) - 0.5, images.shape[1]
    reach = tf.maximum(tf.abs(span[1] - span[0]) / length, 1.0)[:, tf.newaxis]
    first = tf.floor(centres - reach) + 1
    parts, weights = [], []
    for tap in range(math.ceil(2 * max(largest_step, 1.0))):
        place = first + tap
        inside = tf.cast((place >= 0) & (place < source), tf.float32)
        weights.append(inside * tf.nn.relu(1 - tf.abs(place - centres) / reach))
        parts.append(tf.gather(images, _pixels(place, source), axis=1, batch_dims=1))
    total = tf.add_n(weights)
    return tf.add_n(
        [(weight / total)[..., tf.newaxis, tf.newaxis] * part for weight, part in zip(weights, parts, strict=True)]
    )


def _centres(span: Span, length: int) -> tf.Tensor:
    """Returns the source coordinates of the centres of the result's pixels, float32 [B, length]."""
    step = (span[1] - span[0]) / length
    return span[0][:, tf.newaxis] + (tf.range(length, dtype=tf.float32) + 0.5) * step[:, tf.newaxis]


def _pixels(coordinates: tf.Tensor, source: int) -> tf.Tensor:
    """Returns the indices, int64 [B, length], of the pixels at the coordinates, of `source` pixels in all."""
    return tf.cast(tf.clip_by_value(coordinates, 0.0, source - 1.0), tf.int64)
