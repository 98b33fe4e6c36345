"""The final detections: the best boxes of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.models.mask_rcnn import boxes

# Largest overlap of two boxes of a class, and number of candidates. Source: Detectron, TEST.NMS and RPN_POST_NMS_TOP_N.
_MAX_IOU = 0.5
_CANDIDATES = 1000


@keras.saving.register_keras_serializable("segpipe")
class Detections(keras.layers.Layer):
    """Selects instances from proposals and the outputs of the box head."""

    def __init__(self, number: int, min_score: float, size: Sequence[int], **kwargs: Any) -> None:
        """Args: `number` of instances; `min_score` of each; `size`: height and width of the input in pixels."""
        super().__init__(autocast=False, **kwargs)
        self._number, self._min_score, self._size = number, min_score, (size[0], size[1])

    def call(self, proposals: Any, logits: Any, offsets: Any) -> tuple[Any, Any, Any]:
        """Selects the instances.

        Args:
            proposals: float32 [B, P, 4].
            logits: float32 [B, P, 1 + things].
            offsets: float32 [B, P, 4 things].

        Returns:
            By descending score: boxes, float32 [B, number, 4]; indices in things, int32 [B, number], -1 for no
            instance; scores, float32 [B, number], 0 for no instance.
        """
        count, things = proposals.shape[1], logits.shape[-1] - 1
        scores = tf.nn.softmax(logits)[..., 1:]
        scores = tf.where(boxes.have_area(proposals)[..., tf.newaxis], scores, -1.0)
        scores = tf.ensure_shape(tf.reshape(scores, [-1, count * things]), [None, count * things])
        scores, index = tf.math.top_k(scores, min(_CANDIDATES, count * things))
        classes = index % things
        offsets = tf.gather(tf.reshape(offsets, [-1, count * things, 4]), index, batch_dims=1)
        origins = tf.gather(proposals, index // things, batch_dims=1)
        found = boxes.decode(origins, offsets, boxes.BOX_VARIANCE, self._size)
        kept, real = boxes.keep_best(found, scores, classes, self._number, _MAX_IOU, self._min_score)
        found, classes, scores = (tf.gather(each, kept, batch_dims=1) for each in (found, classes, scores))
        return tf.where(real[..., tf.newaxis], found, 0.0), tf.where(real, classes, -1), tf.where(real, scores, 0.0)
