"""Batch normalisation whose training step is one operation of TensorFlow.

Keras' layer computes moments and outputs by a chain of float32 operations, each of which writes a
tensor as large as the features; `benchmarks/operations.py` measures both.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("segpipe")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer over the last of four axes: same weights, same results, same statistics.

    It takes Keras' own way when it predicts, where several devices share their statistics, and for a mask.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises features [B, H, W, C]; while training by the batch's own moments, which it adds to the average."""
        if not training or not self.trainable or self.synchronized or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        # TensorFlow's variance is of a sample, n / (n - 1) of the batch's own.
        pixels = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        for average, moment in ((self.moving_mean, mean), (self.moving_variance, variance * (pixels - 1) / pixels)):
            average.assign(average * self.momentum + moment * (1 - self.momentum))
        return outputs


def convolution(x: Any, filters: int, size: int, name: str, dilation: int = 1) -> Any:
    """Applies a convolution, batch normalisation and a ReLU to [B, H, W, C]; height and width stay."""
    x = keras.layers.Conv2D(filters, size, padding="same", dilation_rate=dilation, use_bias=False, name=f"{name}_conv")(
        x
    )
    x = BatchNormalization(momentum=0.9, name=f"{name}_normalize")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)
