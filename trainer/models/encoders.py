"""The encoders to choose from: networks of Keras Applications and of files beside this one, without classifiers.

Each names its features by stride, the layers of its five blocks, and the pixels that its pretrained weights expect.
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

# Names of layers; one entry for each of the five blocks, which end at strides 2, 4, 8, 16 and 32. If an encoder begins
# with a stride of 4, its first block is its stem, and the second is what follows at that stride.
Blocks = tuple[tuple[str, ...], ...]

# Keras Applications averages over 100 to 1,000 steps. A training here takes a few hundred, after which
# the statistics would still be those of the initial weights.
_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What architectures know of an encoder.

    Attributes:
        application: the network's constructor, of Keras Applications or with the same arguments.
        pixels: what its pretrained weights expect of an image, a function of `preprocessing`.
        features: layers whose output has stride 2, 4, 8, 16 and 32; None if no layer has that stride.
        skips: the last layers before the size halves, at strides 1, 2, 4, 8 and 16; None if there is no such layer.
        deepest: the layer that ends the network when its last strides are dilated away.
        blocks: the layers with weights, block by block; all others have none.
        pytorch: the constructor of the network that weights from PyTorch's libraries fit, if it is another.
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
        # Only a stage's first unit has a convolution, number 0, in its shortcut.
        convolutions = [(unit, k) for unit in range(1, units + 1) for k in range(0 if unit == 1 else 1, 4)]
        names = [f"conv{stage}_block{unit}_{k}" for unit, k in convolutions]
        blocks.append(tuple(f"{name}_{kind}" for name in names for kind in ("conv", "bn")))
    return tuple(blocks)


def _mobilenet_v2_blocks() -> Blocks:
    names = ["Conv1", "bn_Conv1"]
    for unit, steps in [
        ("expanded_conv", ("depthwise", "project")),
        *((f"block_{i}", ("expand", "depthwise", "project")) for i in range(1, 17)),
    ]:
        names += [f"{unit}_{step}{suffix}" for step in steps for suffix in ("", "_BN")]
    # These convolutions halve the size.
    starts = [0, *(names.index(f"block_{i}_depthwise") for i in (1, 3, 6, 13)), len(names)]
    return tuple(tuple(names[start:end]) for start, end in itertools.pairwise(starts))


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
RESNET50 = Encoder(
    application=keras.applications.ResNet50,
    pixels=preprocessing.bgr_minus_imagenet_mean,
    features=("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    skips=(None, "conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out"),
    deepest="conv5_block3_out",
    blocks=_resnet50_blocks(),
    pytorch=pytorch_variants.ResNet50,
)
# Features are the widest of their size, where the next block has expanded them; the 1x1 convolution
# from 320 to 1280 channels, made for the classifier, is left out.
MOBILENET_V2 = Encoder(
    application=keras.applications.MobileNetV2,
    pixels=preprocessing.minus_one_to_one,
    features=(
        "block_1_expand_relu",
        "block_3_expand_relu",
        "block_6_expand_relu",
        "block_13_expand_relu",
        "block_16_project_BN",
    ),
    skips=(None, "block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu"),
    deepest="block_16_project_BN",
    blocks=_mobilenet_v2_blocks(),
    pytorch=pytorch_variants.MobileNetV2,
)


def _efficientnet_lite(application: Callable[..., keras.Model], scales: tuple[float, float]) -> Encoder:
    features = efficientnet_lite.features(*scales)
    return Encoder(
        application=application,
        pixels=preprocessing.minus_127_over_128,
        features=features,
        skips=(None, *features[:-1]),
        deepest=features[-1],
        blocks=efficientnet_lite.layers_with_weights(*scales),
    )


CONVNEXT_TINY = Encoder(
    application=convnext.ConvNeXtTiny,
    pixels=preprocessing.imagenet_mean_and_deviation,
    features=(None, *convnext.FEATURES),
    skips=(None, None, *convnext.FEATURES[:-1]),
    deepest=convnext.FEATURES[-1],
    blocks=convnext.layers_with_weights(),
)
MIT_B0 = Encoder(
    application=mit.MiTB0,
    pixels=preprocessing.imagenet_mean_and_deviation,
    features=(None, *mit.FEATURES),
    skips=(None, None, *mit.FEATURES[:-1]),
    deepest=mit.FEATURES[-1],
    blocks=mit.layers_with_weights(),
)

ENCODERS = {
    "vgg16": VGG16,
    "resnet50": RESNET50,
    "mobilenet_v2": MOBILENET_V2,
    "efficientnet_lite0": _efficientnet_lite(efficientnet_lite.EfficientNetLite0, efficientnet_lite.LITE0),
    "efficientnet_lite2": _efficientnet_lite(efficientnet_lite.EfficientNetLite2, efficientnet_lite.LITE2),
    "convnext_tiny": CONVNEXT_TINY,
    "mit_b0": MIT_B0,
}


def name(settings: ModelSettings, default: str) -> str:
    """Returns the name of the encoder that the settings choose, or of an architecture's own."""
    return default if settings.encoder == "default" else settings.encoder


def chosen(settings: ModelSettings, default: str) -> Encoder:
    """Returns the encoder that the settings name, or an architecture's own, as its weights expect it."""
    encoder = ENCODERS[name(settings, default)]
    if not from_pytorch(settings.encoder_weights):
        return encoder
    return dataclasses.replace(
        encoder,
        application=encoder.pytorch or encoder.application,
        pixels=preprocessing.imagenet_mean_and_deviation,
    )


def pixels(settings: ModelSettings, encoder: Encoder) -> Callable[[Any], Any]:
    """Returns the pre-processing: what pretrained weights were trained on, and -1 to 1 for random ones."""
    return preprocessing.minus_one_to_one if settings.encoder_weights == "none" else encoder.pixels


def extract(encoder: Encoder, x: Any, layers: Sequence[str]) -> list[Any]:
    """Puts an encoder's layers on prepared pixels [B, H, W, 3] and returns the named layers' outputs.

    Its batch normalisation learns and updates its statistics like any other layer's. A layer that is set untrainable
    normalises with the statistics it has and no longer changes them.
    """
    network = encoder.application(include_top=False, weights=None, input_tensor=x)
    set_batch_norm_momentum(network)
    return [network.get_layer(name).output for name in layers]


def set_batch_norm_momentum(network: keras.Model) -> None:
    """Shortens the memory of an encoder's batch normalisation to that of the other layers."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _MOMENTUM
