"""Copies a trained network to the floating-point precision for serving, whatever it was trained in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import keras
import tensorflow as tf

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)


def with_precision(
    network: keras.Model, precision: str, drop: Collection[str] = (), add_bias: Collection[str] = ()
) -> keras.Model:
    """Returns a copy of a network that computes in one precision.

    In half precision, layers before the first one with weights stay float32, because bfloat16 cannot tell pixel 200
    from 201. So does the last layer, which casts the logits for a softmax in float32, and so do layers in between that
    request float32 themselves, such as sums over a whole image. The convolutions of class scores, which training
    computes in float32, use half precision.

    Args:
        network: a functional Keras model that ends in logits, trained under any dtype policy.
        precision: `float32`, `bfloat16` or `float16`. Convolutions store their kernels in it. Other layers keep
            float32 variables, because the sums of a batch norm need them.
        drop: names of layers with one input to leave out of the copy.
        add_bias: names of convolutions that get a bias in the copy; the caller sets their weights.
    """
    kept_float32 = _before_first_weights(network) | {layer.name for layer in producers(network.outputs)}

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(config)
        config["dtype"] = "float32" if layer.name in kept_float32 else _policy(layer, precision)
        if layer.name in add_bias:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in drop or _is_cast(layer) else layer(*args, **kwargs)

    copied = keras.models.clone_model(network, clone_function=copy, call_function=call)
    for layer in network.layers:
        if layer.weights and layer.name not in {*drop, *add_bias}:
            copied.get_layer(layer.name).set_weights(layer.get_weights())
    return copied


def producers(tensors: Iterable[Any]) -> list[keras.layers.Layer]:
    """Returns the layer that each symbolic tensor comes from."""
    return [tensor._keras_history.operation for tensor in tensors]


def _policy(layer: keras.layers.Layer, precision: str) -> str:
    """Returns the Keras dtype policy of a layer in the copy."""
    if precision == "float32" or isinstance(layer, CONVOLUTIONS):
        return precision
    return f"mixed_{precision}"


def _is_cast(operation: Any) -> bool:
    """Tells whether an operation is a cast between precisions; the layers of the copy cast their inputs themselves."""
    return type(operation).__name__ == "Cast" and "float" in operation.dtype


def _before_first_weights(network: keras.Model) -> set[str]:
    """Returns the names of the layers without weights before the first layer with weights."""
    names: set[str] = set()
    for layer in network.layers:
        inputs = producers(tf.nest.flatten(layer.input)) if layer._inbound_nodes else []
        if not layer.weights and all(before is layer or before.name in names for before in inputs):
            names.add(layer.name)
    return names
