"""The preprocessing function that Transform runs: decode, resize, encode.

The same graph prepares images for training, evaluation and serving, so the three cannot differ.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components import features


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Resizes images (bilinear, antialiased) and masks (nearest) to the model's input size.

    Args:
        inputs: raw features; IMAGE, string [B] or [B, 1], encoded PNG or JPEG; MASK likewise, grey PNG.
        custom_config: "input_size": [height, width] in pixels.

    Returns:
        TRANSFORMED_IMAGE and TRANSFORMED_MASK, string [B]: PNG at the input size. PNG is lossless
        and the smallest of the types Transform can write.
    """
    height, width = custom_config["input_size"]
    return {
        features.TRANSFORMED_IMAGE: _map_bytes(lambda data: resize_image(data, height, width), inputs[features.IMAGE]),
        features.TRANSFORMED_MASK: _map_bytes(lambda data: resize_mask(data, height, width), inputs[features.MASK]),
    }


def resize_image(data: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes an encoded image, string [], and returns it resized as an RGB PNG, string []."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    resized = tf.image.resize(image, (height, width), method="bilinear", antialias=True)
    return tf.io.encode_png(tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8), compression=1)


def resize_mask(data: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes a grey PNG mask, string [], and returns it resized as a grey PNG, string []."""
    mask = tf.io.decode_png(data, channels=1)
    resized = tf.image.resize(mask, (height, width), method="nearest")
    return tf.io.encode_png(resized, compression=1)


def _map_bytes(function: Any, data: tf.Tensor) -> tf.Tensor:
    """Applies a function of one encoded image to each of a batch; one at a time, as sizes differ."""
    return tf.map_fn(function, tf.reshape(data, [-1]), fn_output_signature=tf.string)
