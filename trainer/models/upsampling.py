"""Ways to make features and class scores larger: interpolation, and transposed convolutions that begin as it.

Random weights would shrink the scores at every step, and training would begin by undoing it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("segpipe")
class Interpolation(keras.initializers.Initializer):
    """Upsamples each channel by itself: bilinear where the kernel is twice the stride, nearest where it equals it.

    Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.3: upsampling layers begin
    as bilinear interpolation and are learned from there.
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Returns a kernel [k, k, channels, channels]."""
        size, _, outputs, inputs = shape
        if inputs != outputs or size not in (self._stride, 2 * self._stride):
            raise ValueError(f"no interpolation for a kernel of shape {shape} and stride {self._stride}")
        kernel = np.zeros(shape)
        kernel[:, :, range(inputs), range(inputs)] = np.outer(self._profile(size), self._profile(size))[..., None]
        return keras.ops.convert_to_tensor(kernel, dtype=dtype)

    def get_config(self) -> dict[str, int]:
        """Returns the arguments, for saving."""
        return {"stride": self._stride}

    def _profile(self, size: int) -> np.ndarray:
        """Returns the kernel's weights along one side, float64 [size]."""
        if size == self._stride:
            return np.ones(size)
        return 1 - np.abs(np.arange(size) - (size - 1) / 2) / self._stride


def resize(x: Any, size: tuple[Any, Any]) -> Any:
    """Interpolates [B, H, W, C] bilinearly to a height and a width, which may be known only when the graph runs.

    Gives what `tf.image.resize` gives without antialiasing, by one matrix product a side in the dtype of `x`.
    The operation of TensorFlow cannot be trained in half precision under XLA: its gradient is float32 there,
    which a ReLU's gradient refuses and others misread. Keras 3.15 refuses unknown sizes.
    """
    _, height, width, channels = ops.shape(x)
    rows, columns = size
    # Columns first: if the image grows, this takes the fewest multiplications, and the second product is large.
    x = ops.matmul(_weights(width, columns, x.dtype), x)
    x = ops.matmul(_weights(height, rows, x.dtype), ops.reshape(x, (-1, height, columns * channels)))
    return ops.reshape(x, (-1, rows, columns, channels))


def _weights(inputs: Any, outputs: Any, dtype: Any) -> Any:
    """Returns the weight of each of `inputs` rows in each of `outputs` rows, [outputs, inputs].

    In half precision, rows are taken at multiples of 1/256: bfloat16 holds such weights exactly, so that they
    still add up to 1. Growth by powers of two up to 128 needs no finer ones.
    """
    inputs, outputs = (ops.cast(side, "float32") for side in (inputs, outputs))
    # Centres of pixels are at halves; outside the outermost ones, the edge is repeated.
    row = (_range(outputs)[:, None] + 0.5) * (inputs / outputs) - 0.5
    row = ops.clip(row, 0, inputs - 1)
    if tf.as_dtype(dtype).size == 2:
        row = ops.round(row * 256) / 256
    return ops.cast(ops.maximum(1 - ops.abs(row - _range(inputs)), 0), dtype)


def _range(side: Any) -> Any:
    return ops.cast(ops.arange(ops.cast(side, "int32"), dtype="int32"), "float32")


@keras.saving.register_keras_serializable("segpipe")
class BilinearUpSampling2D(keras.layers.UpSampling2D):
    """Multiplies height and width of [B, H, W, C], which may be known only when the graph runs, by whole numbers."""

    def call(self, inputs: Any) -> Any:
        """Returns the interpolated features or scores."""
        _, height, width, _ = ops.shape(inputs)
        return resize(inputs, (height * self.size[0], width * self.size[1]))


def interpolates(method: str) -> bool:
    """Tells whether a method of the settings upsamples without weights."""
    return method in ("nearest", "bilinear")


def interpolate(x: Any, factor: int, method: str, name: str) -> Any:
    """Multiplies height and width of [B, H, W, C] by a factor, without weights.

    Args:
        x: features or class scores.
        factor: whole number.
        method: "nearest" or "bilinear".
        name: the layer's name.
    """
    layer = BilinearUpSampling2D if method == "bilinear" else keras.layers.UpSampling2D
    return layer(factor, interpolation=method, name=name)(x)


def scores(x: Any, factor: int, method: str, name: str) -> Any:
    """Multiplies height and width of class scores [B, H, W, N] by a factor.

    Args:
        x: class scores.
        factor: whole number.
        method: "transposed", or "default", learns a kernel twice as large as the factor that begins as bilinear
            interpolation (Long, Shelhamer and Darrell 2015, section 4.3); "nearest" and "bilinear"
            learn nothing.
        name: the layer's name.
    """
    if interpolates(method):
        return interpolate(x, factor, method, name)
    layer = keras.layers.Conv2DTranspose(
        x.shape[-1],
        2 * factor,
        strides=factor,
        padding="same",
        use_bias=False,
        kernel_initializer=Interpolation(factor),
        name=name,
    )
    return layer(x)
