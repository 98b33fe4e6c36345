"""Converts weights from timm, torchvision and Hugging Face to those of the encoders' layers, without PyTorch.

Names are those of timm 1.0.31, torchvision 0.29.2 and transformers 5.24.0. The weights fit the networks of
`encoders.chosen`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from components.errors import UsageError

# A layer's arrays in Keras' order.
Weights = Sequence[np.ndarray]

_NORMALIZATION = ("weight", "bias")
_BATCH_NORMALIZATION = (*_NORMALIZATION, "running_mean", "running_var")


def _resnet50(stem: Sequence[str], stage: str, shortcut: Sequence[str], convolution: Sequence[str]) -> list[str]:
    names = list(stem)
    for index, units in enumerate((3, 4, 6, 3)):
        for unit in range(units):
            layer = stage.format(index=index, number=index + 1, unit=unit)
            names += [f"{layer}.{name}" for name in shortcut if unit == 0]
            names += [f"{layer}.{name.format(k=k, number=k + 1)}" for k in range(3) for name in convolution]
    return names


def _timm_mobilenet_v2() -> list[str]:
    names = ["conv_stem", "bn1"]
    for stage, units in enumerate((1, 2, 3, 4, 3, 3, 1)):
        # The first block does not expand, so it has two convolutions.
        convolutions = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
        steps = [step for k, name in enumerate(convolutions, 1) for step in (name, f"bn{k}")]
        names += [f"blocks.{stage}.{unit}.{step}" for unit in range(units) for step in steps]
    return names


def _torchvision_mobilenet_v2() -> list[str]:
    names = ["features.0.0", "features.0.1"]
    for block in range(1, 18):
        steps = ("0.0", "0.1", "1", "2") if block == 1 else ("0.0", "0.1", "1.0", "1.1", "2", "3")
        names += [f"features.{block}.conv.{step}" for step in steps]
    return names


def _convnext(stem: Sequence[str], stage: str, down: str, block: str, steps: Sequence[str], last: str) -> list[str]:
    names = list(stem)
    for index, units in enumerate((3, 3, 9, 3)):
        if index:
            # Downsampling is a normalisation and a convolution.
            names += [f"{stage}.{index}.{down}.{k}" for k in (0, 1)]
        names += [f"{stage}.{index}.{block}.{unit}.{step}" for unit in range(units) for step in steps]
    return [*names, last]


def _mit_b0() -> list[str]:
    names = []
    for stage in range(4):
        names += [f"patch_embeddings.{stage}.{step}" for step in ("proj", "layer_norm")]
        # The last stage does not reduce keys and values.
        attention = ("query", "sr", "layer_norm", "key", "value") if stage < 3 else ("query", "key", "value")
        steps = ["layer_norm_1", *(f"attention.self.{step}" for step in attention), "attention.output.dense"]
        steps += ["layer_norm_2", "mlp.dense1", "mlp.dwconv.dwconv", "mlp.dense2"]
        names += [f"block.{stage}.{unit}.{step}" for unit in range(2) for step in steps]
        names.append(f"layer_norm.{stage}")
    return [f"segformer.encoder.{name}" for name in names]


# By encoder and library: the prefix of the names of each layer's arrays, in the order of `encoders.Encoder.blocks`.
NAMINGS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "vgg16": {"timm or torchvision": [f"features.{k}" for k in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]},
    "resnet50": {
        "timm or torchvision": _resnet50(
            ("conv1", "bn1"), "layer{number}.{unit}", ("downsample.0", "downsample.1"), ("conv{number}", "bn{number}")
        ),
        "Hugging Face": _resnet50(
            ("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"),
            "resnet.encoder.stages.{index}.layers.{unit}",
            ("shortcut.convolution", "shortcut.normalization"),
            ("layer.{k}.convolution", "layer.{k}.normalization"),
        ),
    },
    "mobilenet_v2": {"timm": _timm_mobilenet_v2(), "torchvision": _torchvision_mobilenet_v2()},
    "convnext_tiny": {
        "timm": _convnext(
            ("stem.0", "stem.1"),
            "stages",
            "downsample",
            "blocks",
            ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
            "head.norm",
        ),
        "Hugging Face": _convnext(
            ("convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"),
            "convnext.encoder.stages",
            "downsampling_layer",
            "layers",
            ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
            "convnext.layernorm",
        ),
    },
    "mit_b0": {"Hugging Face": _mit_b0()},
}
# Of batch normalisation in all of these networks, PyTorch's default; Keras' MobileNetV2 has 1e-3.
EPSILON = 1e-5


def read(path: str, encoder: str, model: keras.Model, layers: Sequence[str]) -> dict[str, Weights]:
    """Returns the weights of an encoder's layers from a safetensors file, by the layers' names.

    Args:
        path: the file.
        encoder: name of the encoder, a key of `NAMINGS`.
        model: a model that contains the encoder's layers under their own names.
        layers: the encoder's layers with weights, in the order of its blocks.

    Raises:
        UsageError: if the file cannot be read, or holds another network or one that pads as TensorFlow does.
    """
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"encoder weights {path}: cannot be read ({error}); expected a safetensors file of 32 or 16-bit floats; "
            "download the file again"
        ) from error
    if "mobilenet_v2.conv_stem.first_conv.convolution.weight" in arrays:
        raise UsageError(
            f"encoder weights {path}: found Hugging Face's MobileNetV2, whose convolutions pad as TensorFlow's; "
            "expected timm's or torchvision's; use one of these, imagenet, or the file that imagenet downloads"
        )
    namings = NAMINGS.get(encoder, {})
    for library, prefixes in namings.items():
        if f"{prefixes[0]}.weight" in arrays:
            try:
                names = zip(layers, prefixes, strict=True)
                return {layer: convert(arrays, prefix, model.get_layer(layer)) for layer, prefix in names}
            except KeyError as error:
                raise UsageError(
                    f"encoder weights {path}: no {error.args[0]}, which {library}'s {encoder} has; "
                    f"use the weights of {encoder}"
                ) from error
    known = [f"{prefixes[0]}.weight ({library})" for library, prefixes in namings.items()]
    raise UsageError(
        f"encoder weights {path}: found {', '.join(itertools.islice(arrays, 3))}, ..., expected weights of {encoder} "
        f"with {' or '.join(known) or 'a Keras file: its safetensors files are not supported'}"
    )


def convert(
    arrays: Mapping[str, np.ndarray], name: str, layer: keras.layers.Layer, epsilon: float = EPSILON
) -> Weights:
    """Returns a layer's weights, in Keras' order and layout.

    PyTorch's kernels are [out, in, height, width], of a depthwise convolution [channels, 1, height, width], of a dense
    layer [out, in].

    Args:
        arrays: a checkpoint's arrays.
        name: prefix of the names of the layer's arrays.
        layer: a convolution, a normalisation, or a layer with one array.
        epsilon: of the checkpoint's batch normalisation. If the layer's differs, the scale compensates for it.

    Raises:
        KeyError: if an array is missing.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        scale, offset, mean, variance = (_float32(arrays[f"{name}.{array}"]) for array in _BATCH_NORMALIZATION)
        return [rescaled(scale, variance, epsilon, layer), offset, mean, variance]
    if isinstance(layer, keras.layers.LayerNormalization):
        return [_float32(arrays[f"{name}.{array}"]) for array in _NORMALIZATION]
    if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        return [_float32(arrays[name])]
    kernel = _float32(arrays[f"{name}.weight"])
    kernel = kernel.reshape(*kernel.shape[:2], *(kernel.shape[2:] or (1, 1)))
    kernel = kernel.transpose((2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0))
    if not layer.use_bias:
        return [kernel]
    # Unlike PyTorch's, Keras' ResNet50 has biases before its batch normalisation.
    bias = arrays.get(f"{name}.bias")
    return [kernel, np.zeros(kernel.shape[-1], np.float32) if bias is None else _float32(bias)]


def rescaled(scale: np.ndarray, variance: np.ndarray, epsilon: float, layer: keras.layers.Layer) -> np.ndarray:
    """Returns the scale for a layer of batch normalisation that compensates for the other epsilon of the weights."""
    return scale * np.sqrt((variance + layer.epsilon) / (variance + epsilon))


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False)
