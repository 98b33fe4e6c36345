"""Pyramid pooling for images of any size: averages of regions, and interpolation back."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.models import upsampling


@keras.saving.register_keras_serializable("segpipe")
class RegionAverages(keras.layers.Layer):
    """Adaptive average pooling of [B, H, W, C] to `bins` x `bins` regions: float32 [B, bins, bins, C].

    Region i of n covers rows floor(i H / n) to ceil((i + 1) H / n), so regions overlap by a row if n does not divide H,
    and each has at least one row. Keras has such a layer only since 3.13.
    """

    def __init__(self, bins: int, **kwargs: Any) -> None:
        # Sums over a whole image are too inexact in half precision.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self._bins = bins

    def call(self, inputs: Any) -> Any:
        """Returns the averages."""
        _, height, width, channels = ops.shape(inputs)
        # A matrix product per side needs no transposition.
        rows = ops.matmul(self._weights(height), ops.reshape(inputs, (-1, height, width * channels)))
        rows = ops.reshape(rows, (-1, self._bins, width, channels))
        return ops.matmul(self._weights(width), rows)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the output shape."""
        return (input_shape[0], self._bins, self._bins, input_shape[-1])

    def _weights(self, side: Any) -> Any:
        """Returns the weight of each of `side` rows in each region's average, float32 [bins, side]."""
        region = ops.arange(self._bins, dtype="int32")[:, None]
        start = region * side // self._bins
        end = -((region + 1) * -side // self._bins)
        row = ops.arange(side, dtype="int32")[None]
        inside = ops.cast((row >= start) & (row < end), "float32")
        return inside / ops.cast(end - start, "float32")


@keras.saving.register_keras_serializable("segpipe")
class ResizedLike(keras.layers.Layer):
    """Interpolates features [B, h, w, C] bilinearly to the height and width of others, [B, H, W, D]."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Returns the first input in the size of the second, [B, H, W, C]."""
        features, like = inputs
        return upsampling.resize(features, ops.shape(like)[1:3])

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns the output shape."""
        features, like = input_shape
        return (*like[:3], features[-1])
