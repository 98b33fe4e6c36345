"""The preprocessing function that Transform runs: decode, resize, even the exposure where asked, encode.

The same graph prepares images for training, evaluation and serving, so the three cannot differ.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components import features

# What `even_exposure` brings the log-average of an image's luma to, about that of CamVid's frames by day, and the
# largest factor either way: a black frame stays black.
KEY = 80.0
MAX_GAIN = 4.0


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Resizes images (bilinear, antialiased) and masks (nearest) to the model's input size.

    Args:
        inputs: raw features; IMAGE, string [B] or [B, 1], encoded PNG or JPEG; MASK likewise, grey PNG.
        custom_config: "input_size": [height, width] in pixels; "auto_exposure": whether images are brought to one
            exposure, see `even_exposure`.

    Returns:
        TRANSFORMED_IMAGE and TRANSFORMED_MASK, string [B]: PNG at the input size. PNG is lossless
        and the smallest of the types Transform can write.
    """
    height, width = custom_config["input_size"]
    even = custom_config["auto_exposure"]
    return {
        features.TRANSFORMED_IMAGE: _map_bytes(
            lambda data: resize_image(data, height, width, even), inputs[features.IMAGE]
        ),
        features.TRANSFORMED_MASK: _map_bytes(lambda data: resize_mask(data, height, width), inputs[features.MASK]),
    }


def resize_image(data: tf.Tensor, height: int, width: int, even: bool) -> tf.Tensor:
    """Decodes an encoded image, string [], and returns it resized, its exposure evened if asked, as an RGB PNG."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    resized = tf.image.resize(image, (height, width), method="bilinear", antialias=True)
    pixels = even_exposure(resized) if even else resized
    return tf.io.encode_png(tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8), compression=1)


def even_exposure(image: tf.Tensor) -> tf.Tensor:
    """Makes dark and light images about equally light, so that a network need not learn each street at each hour.

    Multiplies all values by one factor, after which the log-average of the luma is `KEY` where `MAX_GAIN` allows.
    The log-average is the measure of a scene's light that a few bright places, such as its sky, change least
    (Reinhard et al. 2002, Photographic tone reproduction, equation 1).

    Args:
        image: RGB, 0 to 255, float32 [H, W, 3].

    Returns:
        Same shape and type; values may exceed 255.
    """
    # One is added, as the logarithm of black has no end.
    key = tf.exp(tf.reduce_mean(tf.math.log(tf.image.rgb_to_grayscale(image) + 1)))
    return image * tf.clip_by_value(KEY / key, 1 / MAX_GAIN, MAX_GAIN)


def resize_mask(data: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes a grey PNG mask, string [], and returns it resized as a grey PNG, string []."""
    mask = tf.io.decode_png(data, channels=1)
    resized = tf.image.resize(mask, (height, width), method="nearest")
    return tf.io.encode_png(resized, compression=1)


def _map_bytes(function: Any, data: tf.Tensor) -> tf.Tensor:
    """Applies a function of one encoded image to each of a batch; one at a time, as sizes differ."""
    return tf.map_fn(function, tf.reshape(data, [-1]), fn_output_signature=tf.string)
