"""The encoders: networks of Keras Applications and of this folder, without their classifiers.

Each entry names its features by stride, the layers of its five blocks, and its pre-processing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from components.weight_sources import from_pytorch
from trainer.config import ModelSettings
from trainer.models import convnext, efficientnet_lite, mit, preprocessing, pytorch_variants
from trainer.models.normalization import MOMENTUM

# Names of layers for each of the five blocks, which end at strides 2, 4, 8, 16 and 32. If an encoder begins with a
# stride of 4, its first block is the stem, and the second is the rest of that stride.
Blocks = tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder.

    Attributes:
        application: constructor of the network, with the arguments of Keras Applications.
        pixels: the pre-processing that its pretrained weights expect, a function of `preprocessing`.
        features: layers whose output has stride 2, 4, 8, 16 and 32; None if no layer has that stride.
        skips: the last layers at strides 1, 2, 4, 8 and 16; None if no layer has that stride.
        deepest: the last layer of the network if its last strides are replaced by dilation.
        blocks: all layers with weights, block by block.
        pytorch: constructor for weights from PyTorch's libraries, if they need another network.
    """

    application: Callable[..., keras.Model]
    pixels: Callable[[Any], Any]
    features: tuple[str | None, str, str, str, str]
    skips: tuple[str | None, str | None, str, str, str]
    deepest: str
    blocks: Blocks
    pytorch: Callable[..., keras.Model] | None = None


def _resnet50_blocks() -> Blocks:
    blocks: list[tuple[str, ...]] = [("conv1_conv", "conv1_bn")]
    for stage, units in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        # Number 0 is the convolution in the shortcut; only a stage's first unit has it.
        convolutions = [(unit, k) for unit in range(1, units + 1) for k in range(0 if unit == 1 else 1, 4)]
        names = [f"conv{stage}_block{unit}_{k}" for unit, k in convolutions]
        blocks.append(tuple(f"{name}_{kind}" for name in names for kind in ("conv", "bn")))
    return tuple(blocks)


def _mobilenet_v2_blocks() -> Blocks:
    steps = ["expanded_conv_depthwise", "expanded_conv_project"]
    steps += [f"block_{i}_{step}" for i in range(1, 17) for step in ("expand", "depthwise", "project")]
    names = ["Conv1", "bn_Conv1", *(f"{step}{suffix}" for step in steps for suffix in ("", "_BN"))]
    # These convolutions halve the size.
    starts = [0, *(names.index(f"block_{i}_depthwise") for i in (1, 3, 6, 13)), len(names)]
    return tuple(tuple(names[start:end]) for start, end in itertools.pairwise(starts))


def _strided(
    application: Callable[..., keras.Model],
    pixels: Callable[[Any], Any],
    features: tuple[str | None, str, str, str, str],
    blocks: Blocks,
    pytorch: Callable[..., keras.Model] | None = None,
) -> Encoder:
    """Returns an encoder whose blocks start with a stride, so that a block's last features are also its skip."""
    return Encoder(application, pixels, features, (None, *features[:-1]), features[-1], blocks, pytorch)


def _efficientnet_lite(
    application: Callable[..., keras.Model],
    scales: tuple[float, float],
    pytorch: Callable[..., keras.Model] | None = None,
) -> Encoder:
    features, blocks = efficientnet_lite.features(*scales), efficientnet_lite.layers_with_weights(*scales)
    return _strided(application, preprocessing.minus_127_over_128, features, blocks, pytorch)


_STAGE_NORMS = (None, "stage1_norm", "stage2_norm", "stage3_norm", "stage4_norm")
VGG16 = Encoder(
    application=keras.applications.VGG16,
    pixels=preprocessing.bgr_minus_imagenet_mean,
    features=("block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"),
    skips=("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
    deepest="block5_conv3",
    blocks=tuple(
        tuple(f"block{block}_conv{k}" for k in range(1, convolutions + 1))
        for block, convolutions in enumerate((2, 2, 3, 3, 3), 1)
    ),
)
ENCODERS = {
    "vgg16": VGG16,
    "resnet50": _strided(
        keras.applications.ResNet50,
        preprocessing.bgr_minus_imagenet_mean,
        ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        _resnet50_blocks(),
        pytorch_variants.ResNet50,
    ),
    # Features are the widest of their size, which the next block has expanded. The 1x1 convolution from 320 to 1280
    # channels belongs to the classifier and is left out.
    "mobilenet_v2": _strided(
        keras.applications.MobileNetV2,
        preprocessing.minus_one_to_one,
        (
            "block_1_expand_relu",
            "block_3_expand_relu",
            "block_6_expand_relu",
            "block_13_expand_relu",
            "block_16_project_BN",
        ),
        _mobilenet_v2_blocks(),
        pytorch_variants.MobileNetV2,
    ),
    "efficientnet_lite0": _efficientnet_lite(
        efficientnet_lite.EfficientNetLite0, efficientnet_lite.LITE0, pytorch_variants.EfficientNetLite0
    ),
    "efficientnet_lite2": _efficientnet_lite(efficientnet_lite.EfficientNetLite2, efficientnet_lite.LITE2),
    "convnext_tiny": _strided(
        convnext.ConvNeXtTiny, preprocessing.imagenet_mean_and_deviation, _STAGE_NORMS, convnext.BLOCKS
    ),
    "mit_b0": _strided(mit.MiTB0, preprocessing.imagenet_mean_and_deviation, _STAGE_NORMS, mit.BLOCKS),
}


def chosen(settings: ModelSettings) -> Encoder:
    """Returns the encoder that the settings name, in the form that its weights expect."""
    encoder = ENCODERS[settings.encoder]
    if not from_pytorch(settings.encoder_weights):
        return encoder
    return dataclasses.replace(
        encoder,
        application=encoder.pytorch or encoder.application,
        pixels=preprocessing.imagenet_mean_and_deviation,
    )


def pixels(settings: ModelSettings) -> Callable[[Any], Any]:
    """Returns the pre-processing of an encoder's pretrained weights; for random ones, the scaling to -1 to 1."""
    return preprocessing.minus_one_to_one if settings.encoder_weights == "none" else chosen(settings).pixels


def extract(encoder: Encoder, x: Any, layers: Sequence[str]) -> list[Any]:
    """Applies an encoder to pre-processed pixels [B, H, W, 3] and returns the outputs of the named layers."""
    network = encoder.application(include_top=False, weights=None, input_tensor=x)
    set_batch_norm_momentum(network)
    return [network.get_layer(name).output for name in layers]


def set_batch_norm_momentum(network: keras.Model) -> None:
    """Sets the momentum of an encoder's batch normalisation to that of all other layers."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
