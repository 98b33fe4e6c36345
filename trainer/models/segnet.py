"""SegNet: VGG16 with batch normalisation, mirrored by a decoder that unpools with the encoder's indices.

Source: Badrinarayanan, Kendall and Cipolla 2015, arXiv 1511.00561, in the form the authors published,
whose decoder has a ReLU after each batch normalisation. The softmax is left out: loss and export
work on logits.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.normalization import BatchNormalization
from trainer.models.unpooling import MaxPoolingWithIndices, MaxUnpooling

STRIDE = 32

# Convolutions and filters of VGG16's blocks. Keras Applications' network cannot be taken as it is: the
# normalisation goes between its convolutions and their ReLUs.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

# The encoder's layers with weights, block by block; VGG16's pretrained weights fit the convolutions.
BLOCKS: encoders.Blocks = tuple(
    tuple(f"block{block}_{kind}{k}" for k in range(1, convolutions + 1) for kind in ("conv", "normalize"))
    for block, (convolutions, _) in enumerate(_BLOCKS, 1)
)


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network.

    Args:
        settings: `encoder_weights` alone matters; a pretrained encoder gets the pixels it was trained on.
        input_size: height and width in pixels, multiples of `STRIDE`; None where any such size may come.
        num_classes: channels of the logits.

    Returns:
        A model from RGB, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
    """
    image = preprocessing.image_input(input_size)
    x = encoders.pixels(settings, encoders.chosen(settings, "vgg16"))(image)
    indices = []
    for block, (convolutions, filters) in enumerate(_BLOCKS, 1):
        for k in range(1, convolutions + 1):
            x = convolution(x, filters, f"block{block}", k)
        x, where = MaxPoolingWithIndices(name=f"block{block}_pool")(x)
        indices.append(where)
    for level in range(len(_BLOCKS), 0, -1):
        x = decoder_block(x, indices[level - 1], level)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 3, padding="same", name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="segnet")


def decoder_block(x: Any, indices: Any, level: int) -> Any:
    """Unpools and applies a block's convolutions backwards; the last has the channels of the level below.

    In the first level the classes take its place.
    """
    x = MaxUnpooling(name=f"decoder{level}_unpool")((x, indices))
    convolutions, filters = _BLOCKS[level - 1]
    for k in range(convolutions, 1, -1):
        x = convolution(x, filters, f"decoder{level}", k)
    return convolution(x, _BLOCKS[level - 2][1], f"decoder{level}", 1) if level > 1 else x


def convolution(x: Any, filters: int, block: str, k: int) -> Any:
    """Applies a 3x3 convolution, batch normalisation and a ReLU; height and width stay."""
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{block}_conv{k}")(x)
    x = BatchNormalization(momentum=0.9, name=f"{block}_normalize{k}")(x)
    return keras.layers.Activation("relu", name=f"{block}_relu{k}")(x)


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layers that auxiliary scores can be taken from: the decoder's levels but the last."""
    return tuple(f"decoder{level}_relu1" for level in range(len(_BLOCKS), 1, -1))
