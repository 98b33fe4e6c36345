"""Batch normalisation whose training step is one TensorFlow operation.

Keras' layer chains float32 operations, each of which writes a tensor as large as the features;
`benchmarks/operations.py` measures both.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Keras' 0.99 to 0.999 average over 100 to 1,000 steps. Training here takes a few hundred, after which the statistics
# would still depend on the initial weights.
MOMENTUM = 0.9


@keras.saving.register_keras_serializable("segpipe")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer over the last of four axes: same weights, same results, same statistics.

    Uses Keras' own code for prediction, masks, and statistics synchronised over devices.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
    """

    def __init__(self, *, momentum: float = MOMENTUM, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises features [B, H, W, C]; in training by the batch's moments, which update the moving averages."""
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
        # TensorFlow returns the sample variance, n / (n - 1) of the batch's.
        pixels = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        for average, moment in ((self.moving_mean, mean), (self.moving_variance, variance * (pixels - 1) / pixels)):
            average.assign(average * self.momentum + moment * (1 - self.momentum))
        return outputs


def convolution(x: Any, filters: int, size: int, name: str, dilation: int = 1) -> Any:
    """Applies a convolution, batch normalisation and a ReLU to [B, H, W, C]; keeps height and width."""
    conv = keras.layers.Conv2D(
        filters, size, padding="same", dilation_rate=dilation, use_bias=False, name=f"{name}_conv"
    )
    x = BatchNormalization(name=f"{name}_normalize")(conv(x))
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)
