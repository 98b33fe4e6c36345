"""The region proposal network: boxes that may contain an instance (Ren et al. 2015, arXiv 1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.models.mask_rcnn import anchors, boxes

# Candidates per level, and largest overlap of two proposals. Source: Lin et al. 2017, section 5.1.
_CANDIDATES = 1000
_MAX_IOU = 0.7


def head(levels: Sequence[Any], filters: int) -> tuple[Any, Any]:
    """Scores every anchor of a pyramid, with the same weights on each level.

    Returns:
        Objectness, logits [B, A], and offsets as in `boxes.encode`, [B, A, 4]; float32.
    """
    normal = keras.initializers.RandomNormal(stddev=0.01)
    shapes = len(anchors.RATIOS)
    shared = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name="rpn")
    scores = layers.Conv2D(shapes, 1, kernel_initializer=normal, dtype="float32", name="rpn_objectness")
    offsets = layers.Conv2D(4 * shapes, 1, kernel_initializer=normal, dtype="float32", name="rpn_offsets")
    features = [shared(level) for level in levels]

    def flat(layer: layers.Layer, shape: tuple[int, ...], name: str) -> Any:
        parts = [layers.Reshape(shape, dtype="float32")(layer(each)) for each in features]
        return layers.Concatenate(axis=1, dtype="float32", name=name)(parts)

    return flat(scores, (-1,), "objectness"), flat(offsets, (-1, 4), "offsets")


@keras.saving.register_keras_serializable("segpipe")
class Proposals(keras.layers.Layer):
    """Selects the best boxes, float32 [B, number, 4], from the outputs of `head`, without a gradient."""

    def __init__(self, number: int, size: Sequence[int], **kwargs: Any) -> None:
        """Args: `number` of proposals; `size`: height and width of the network's input in pixels."""
        super().__init__(autocast=False, **kwargs)
        self._number, self._size = number, (size[0], size[1])

    def call(self, objectness: Any, offsets: Any) -> Any:
        """Returns the proposals."""
        counts = anchors.counts(self._size)
        chosen = [
            tf.math.top_k(level, min(_CANDIDATES, count)).indices + start
            for level, count, start in zip(
                tf.split(objectness, counts, axis=1), counts, np.cumsum([0, *counts]), strict=False
            )
        ]
        groups = np.repeat(np.arange(len(chosen)), [each.shape[1] for each in chosen])
        index = tf.concat(chosen, axis=1)
        scores, offsets = (tf.gather(each, index, batch_dims=1) for each in (objectness, offsets))
        found = boxes.decode(tf.gather(anchors.anchors(self._size), index), offsets, boxes.ANCHOR_VARIANCE, self._size)
        scores = tf.where(boxes.have_area(found), tf.sigmoid(scores), -1.0)
        kept, real = boxes.keep_best(found, scores, groups, self._number, _MAX_IOU)
        best = tf.gather(found, kept, batch_dims=1)
        return tf.stop_gradient(tf.where(real[..., tf.newaxis], best, 0.0))
