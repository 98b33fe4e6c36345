"""The preprocessing function of Transform: decode, apply EXIF, resize, normalise the exposure if asked, encode.

Training, evaluation and serving use the same graph, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from components import exif, features

# Exposure normalisation: the target for the log-average of an image's luma, about that of CamVid's daylight frames, and
# the largest gain or attenuation, so that a black frame stays black.
KEY = 80.0
MAX_GAIN = 4.0

# The values of a 16-bit PNG that become 0 and 255 by default.
FULL_RANGE = (0, 65535)

# Names of nodes in Transform's graph that `serving.transform_graph` looks up.
ENCODED, PIXELS, SETTINGS = "encoded_images", "image_pixels", "image_settings"


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Resizes images (bilinear, antialiased) and masks (nearest) to the model's input size.

    Args:
        inputs: raw features; IMAGE, string [B] or [B, 1], encoded PNG or JPEG; MASK likewise, grey PNG; with "things"
            HEIGHT and WIDTH, int64 likewise, and the features of instances, ragged int64 [B, None].
            With "depth" DEPTH, grey PNG of 16 bits.
        custom_config: "things": class indices of the classes with instances, empty for semantic segmentation; "depth":
            whether there are depth maps; "input_size": [height, width] in pixels; "normalize_exposure": whether to
            multiply images by `exposure_gain`; "image_range": [low, high], the values of a 16-bit PNG that become 0
            and 255, or None for `FULL_RANGE`.

    Returns:
        TRANSFORMED_IMAGE and TRANSFORMED_MASK, string [B]: PNG at the input size, lossless and the smallest type that
        Transform can write. With "things" also TRANSFORMED_INSTANCES, with "depth" TRANSFORMED_DEPTH, string [B].
    """
    height, width = custom_config["input_size"]
    normalize = custom_config["normalize_exposure"]
    low, high = custom_config.get("image_range") or FULL_RANGE
    settings = tf.constant([height, width, normalize, low, high], tf.float32, name=SETTINGS)
    pixels = tf.map_fn(
        lambda data: resize_image(data, height, width, normalize, settings[3:]),
        tf.identity(tf.reshape(inputs[features.IMAGE], [-1]), ENCODED),
        fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8),
    )
    outputs = {
        features.TRANSFORMED_IMAGE: _map_each(
            lambda image: tf.io.encode_png(image, compression=1), tf.identity(pixels, PIXELS)
        ),
        features.TRANSFORMED_MASK: _map_each(
            lambda data: resize_mask(data, height, width), tf.reshape(inputs[features.MASK], [-1])
        ),
    }
    if custom_config.get("depth"):
        outputs[features.TRANSFORMED_DEPTH] = _map_each(
            lambda data: resize_mask(data, height, width, tf.uint16), tf.reshape(inputs[features.DEPTH], [-1])
        )
    if things := custom_config.get("things"):
        outputs[features.TRANSFORMED_INSTANCES] = tf.map_fn(
            lambda each: resize_instances(*each, things=things, height=height, width=width),
            (
                *(inputs[name] for name in features.INSTANCE_FEATURES),
                *(tf.reshape(inputs[name], [-1]) for name in (features.HEIGHT, features.WIDTH)),
            ),
            fn_output_signature=tf.string,
        )
    return outputs


def resize_image(
    data: tf.Tensor, height: int, width: int, normalize: bool, image_range: Sequence[int] | tf.Tensor = FULL_RANGE
) -> tf.Tensor:
    """Decodes an encoded PNG or JPEG, string [], applies its EXIF orientation, and resizes it.

    Ignores transparency, colour profiles and gamma. An animated PNG gives its first frame.

    Args:
        data: the file's bytes.
        height: of the result, in pixels.
        width: of the result, in pixels.
        normalize: whether to multiply by `exposure_gain`.
        image_range: the values of a 16-bit PNG that become 0 and 255.

    Returns:
        RGB, uint8 [height, width, 3].
    """
    resized = _resized(data, height, width, image_range)
    return _to_uint8(resized * exposure_gain(resized) if normalize else resized)


def own_pixels(
    data: tf.Tensor, height: int, width: int, normalize: bool, image_range: Sequence[int] | tf.Tensor
) -> tf.Tensor:
    """Returns an image as `resize_image` does, but at its own size, uint8 [H, W, 3]."""
    gain = exposure_gain(_resized(data, height, width, image_range)) if normalize else tf.constant(1.0)

    def by_row(stored: tf.Tensor, scale: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        if stored.dtype == tf.uint8 and not normalize:
            return stored
        # One row at a time: the whole image as floats would take four times its bytes.
        return tf.map_fn(lambda row: _to_uint8(scale(row) * gain), stored, fn_output_signature=tf.uint8)

    return _decode(data, image_range, by_row)


def _resized(data: tf.Tensor, height: int, width: int, image_range: Sequence[int] | tf.Tensor) -> tf.Tensor:
    def resize(stored: tf.Tensor, scale: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        # The values are scaled after the image has become small.
        return scale(tf.image.resize(stored, (height, width), method="bilinear", antialias=True))

    return _decode(data, image_range, resize)


def _decode(
    data: tf.Tensor,
    image_range: Sequence[int] | tf.Tensor,
    use: Callable[[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]], tf.Tensor],
) -> tf.Tensor:
    """Decodes an encoded image, string [].

    Args:
        data: the file's bytes.
        image_range: the values of a 16-bit PNG that become 0 and 255.
        use: takes the upright pixels as stored, uint8 or uint16 [H, W, 3], and a function that scales such values to
            float32, 0 to 255; its result is returned.
    """
    low, high = image_range[0], image_range[1]

    def upright(image: tf.Tensor) -> tf.Tensor:
        return exif.turn_upright(tf.ensure_shape(image, [None, None, 3]), exif.read_orientation(data))

    def scale(values: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value((tf.cast(values, tf.float32) - low) * 255 / (high - low), 0, 255)

    def deep() -> tf.Tensor:
        return use(upright(tf.io.decode_png(data, channels=3, dtype=tf.uint16)), scale)

    def plain() -> tf.Tensor:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        return use(upright(image), lambda values: tf.cast(values, tf.float32))

    # PNG specification, section 11.2.1: byte 24 is the bit depth. A JPEG has 8 bits.
    is_deep = (tf.strings.substr(data, 1, 3) == b"PNG") & (tf.strings.substr(data, 24, 1) == b"\x10")
    return tf.cond(is_deep, deep, plain)


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Rounds and clips an image, float32, to uint8 of the same shape."""
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def exposure_gain(image: tf.Tensor) -> tf.Tensor:
    """Returns the factor, float32 [], that normalises the exposure of an RGB image, 0 to 255, float32 [H, W, 3].

    After multiplication the log-average of the luma is `KEY`, if `MAX_GAIN` allows it; values may exceed 255. Bright
    areas such as the sky affect the log-average less than the mean (Reinhard et al. 2002, Photographic tone
    reproduction, equation 1).
    """
    # Adds 1 because the logarithm of 0 is infinite.
    key = tf.exp(tf.reduce_mean(tf.math.log(tf.image.rgb_to_grayscale(image) + 1)))
    return tf.clip_by_value(KEY / key, 1 / MAX_GAIN, MAX_GAIN)


def resize_mask(data: tf.Tensor, height: int, width: int, dtype: tf.DType = tf.uint8) -> tf.Tensor:
    """Resizes (nearest) a mask or depth map; input and result are encoded grey PNGs, string []."""
    mask = tf.io.decode_png(data, channels=1, dtype=dtype)
    resized = tf.image.resize(mask, (height, width), method="nearest")
    return tf.io.encode_png(resized, compression=1)


def resize_instances(
    classes: tf.Tensor,
    crowd: tf.Tensor,
    num_runs: tf.Tensor,
    runs: tf.Tensor,
    own_height: tf.Tensor,
    own_width: tf.Tensor,
    *,
    things: Sequence[int],
    height: int,
    width: int,
) -> tf.Tensor:
    """Resizes the instances of one image as `resize_mask` resizes its mask.

    Args:
        classes: class index of each, int64 [N].
        crowd: 1 for a group of objects, int64 [N].
        num_runs: number of runs of each, int64 [N].
        runs: lengths of the runs of all, int64 [R]; see `components.features`.
        own_height: of the image, in pixels, int64 [].
        own_width: of the image, in pixels, int64 [].
        things: class indices of the classes with instances.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        The stack of masks, a grey PNG [M * height, width], string []: pixels of a mask are 1 + the position of its
        class in `things`, others 0. Crowds and masks without a pixel are left out; empty if no mask is left.
    """
    kept = crowd == 0
    runs = tf.boolean_mask(runs, tf.repeat(kept, num_runs))
    classes, num_runs = tf.boolean_mask(classes, kept), tf.boolean_mask(num_runs, kept)
    labels = tf.reduce_sum(
        tf.where(classes[:, None] == tf.constant(things, tf.int64), tf.range(1, len(things) + 1), 0), axis=1
    )
    # The index of a run within its mask; runs with odd indices are inside.
    numbers = tf.range(tf.size(runs, tf.int64)) - tf.repeat(tf.cumsum(num_runs, exclusive=True), num_runs)
    values = tf.cast(tf.repeat(labels, num_runs), tf.uint8) * tf.cast(numbers % 2, tf.uint8)

    def resized() -> tf.Tensor:
        # Runs go down the columns.
        columns = tf.reshape(tf.repeat(values, runs), [-1, own_width, own_height])
        masks = tf.image.resize(tf.transpose(columns, [0, 2, 1])[..., None], (height, width), method="nearest")
        masks = tf.boolean_mask(masks, tf.reduce_any(masks > 0, axis=[1, 2, 3]))
        stack = tf.reshape(masks, [-1, width, 1])
        return tf.cond(tf.size(stack) > 0, lambda: tf.io.encode_png(stack, compression=1), lambda: tf.constant(b""))

    return tf.cond(tf.size(classes) > 0, resized, lambda: tf.constant(b""))


def _map_each(encode: Callable[[tf.Tensor], tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
    """Applies a function that returns one string to each element of a batch, whose images differ in size."""
    return tf.map_fn(encode, batch, fn_output_signature=tf.string)
