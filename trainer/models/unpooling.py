"""Max pooling that also returns indices, and unpooling that puts values back to these indices.

Source: Badrinarayanan, Kendall and Cipolla 2015, arXiv 1511.00561, section 3. Indices count within a window, so they
take one byte and depend on neither batch nor image size, unlike those of `tf.nn.max_pool_with_argmax`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("segpipe")
class MaxPoolingWithIndices(keras.layers.Layer):
    """Returns the maxima of 2x2 windows, [B, H/2, W/2, C], and the index of each within its window.

    Indices are uint8 of the same shape: 0 and 1 in the upper row, 2 and 3 in the lower one; the first of equals.
    """

    def call(self, inputs: Any) -> tuple[Any, Any]:
        """Returns maxima and indices of [B, H, W, C], with even H and W."""
        pixels = [inputs[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        number = [ops.cast(index, "uint8") for index in range(4)]
        # Pixels are not compared with the maximum: XLA may round the two differently.
        above = ops.where(pixels[1] > pixels[0], number[1], number[0])
        below = ops.where(pixels[3] > pixels[2], number[3], number[2])
        lower = ops.maximum(pixels[2], pixels[3]) > ops.maximum(pixels[0], pixels[1])
        return ops.max_pool(inputs, 2, strides=2, padding="valid"), ops.where(lower, below, above)


@keras.saving.register_keras_serializable("segpipe")
class MaxUnpooling(keras.layers.Layer):
    """Puts values [B, H, W, C] at the indices of `MaxPoolingWithIndices`, zeros elsewhere: [B, 2H, 2W, C]."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Returns the unpooled values, for values and indices."""
        values, indices = inputs
        _, height, width, channels = ops.shape(values)
        zero = ops.zeros_like(values)
        pixels = [ops.where(indices == ops.cast(index, "uint8"), values, zero) for index in range(4)]
        rows = [
            ops.reshape(ops.stack(pixels[index : index + 2], axis=3), (-1, height, 2 * width, channels))
            for index in (0, 2)
        ]
        return ops.reshape(ops.stack(rows, axis=2), (-1, 2 * height, 2 * width, channels))
