"""Lovasz-softmax loss: a smooth surrogate of the intersection over union, the metric of the models."""

from __future__ import annotations

import tensorflow as tf

from components.class_map import ClassMap
from trainer.losses import regions


class Lovasz:
    """Lovasz extension of the Jaccard loss, averaged over the classes in an image.

    Source: Berman, Triki and Blaschko 2018, arXiv 1705.08790, equation 11 and algorithm 1. It sorts the pixels of each
    image and class, which is the most expensive step of all losses here.
    """

    def __init__(self, class_map: ClassMap, stride: int = 1) -> None:
        """Args: `stride` at which rows and columns are sampled; the sample's IoU is close to that of all pixels."""
        self._class_map = class_map
        self._stride = stride

    def __call__(self, masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss, float32 [], of class indices [B, H, W] and logits [B, H, W, num_classes]."""
        masks, logits = (values[:, :: self._stride, :: self._stride] for values in (masks, logits))
        counted, truth = regions.truth(masks, self._class_map)
        distances = tf.abs(truth - tf.nn.softmax(tf.cast(logits, tf.float32)))
        # -1 is below every distance, so ignored pixels and padding come last.
        errors, truth = self._by_class(tf.where(counted > 0, distances, -1.0)), self._by_class(truth)
        errors, order = tf.math.top_k(errors, k=tf.shape(errors)[-1])
        slopes = jaccard_slopes(tf.gather(truth, order, batch_dims=2))
        losses = tf.reduce_sum(tf.nn.relu(errors) * tf.stop_gradient(slopes), axis=-1)
        return regions.mean_over_present(losses, tf.reduce_sum(truth, axis=-1), masks)

    def _by_class(self, values: tf.Tensor) -> tf.Tensor:
        """Reshapes [B, H, W, num_classes] to [B, scored classes, H * W]."""
        shape = tf.shape(values)
        rows = tf.reshape(values, [shape[0], shape[1] * shape[2], shape[3]])
        return tf.gather(tf.transpose(rows, [0, 2, 1]), self._class_map.scored_indices, axis=1)


def jaccard_slopes(truth: tf.Tensor) -> tf.Tensor:
    """Returns by how much each pixel increases the Jaccard loss if it and all pixels before it are wrong.

    Args:
        truth: 1 if a pixel belongs to the class, by descending error, float32 [..., pixels].

    Returns:
        float32, same shape.
    """
    total = tf.reduce_sum(truth, axis=-1, keepdims=True)
    intersection = total - tf.cumsum(truth, axis=-1)
    union = total + tf.cumsum(1 - truth, axis=-1)
    losses = 1 - intersection / union
    return tf.concat([losses[..., :1], losses[..., 1:] - losses[..., :-1]], axis=-1)
