"""Reads weights of the encoders from the folders of keras-hub's presets, without keras-hub.

Source: keras_hub/src/models/*/*_backbone.py, keras-hub 0.32.0. Their weights were converted from timm and Hugging Face,
whose networks compute the same. A file numbers the layers of each class in the order of the network.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from components.errors import UsageError
from trainer.models import encoders
from trainer.models.pytorch_weights import EPSILON, Weights, rescaled

_CONFIG = "config.json"
WEIGHTS = "model.weights.h5"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network of keras-hub that computes the same as an encoder.

    Attributes:
        config: entries of a preset's configuration that distinguish this variant from others.
        paths: paths in the weights file, by the names of the encoder's layers.
    """

    config: Mapping[str, Any]
    paths: Mapping[str, str]


def _layers(encoder: str) -> list[str]:
    return list(itertools.chain.from_iterable(encoders.ENCODERS[encoder].blocks))


def _numbered(layers: Iterable[str]) -> dict[str, str]:
    """Returns the paths of convolutions and batch normalisations, given in the network's order."""
    counts: collections.Counter[str] = collections.Counter()
    paths = {}
    for layer in layers:
        kind = "batch_normalization" if layer.endswith("_bn") else "conv2d"
        if layer.endswith("_depthwise_conv"):
            kind = "depthwise_conv2d"
        paths[layer] = f"layers/{_number(kind, counts[kind])}"
        counts[kind] += 1
    return paths


def _number(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind


def _resnet50() -> dict[str, str]:
    def place(layer: str) -> tuple[int, int, int]:
        stage, block, step = re.findall(r"\d+", layer)
        # The shortcut's convolution, number 0, comes between the second and the third: a file orders layers by distance
        # from the output, and this one is as far as the last one.
        return int(stage), int(block), (1, 2, 0, 3).index(int(step))

    stem, others = _layers("resnet50")[:2], _layers("resnet50")[2:]
    return _numbered([*stem, *sorted(others, key=place)])


def _mit_b0(folder: str = "layers") -> dict[str, str]:
    paths = []
    for stage in range(4):
        paths += [f"{_number('overlapping_patching_and_embedding', stage)}/{step}" for step in ("proj", "norm")]
        # The last stage does not reduce keys and values.
        attention = ("q", "sr", "norm", "k", "v", "proj") if stage < 3 else ("q", "k", "v", "proj")
        steps = ["norm1", *(f"attn/{step}" for step in attention), "norm2", "mlp/fc1", "mlp/dwconv", "mlp/fc2"]
        blocks = [_number("hierarchical_transformer_encoder", 2 * stage + block) for block in range(2)]
        paths += [f"{block}/{step}" for block in blocks for step in steps]
        paths.append(_number("layer_normalization", stage))
    return {layer: f"{folder}/{path}" for layer, path in zip(_layers("mit_b0"), paths, strict=True)}


_MIT_B0 = {"hidden_dims": [32, 64, 160, 256], "layerwise_depths": [2, 2, 2, 2]}
# By encoder and by the class that a preset's configuration names.
BACKBONES: Mapping[str, Mapping[str, Backbone]] = {
    "vgg16": {"VGGBackbone": Backbone({"stackwise_num_repeats": [2, 2, 3, 3, 3]}, _numbered(_layers("vgg16")))},
    "resnet50": {
        "ResNetBackbone": Backbone(
            {
                "block_type": "bottleneck_block",
                "use_pre_activation": False,
                "input_conv_filters": [64],
                "stackwise_num_blocks": [3, 4, 6, 3],
            },
            _resnet50(),
        )
    },
    "efficientnet_lite0": {
        "EfficientNetBackbone": Backbone(
            {
                "activation": "relu6",
                "include_stem_padding": True,
                "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
                "stackwise_squeeze_and_excite_ratios": [0] * 7,
                # Width and depth have other names in older presets, so shapes of weights must tell them apart.
            },
            _numbered(_layers("efficientnet_lite0")),
        )
    },
    "mit_b0": {
        "MiTBackbone": Backbone(_MIT_B0, _mit_b0()),
        "SegFormerBackbone": Backbone(_MIT_B0, _mit_b0("layers/functional/layers")),
    },
}


def read(folder: str, encoder: str, model: keras.Model, expected: str) -> dict[str, Weights]:
    """Returns the weights of an encoder's layers from the folder of a preset, by the layers' names.

    Args:
        folder: the folder, with `config.json` and `WEIGHTS`.
        encoder: name of the encoder, a key of `encoders.ENCODERS`.
        model: a model that contains the encoder's layers under their own names.
        expected: end of the message if the preset is of another class: the sources that the encoder has.

    Raises:
        UsageError: if the folder is not a preset, the preset is of another network, or its file cannot be read.
    """
    found, config = _described(folder)
    backbone = BACKBONES.get(encoder, {}).get(found)
    if backbone is None:
        raise UsageError(f"model.encoder_weights: {folder} holds {found}, for the encoder {encoder}; {expected}")
    for name, value in backbone.config.items():
        if config.get(name) != value:
            raise UsageError(
                f"model.encoder_weights: {folder} holds a {found} with {name} {config.get(name)}, expected {value}; "
                f"choose a preset of the network {encoder}"
            )
    path = os.path.join(folder, WEIGHTS)
    try:
        with h5py.File(path) as file:
            return {name: _read(file, at, model.get_layer(name)) for name, at in backbone.paths.items()}
    except (OSError, KeyError) as error:
        raise UsageError(
            f"encoder weights {path}: not the weights of keras-hub's {found} ({error}); download the preset again"
        ) from error


def _described(folder: str) -> tuple[str, dict[str, Any]]:
    """Returns the class of a preset and its configuration; for SegFormer, the configuration of its image encoder."""
    try:
        with open(os.path.join(folder, _CONFIG), encoding="utf-8") as file:
            content = json.load(file)
        found, config = content["class_name"], content["config"]
        return found, config["image_encoder"]["config"] if "image_encoder" in config else config
    except (OSError, ValueError, KeyError, TypeError):
        return "no preset of keras-hub", {}


def _read(file: h5py.File, path: str, layer: keras.layers.Layer) -> Weights:
    """Returns a layer's weights, in its own layout."""
    if path not in file:
        raise KeyError(f"no {path}")  # HDF5's own error lacks the path
    stored = file[f"{path}/vars"]
    first, *others = (stored[str(index)][()].astype(np.float32) for index in range(len(stored)))
    if isinstance(layer, keras.layers.BatchNormalization):
        variance = others[-1]
        return [rescaled(first, variance, EPSILON, layer), *others]
    if isinstance(layer, keras.layers.LayerNormalization):
        return [first, *others]
    # In transformers, keras-hub has dense layers instead of 1x1 convolutions.
    kernel = first.reshape(1, 1, *first.shape) if first.ndim == 2 else first
    if not layer.use_bias:
        # In keras-hub, the layer of the attention's keys has a bias, which the softmax cancels.
        return [kernel]
    # Unlike keras-hub's, Keras' ResNet50 has biases before its batch normalisation.
    return [kernel, *(others or [np.zeros(kernel.shape[-1], np.float32)])]
