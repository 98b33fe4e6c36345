"""Dilated encoders: the last strides are removed, and the kernels after them dilated.

Keras Applications has no argument for this, so its network is built, and then cloned with other configurations of a
few layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.encoders import Encoder

# Image size of a probe network, where sizes of tensors give their strides. Any power of two above all kernel sizes.
_PROBE = 256

# Layers whose configuration depends on the stride.
_SIZED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.MaxPooling2D, keras.layers.ZeroPadding2D)


def extract(
    settings: ModelSettings,
    encoder: Encoder,
    input_size: tuple[int | None, int | None],
    layers: Sequence[str],
    output_stride: int,
) -> tuple[Any, list[Any]]:
    """Builds image input, pre-processing and encoder, up to `encoder.deepest`.

    Pretrained weights still fit: at the positions that the removed strides would keep, features do not change.
    Source: Yu and Koltun 2015, arXiv 1511.07122.

    Args:
        settings: determines the pre-processing.
        encoder: the network.
        input_size: height and width in pixels, multiples of `output_stride`, or None.
        layers: names of the encoder's layers whose outputs are returned.
        output_stride: the largest stride that remains, a power of two.

    Returns:
        The image input, and the outputs of the layers.
    """
    probe_image = preprocessing.image_input((_PROBE, _PROBE))
    prepared = encoders.pixels(settings)(probe_image)
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
    """Returns the configuration of a layer in the dilated network."""
    config = layer.get_config()
    if not isinstance(layer, _SIZED):
        return config
    rate = _stride(layer.input) // output_stride
    if isinstance(layer, keras.layers.ZeroPadding2D):
        # Precedes a stride of 2, where a kernel reaches `before` and `after + 1` pixels from its centre.
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
    """Returns the stride of a tensor [B, H, W, C] of the probe network; rounding ignores padding by a pixel."""
    return 2 ** round(math.log2(_PROBE / tensor.shape[1]))
