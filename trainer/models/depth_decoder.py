"""A second decoder on a network's encoder, which estimates the depth of each pixel.

It is a copy of the class decoder with its own weights, so it suits any encoder-decoder architecture. Source of a shared
encoder with a decoder for each task: MultiNet, Teichmann et al. 2018, arXiv 1612.07695.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from trainer.models import preprocessing

# The estimate before training, in metres.
_INITIAL_DEPTH = 10.0


def attach(model: keras.Model, deepest: str) -> keras.Model:
    """Adds a depth decoder to a network.

    Args:
        model: from images to logits, [B, H, W, num_classes]; the result contains its layers.
        deepest: the last layer of the encoder. The decoders share all that it depends on.

    Returns:
        A model from the same images to a list: logits, and the logarithm of the depth in metres, float32 [B, H, W, 1].
    """
    encoder = keras.Model(model.input, model.get_layer(deepest).output)
    shared = {operation.name for operation in encoder.operations}

    def copy(layer: Any) -> Any:
        if layer.name in shared:
            return layer
        return type(layer).from_config({**layer.get_config(), "name": f"depth_{layer.name}"})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer.output if layer.name in shared else layer(*args, **kwargs)

    decoder = keras.models.clone_model(model, input_tensors=model.input, clone_function=copy, call_function=call)
    with preprocessing.scores_policy():
        bias = keras.initializers.Constant(math.log(_INITIAL_DEPTH))
        log_depth = keras.layers.Conv2D(1, 1, bias_initializer=bias, name="log_depth")(decoder.output)
    return keras.Model(model.input, [model.output, log_depth], name=model.name)
