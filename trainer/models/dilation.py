"""Encoders whose features stay large: the last strides are taken out and the kernels after them dilated.

Keras Applications has no argument for this, so its network is built, and then cloned with the
configurations of a few layers changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.encoders import Encoder

# Layers tell their stride by their sizes: any power of two serves that exceeds every kernel.
_PROBE = 256

# The layers of encoders whose configuration depends on the stride.
_SIZED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.MaxPooling2D, keras.layers.ZeroPadding2D)


def extract(
    settings: ModelSettings,
    encoder: Encoder,
    input_size: tuple[int | None, int | None],
    layers: Sequence[str],
    output_stride: int,
) -> tuple[Any, list[Any]]:
    """Builds image input, pre-processing and encoder, up to `encoder.deepest`.

    The weights keep their shapes and see what they saw before: at the positions that the strides
    would have kept, the features are the same numbers. Source: Yu and Koltun 2015, arXiv 1511.07122.

    Args:
        settings: says which pixels the encoder gets.
        encoder: the network.
        input_size: height and width in pixels, multiples of `output_stride`, or None.
        layers: layers of the encoder.
        output_stride: the largest stride that is left, a power of two.

    Returns:
        The image input, and the outputs of the layers.
    """
    probe_image = preprocessing.image_input((_PROBE, _PROBE))
    prepared = encoders.pixels(settings, encoder)(probe_image)
    probe = encoder.application(include_top=False, weights=None, input_tensor=prepared)
    image = preprocessing.image_input(input_size)
    network = keras.models.clone_model(
        keras.Model(probe_image, probe.get_layer(encoder.deepest).output),
        input_tensors=image,
        clone_function=lambda layer: layer.__class__.from_config(_dilated(layer, output_stride)),
    )
    encoders.set_batch_norm_momentum(network)
    return image, [network.get_layer(name).output for name in layers]


def _dilated(layer: keras.Layer, output_stride: int) -> dict[str, Any]:
    """Returns the configuration of a layer's clone."""
    config = layer.get_config()
    if not isinstance(layer, _SIZED):
        return config
    rate = _stride(layer.input) // output_stride
    if isinstance(layer, keras.layers.ZeroPadding2D):
        # Before a stride of 2: a kernel reaches `before` and `after + 1` pixels from its centre.
        if rate:
            config["padding"] = tuple((before * rate, (after + 1) * rate) for before, after in layer.padding)
        return config
    if _stride(layer.output) > output_stride:
        config["strides"] = (1, 1)
        if isinstance(layer, keras.layers.MaxPooling2D):
            config["padding"] = "same"
        elif max(layer.kernel_size) > 1:
            config["dilation_rate"] = (rate, rate)
    return config


def _stride(tensor: Any) -> int:
    """Returns how much smaller than the image a tensor [B, H, W, C] is; padding by a pixel does not count."""
    return 2 ** round(math.log2(_PROBE / tensor.shape[1]))
