"""The VGG16 encoder: thirteen 3x3 convolutions in five blocks, each block ended by a pooling.

Source: Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D, without its dense layers.
"""

from __future__ import annotations

from typing import Any

import keras

# Convolutions and filters of each block.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def layer_names() -> list[str]:
    """Returns the convolutions' names in order, `block1_conv1` to `block5_conv3`, as Keras Applications has them."""
    return [f"block{b}_conv{k}" for b, (convolutions, _) in enumerate(BLOCKS, 1) for k in range(1, convolutions + 1)]


def block(x: Any, index: int, convolutions: int, filters: int) -> Any:
    """Applies one block: 3x3 ReLU convolutions, then 2x2 max pooling, which halves height and width."""
    for k in range(1, convolutions + 1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name=f"block{index}_conv{k}")(x)
    return keras.layers.MaxPooling2D(2, strides=2, name=f"block{index}_pool")(x)


def encoder(x: Any) -> list[Any]:
    """Returns pool1 to pool5 of an image batch [B, H, W, 3]; pool b is [B, H / 2^b, W / 2^b, filters of block b]."""
    pools = []
    for index, (convolutions, filters) in enumerate(BLOCKS, 1):
        x = block(x, index, convolutions, filters)
        pools.append(x)
    return pools
