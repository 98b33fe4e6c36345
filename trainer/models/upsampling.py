"""Upsampling of features and class scores: interpolation, and transposed convolutions initialised as interpolation.

Random kernels would shrink the scores at every step, and training would first have to undo that.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from trainer.models import preprocessing


@keras.saving.register_keras_serializable("segpipe")
class Interpolation(keras.initializers.Initializer):
    """Initialises a transposed convolution as interpolation of each channel.

    Bilinear if the kernel is twice as large as the stride, nearest if they are equal.
    Source: Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.3.
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Returns a kernel [k, k, channels, channels]."""
        size, _, outputs, inputs = shape
        if inputs != outputs or size not in (self._stride, 2 * self._stride):
            raise ValueError(f"no interpolation for a kernel of shape {shape} and stride {self._stride}")
        kernel = np.zeros(shape)
        # The weights along one side.
        bilinear = 1 - np.abs(np.arange(size) - (size - 1) / 2) / self._stride
        profile = np.ones(size) if size == self._stride else bilinear
        kernel[:, :, range(inputs), range(inputs)] = np.outer(profile, profile)[..., None]
        return ops.convert_to_tensor(kernel, dtype=dtype)

    def get_config(self) -> dict[str, int]:
        """Returns the constructor's arguments."""
        return {"stride": self._stride}


def resize(x: Any, size: tuple[Any, Any]) -> Any:
    """Interpolates [B, H, W, C] bilinearly to a height and width, which may be symbolic.

    Same as `tf.image.resize` without antialiasing, but by one matrix product per side in the dtype of `x`.
    TensorFlow's operation cannot be trained in half precision with XLA: its gradient is float32, which the gradient
    of a ReLU rejects and others misread. Keras 3.15 rejects unknown sizes.
    """
    _, height, width, channels = ops.shape(x)
    rows, columns = size
    # Columns first: for upsampling, this takes the fewest multiplications, and the second product is large.
    x = ops.matmul(_weights(width, columns, x.dtype), x)
    x = ops.matmul(_weights(height, rows, x.dtype), ops.reshape(x, (-1, height, columns * channels)))
    return ops.reshape(x, (-1, rows, columns, channels))


def _weights(inputs: Any, outputs: Any, dtype: Any) -> Any:
    """Returns the weight of each of `inputs` rows in each of `outputs` rows, [outputs, inputs].

    In half precision, positions are rounded to multiples of 1/256: bfloat16 holds such weights exactly, so they still
    add up to 1. Factors that are powers of two up to 128 need no finer positions.
    """
    inputs, outputs = (ops.cast(side, "float32") for side in (inputs, outputs))
    # Pixel centres are at halves; beyond the outermost centres, the edge is repeated.
    row = (_range(outputs)[:, None] + 0.5) * (inputs / outputs) - 0.5
    row = ops.clip(row, 0, inputs - 1)
    if tf.as_dtype(dtype).size == 2:
        row = ops.round(row * 256) / 256
    return ops.cast(ops.maximum(1 - ops.abs(row - _range(inputs)), 0), dtype)


def _range(side: Any) -> Any:
    return ops.cast(ops.arange(ops.cast(side, "int32"), dtype="int32"), "float32")


@keras.saving.register_keras_serializable("segpipe")
class BilinearUpSampling2D(keras.layers.UpSampling2D):
    """Bilinear `UpSampling2D` for any height and width, which may be unknown until the graph runs."""

    def call(self, inputs: Any) -> Any:
        """Returns the upsampled [B, H, W, C]."""
        _, height, width, _ = ops.shape(inputs)
        return resize(inputs, (height * self.size[0], width * self.size[1]))


def interpolates(method: str) -> bool:
    """Returns whether a value of `model.upsampling` upsamples without weights."""
    return method in ("nearest", "bilinear")


def interpolate(x: Any, factor: int, method: str, name: str) -> Any:
    """Multiplies height and width of [B, H, W, C] by a whole factor; `method` is "nearest" or "bilinear"."""
    layer = BilinearUpSampling2D if method == "bilinear" else keras.layers.UpSampling2D
    return layer(factor, interpolation=method, name=name)(x)


def scores(x: Any, factor: int, method: str, name: str) -> Any:
    """Multiplies height and width of class scores [B, H, W, N] by a whole factor.

    `method` is "nearest", "bilinear", or "transposed" (also "default"): a transposed convolution with a kernel of twice
    the factor, initialised as bilinear interpolation.
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


def classify(features: Any, num_classes: int, factor: int, method: str) -> Any:
    """Returns logits of features [B, H, W, C], upsampled by a factor; `method` "default" is bilinear."""
    with preprocessing.scores_policy():
        x = keras.layers.Conv2D(num_classes, 1, name="scores")(features)
        x = scores(x, factor, "bilinear" if method == "default" else method, "up_scores")
    return preprocessing.float32_logits(x)
