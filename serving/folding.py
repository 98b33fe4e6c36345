"""Turns a trained network into one that only predicts: batch norms fused, weights as constants, precision by choice.

Constants let TensorFlow lay the kernels out once for the processor instead of at every call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# The only way to a graph without variables in TensorFlow 2; it has no public name.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)


class FrozenNetwork:
    """A network as one graph without variables; called like a Keras model."""

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
    A batch norm behind anything but a convolution of its own, such as a pooling, stays.

    Args:
        network: a functional Keras model that ends in logits.
        precision: `float32`, or `bfloat16` for convolutions and what lies between them. What comes
            before the first layer with weights stays float32, as bfloat16 cannot tell pixel 200 from 201.
            So does the last layer, which hands on the scores, computed in bfloat16, to a softmax in float32.
    """
    fused = {norm.name: convolution for norm, convolution in _foldable(network)}
    receivers = {convolution.name for convolution in fused.values()}
    kept_float32 = _before_first_weights(network) | {layer.name for layer in _producers(network.outputs)}

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(config)
        config["dtype"] = "float32" if layer.name in kept_float32 else _policy(layer, precision)
        if layer.name in receivers:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in fused or _is_cast(layer) else layer(*args, **kwargs)

    folded = keras.models.clone_model(network, clone_function=copy, call_function=call)
    norms = {convolution.name: network.get_layer(name) for name, convolution in fused.items()}
    for layer in network.layers:
        if layer.name in norms:
            folded.get_layer(layer.name).set_weights(_fused_weights(layer, norms[layer.name]))
        elif layer.name not in fused and layer.weights:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _policy(layer: keras.layers.Layer, precision: str) -> str:
    """Returns a layer's dtype policy; only kernels shrink, as sums of a batch norm that stays need float32."""
    if precision == "float32" or isinstance(layer, _CONVOLUTIONS):
        return precision
    return f"mixed_{precision}"


def _foldable(network: keras.Model) -> Iterable[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Yields each batch norm that is all that a linear convolution's output goes into, with the convolution."""
    for norm in network.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        (before,) = _producers([norm.input])
        if (
            isinstance(before, _CONVOLUTIONS)
            and before.activation is keras.activations.linear
            and len(before._outbound_nodes) == len(before._inbound_nodes) == 1
            and norm.axis in (-1, 3)
        ):
            yield norm, before


def _is_cast(operation: Any) -> bool:
    """Tells whether an operation only adapts the precision to the next layer, which does so itself in the copy."""
    return type(operation).__name__ == "Cast" and "float" in operation.dtype


def _producers(tensors: Iterable[Any]) -> list[keras.layers.Layer]:
    return [tensor._keras_history.operation for tensor in tensors]


def _before_first_weights(network: keras.Model) -> set[str]:
    """Returns the names of layers that see pixels which no layer with weights has seen."""
    names: set[str] = set()
    for layer in network.layers:
        inputs = _producers(tf.nest.flatten(layer.input)) if layer._inbound_nodes else []
        if not layer.weights and all(before is layer or before.name in names for before in inputs):
            names.add(layer.name)
    return names


def _fused_weights(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = (np.asarray(weight, np.float64) for weight in convolution.get_weights())
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else np.ones_like(mean)
    beta = np.asarray(norm.beta, np.float64) if norm.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    shift = scale * ((bias[0] if bias else 0.0) - mean) + beta
    # Kernels are [h, w, in, out], of a transposed convolution [h, w, out, in], of one by channel
    # [h, w, in, multiplier] with in x multiplier channels out.
    if isinstance(convolution, keras.layers.Conv2DTranspose):
        return [kernel * scale[:, np.newaxis], shift]
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        return [kernel * scale.reshape(kernel.shape[2:]), shift]
    return [kernel * scale, shift]
