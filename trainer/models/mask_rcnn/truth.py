"""Turns stacked masks from the input pipeline into the instances of a batch."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

# Value of all mask pixels of an image that pads a batch.
PADDING = 255


@dataclasses.dataclass(frozen=True)
class Truth:
    """The instances of a batch.

    Attributes:
        masks: 1 inside, uint8 [B, M, H, W].
        labels: 1 + the index in things, int32 [B, M]; 0 for no instance.
        boxes: float32 [B, M, 4]; without area for no instance.
        images: 1 for images that are data, 0 for padding, float32 [B].
    """

    masks: tf.Tensor
    labels: tf.Tensor
    boxes: tf.Tensor
    images: tf.Tensor


def read(stacks: tf.Tensor) -> Truth:
    """Returns the instances in masks, uint8 or int32 [B, H, W, M], whose pixels are the instance's label or 0."""
    stacks = tf.transpose(tf.cast(stacks, tf.uint8), [0, 3, 1, 2])
    stacks, padding = tf.where(stacks == PADDING, tf.cast(0, tf.uint8), stacks), stacks[:, 0, 0, 0] == PADDING
    labels = tf.reduce_max(tf.cast(stacks, tf.int32), axis=[2, 3])
    inside = tf.cast(stacks > 0, tf.int32)
    edges: list[list[tf.Tensor]] = [[], []]
    for axis in (2, 3):
        length = stacks.shape[axis]
        seen = tf.reduce_max(inside, axis=5 - axis)
        edges[0].append(tf.argmax(seen, axis=-1, output_type=tf.int32))
        edges[1].append(length - tf.argmax(seen[..., ::-1], axis=-1, output_type=tf.int32))
    boxes = tf.cast(tf.stack([*edges[0], *edges[1]], axis=-1), tf.float32)
    boxes = tf.where((labels > 0)[..., tf.newaxis], boxes, 0.0)
    return Truth(tf.cast(inside, tf.uint8), labels, boxes, 1 - tf.cast(padding, tf.float32))
