"""A second decoder on a network's encoder, which estimates the depth of each pixel.

It is a copy of the decoder of the classes with weights of its own, so any architecture of an encoder and a decoder can
have one. Source of a shared encoder with a decoder for each task: MultiNet, Teichmann et al. 2018, arXiv 1612.07695.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from trainer.models import preprocessing

# Before training every pixel is about this far away, in metres.
_FIRST_DEPTH = 10.0


def attach(model: keras.Model, deepest: str) -> keras.Model:
    """Returns a network that gives a list: the logits of `model`, and the logarithm of the depth.

    Args:
        model: from images to logits, [B, H, W, num_classes]; its layers become those of the result.
        deepest: the layer that ends the encoder. All that it depends on is shared.

    Returns:
        A model from the same images to logits, and to the logarithm of the depth in metres, float32 [B, H, W, 1].
    """
    shared = _upstream(model.get_layer(deepest))

    def copy(layer: Any) -> Any:
        if layer.name in shared:
            return layer
        return type(layer).from_config({**layer.get_config(), "name": f"depth_{layer.name}"})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer.output if layer.name in shared else layer(*args, **kwargs)

    decoder = keras.models.clone_model(model, input_tensors=model.input, clone_function=copy, call_function=call)
    with preprocessing.scores_policy():
        bias = keras.initializers.Constant(math.log(_FIRST_DEPTH))
        log_depth = keras.layers.Conv2D(1, 1, bias_initializer=bias, name="log_depth")(decoder.output)
    return keras.Model(model.input, [model.output, log_depth], name=model.name)


def _upstream(layer: Any) -> set[str]:
    """Returns the names of a layer and of all that it depends on."""
    names: set[str] = set()
    waiting = [layer]
    while waiting:
        operation = waiting.pop()
        if operation.name not in names:
            names.add(operation.name)
            waiting += [parent.operation for node in operation._inbound_nodes for parent in node.parent_nodes]
    return names
