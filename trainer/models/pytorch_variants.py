"""The encoders' networks with the strides and padding of timm, torchvision, Hugging Face and keras-hub.

Weights from these libraries need them. Layers and shapes of weights are those of the encoder's own network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

from trainer.models import efficientnet_lite

# PyTorch pads 3x3 convolutions by a pixel on each side. At stride 2 on even sizes, the last pixel is never read, and
# without it `dilation` can treat this padding like Keras' own, ((0, 1), (0, 1)).
_PADDING = ((1, 0), (1, 0))


def ResNet50(**options: Any) -> keras.Model:
    """Builds ResNet50 with strides in the 3x3 convolutions ("v1.5"), not in the 1x1 convolutions before them.

    Source: `Bottleneck` in torchvision/models/resnet.py, torchvision 0.29.2.
    """
    first, second = ([f"conv{stage}_block1_{k}_conv" for stage in (3, 4, 5)] for k in (1, 2))
    changes = {name: {"strides": 1} for name in first} | {name: {"strides": 2, "padding": "valid"} for name in second}
    return _changed(keras.applications.ResNet50(**options), changes, padded=second)


def MobileNetV2(**options: Any) -> keras.Model:
    """Builds MobileNetV2 with padding at the start of each side, not at the end, if the stride is 2.

    Source: `DepthwiseSeparableConv` in timm/models/_efficientnet_blocks.py, timm 1.0.31.
    """
    pads = {f"block_{block}_pad": {"padding": _PADDING} for block in (1, 3, 6, 13)}
    changes: dict[str, dict[str, Any]] = {**pads, "Conv1": {"padding": "valid"}}
    return _changed(keras.applications.MobileNetV2(**options), changes, padded=["Conv1"])


def EfficientNetLite0(**options: Any) -> keras.Model:
    """Builds EfficientNet-Lite0 with more padding at the start of each side than at the end, if the stride is 2.

    Source: `_apply_efficientnet_block` in keras_hub/src/models/efficientnet/efficientnet_backbone.py, keras-hub 0.32.0.
    """
    return efficientnet_lite.EfficientNetLite0(**options, pad_start=True)


def _changed(network: keras.Model, changes: Mapping[str, Mapping[str, Any]], padded: Collection[str]) -> keras.Model:
    """Returns a copy with changed arguments of some layers, and `_PADDING` before the layers in `padded`."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), **changes.get(layer.name, {})})

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name in padded:
            args = (keras.layers.ZeroPadding2D(_PADDING, name=f"{layer.name}_pad")(*args),)
        return layer(*args, **kwargs)

    return keras.models.clone_model(network, input_tensors=network.inputs, clone_function=copy, call_function=call)
