"""The two heads on the features of a box: class and box offsets, and mask (Mask R-CNN, figure 4, right)."""

from __future__ import annotations

import keras
from keras import layers

# Height and width of the input of each head, and of the masks.
BOX_BINS, MASK_BINS, MASK_SIZE = 7, 14, 28


def box_head(filters: int, things: int) -> keras.Model:
    """Returns a model from features [B, R, 7, 7, filters] to class logits and offsets.

    The logits are float32 [B, R, 1 + things], the offsets of each class's box float32 [B, R, 4 things].
    """
    features = keras.Input((None, BOX_BINS, BOX_BINS, filters), name="box_features")
    x = layers.Reshape((-1, BOX_BINS**2 * filters))(features)
    # 1024 units for 256 channels, as in the paper.
    for name in ("box_fc1", "box_fc2"):
        x = layers.Dense(4 * filters, activation="relu", kernel_initializer="he_normal", name=name)(x)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(1 + things, kernel_initializer=normal, dtype="float32", name="box_classes")(x)
    small = keras.initializers.RandomNormal(stddev=0.001)
    offsets = layers.Dense(4 * things, kernel_initializer=small, dtype="float32", name="box_offsets")(x)
    return keras.Model(features, [logits, offsets], name="box_head")


def mask_head(filters: int, things: int) -> keras.Model:
    """Returns a model from features [N, 14, 14, filters] to masks of each class, logits float32 [N, 28, 28, things]."""
    features = x = keras.Input((MASK_BINS, MASK_BINS, filters), name="mask_features")
    for number in range(1, 5):
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"mask_conv{number}"
        )(x)
    x = layers.Conv2DTranspose(
        filters, 2, strides=2, activation="relu", kernel_initializer="he_normal", name="mask_upsampled"
    )(x)
    logits = layers.Conv2D(things, 1, dtype="float32", name="mask_logits")(x)
    return keras.Model(features, logits, name="mask_head")
