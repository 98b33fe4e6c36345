"""SegNet: VGG16 with batch normalisation, mirrored by a decoder that unpools with the encoder's indices.

Source: Badrinarayanan, Kendall and Cipolla 2015, arXiv 1511.00561, in the form that the authors published, with a ReLU
after each batch normalisation of the decoder. Without softmax.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.normalization import BatchNormalization
from trainer.models.unpooling import MaxPoolingWithIndices, MaxUnpooling

STRIDE = 32

# Convolutions and filters of VGG16's blocks. Keras Applications' network has no place for the batch normalisation
# between convolution and ReLU.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

# The encoder's layers with weights, block by block; VGG16's pretrained weights fit the convolutions.
BLOCKS: encoders.Blocks = tuple(
    tuple(f"block{block}_{kind}{k}" for k in range(1, convolutions + 1) for kind in ("conv", "normalize"))
    for block, (convolutions, _) in enumerate(_BLOCKS, 1)
)
# The decoder's levels, without the last.
DEEP_LAYERS = tuple(f"decoder{level}_relu1" for level in range(len(_BLOCKS), 1, -1))


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], num_classes: int) -> keras.Model:
    """Builds the network; see `registry.Architecture` for arguments and result.

    Settings: `encoder_weights`, which determine the pre-processing.
    """
    image = preprocessing.image_input(input_size)
    x = encoders.pixels(settings)(image)
    pooling_indices = []
    for block, (convolutions, filters) in enumerate(_BLOCKS, 1):
        for k in range(1, convolutions + 1):
            x = _convolution(x, filters, f"block{block}", k)
        x, indices = MaxPoolingWithIndices(name=f"block{block}_pool")(x)
        pooling_indices.append(indices)
    for level in range(len(_BLOCKS), 0, -1):
        x = _decoder_block(x, pooling_indices[level - 1], level)
    with preprocessing.scores_policy():
        logits = keras.layers.Conv2D(num_classes, 3, padding="same", name="classes")(x)
    return keras.Model(image, preprocessing.float32_logits(logits), name="segnet")


def _decoder_block(x: Any, indices: Any, level: int) -> Any:
    """Unpools and applies a block's convolutions in reverse; the last has the filters of the level below.

    In level 1, the convolution to classes takes the place of the last one.
    """
    x = MaxUnpooling(name=f"decoder{level}_unpool")((x, indices))
    convolutions, filters = _BLOCKS[level - 1]
    for k in range(convolutions, 1, -1):
        x = _convolution(x, filters, f"decoder{level}", k)
    return _convolution(x, _BLOCKS[level - 2][1], f"decoder{level}", 1) if level > 1 else x


def _convolution(x: Any, filters: int, block: str, k: int) -> Any:
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{block}_conv{k}")(x)
    x = BatchNormalization(name=f"{block}_normalize{k}")(x)
    return keras.layers.Activation("relu", name=f"{block}_relu{k}")(x)
