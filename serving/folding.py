"""Converts a trained network for inference: fuses batch norms, freezes weights to constants, sets the precision.

Constants let TensorFlow lay the kernels out for the processor once instead of at every call.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

# The only way to a graph without variables in TensorFlow 2; it has no public API.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from serving.precision import CONVOLUTIONS, producers, with_precision


class FrozenNetwork:
    """A network as one graph without variables, called like a Keras model."""

    variables = ()

    def __init__(
        self, network: keras.Model, input_size: tuple[int | None, int | None], batch: int | None = None
    ) -> None:
        """Freezes a network for images of one height, width (in pixels) and batch size; None for any."""

        @tf.function(input_signature=[tf.TensorSpec([batch, *input_size, 3], tf.float32)])
        def logits(pixels: tf.Tensor) -> tf.Tensor:
            return network(pixels, training=False)

        self.graph = convert_variables_to_constants_v2(logits.get_concrete_function())

    def __call__(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits [B, H, W, N] for pixels, float32 [B, H, W, 3]."""
        del training
        (logits,) = self.graph(pixels)
        return logits


def fold(network: keras.Model, precision: str) -> keras.Model:
    """Returns a copy of a network that computes in one precision, each batch norm fused into the convolution before it.

    With W the kernel, b the bias, and a batch norm's scale gamma, offset beta, mean m and variance v,
    the fused kernel is s W and the bias s (b - m) + beta, where s = gamma / sqrt(v + epsilon), per output
    channel. Source: Jacob et al. 2018, Quantization and Training of Neural Networks, section 3.2.
    Keeps a batch norm that does not follow a convolution of its own, but for example a pooling.

    Args:
        network: a functional Keras model that ends in logits.
        precision: as `with_precision` takes it.
    """
    convolutions = {norm.name: convolution for norm, convolution in _foldable(network)}
    names = [convolution.name for convolution in convolutions.values()]
    folded = with_precision(network, precision, drop=convolutions, add_bias=names)
    for norm, convolution in convolutions.items():
        folded.get_layer(convolution.name).set_weights(_fused_weights(convolution, network.get_layer(norm)))
    return folded


def _foldable(network: keras.Model) -> Iterable[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Yields each batch norm that is the only consumer of a linear convolution, with that convolution."""
    for norm in network.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        (before,) = producers([norm.input])
        if (
            isinstance(before, CONVOLUTIONS)
            and before.activation is keras.activations.linear
            and len(before._outbound_nodes) == len(before._inbound_nodes) == 1
            and norm.axis in (-1, 3)
        ):
            yield norm, before


def _fused_weights(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = (np.asarray(weight, np.float64) for weight in convolution.get_weights())
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else np.ones_like(mean)
    beta = np.asarray(norm.beta, np.float64) if norm.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    shift = scale * ((bias[0] if bias else 0.0) - mean) + beta
    # Kernels are [h, w, in, out], of transposed convolutions [h, w, out, in], and of depthwise ones
    # [h, w, in, multiplier] with in x multiplier output channels.
    if isinstance(convolution, keras.layers.Conv2DTranspose):
        return [kernel * scale[:, np.newaxis], shift]
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        return [kernel * scale.reshape(kernel.shape[2:]), shift]
    return [kernel * scale, shift]
