"""Decodes images inside the exported graph, with an error that names the bad image.

TensorFlow's decoders do not tell which image of a batch failed, and a graph cannot catch exceptions. But tf.data can
skip the elements that fail: the first missing one is the bad image.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from components import exif

# Images decoded in parallel: at most 8, with at most this many pixels of three bytes in total.
_PARALLEL = 8
_PARALLEL_PIXELS = 1 << 24


def decode_each(
    images: tf.Tensor,
    prepare: Callable[[tf.Tensor], tf.Tensor],
    output: tf.TensorSpec,
    max_pixels: int,
    offset: tf.Tensor | int = 0,
    total: tf.Tensor | None = None,
) -> tf.Tensor:
    """Applies a function to each encoded image of a batch.

    Args:
        images: string [B], PNG or JPEG.
        prepare: from one encoded image, string [], to a tensor; it may fail.
        output: shape and dtype of that tensor.
        max_pixels: height times width of the largest image, checked in its header before it is decoded.
        offset: place of the first image in the caller's batch, for errors.
        total: size of the caller's batch, for errors; None for B.

    Returns:
        The results, [B, ...].

    Raises:
        tf.errors.InvalidArgumentError: the batch is empty, or an image is not PNG or JPEG, too large, truncated or
            corrupt. The message starts with its place, such as `image[3] of 8`.
    """
    some = tf.debugging.Assert(tf.size(images) > 0, ["image: found 0 images, expected at least 1"])
    with tf.control_dependencies([some]):
        images = tf.identity(images)
    count = tf.size(images, out_type=tf.int64)

    def attempt(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        data = images[place]
        with tf.control_dependencies([tf.debugging.Assert(_is_small(_stored_size(data), max_pixels), [""])]):
            return place, prepare(tf.identity(data))

    # One extra element, so that there is a batch even if every image fails.
    end = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), tf.zeros(output.shape, output.dtype)))
    parallel = tf.clip_by_value(_PARALLEL_PIXELS // _largest(images, max_pixels), 1, _PARALLEL)
    attempts = tf.data.Dataset.range(count).map(attempt, num_parallel_calls=parallel)
    places, results = (
        attempts.ignore_errors().concatenate(end).batch(count + 1).with_options(_options()).get_single_element()
    )
    first_missing = tf.argmax(places != tf.range(tf.size(places, out_type=tf.int64)))

    def refuse() -> tf.Tensor:
        place = tf.strings.format("image[{}] of {}: ", (first_missing + offset, count if total is None else total))
        with tf.control_dependencies(
            [tf.debugging.Assert(False, [tf.strings.join([place, _issue(images[first_missing], max_pixels)])])]
        ):
            return tf.identity(results)

    return tf.cond(first_missing < count, refuse, lambda: results)[:-1]


def encode_each(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Encodes images, uint8 [B, H, W, 3], as PNG, string [B], without loss.

    Raises:
        tf.errors.InvalidArgumentError: the images have no pixels, or more than `max_pixels` each.
    """
    shape = tf.shape(images)
    message = tf.strings.format(
        "image: found {} pixels (height, width), expected 1 to " + f"{max_pixels} in all", shape[1:3]
    )
    # Checked first, because TensorFlow's PNG encoder aborts the process on an image without pixels.
    with tf.control_dependencies([tf.debugging.Assert(_is_small(shape[1:3], max_pixels), [message])]):
        images = tf.identity(images)
    return tf.map_fn(lambda pixels: tf.io.encode_png(pixels, compression=0), images, fn_output_signature=tf.string)


def image_size(data: tf.Tensor) -> tf.Tensor:
    """Returns height and width, int32 [2], of an encoded PNG or JPEG, string [], after its EXIF orientation.

    Raises:
        tf.errors.InvalidArgumentError: it is neither PNG nor JPEG, or its header is incomplete.
    """
    size = _stored_size(data)
    return tf.where(exif.read_orientation(data) >= 5, size[::-1], size)


def _stored_size(data: tf.Tensor) -> tf.Tensor:
    """Reads height and width, int32 [2], from the header, without decoding; raises like `image_size`."""

    def of_png() -> tf.Tensor:
        # PNG specification, section 11.2.2: width and height are big-endian, bytes 16 to 23.
        with tf.control_dependencies([tf.debugging.Assert(_is_png(data), ["neither PNG nor JPEG"])]):
            header = tf.strings.substr(data, 16, 8)
        width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
        return tf.reverse(width_height, axis=[0])

    def of_jpeg() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(data, output_type=tf.int32)[:2]

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(data), of_jpeg, of_png), [2])


def _largest(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns the number of pixels of the largest image within the limit, int64 []; at least 1."""
    sizes = tf.data.Dataset.from_tensor_slices(images).map(_stored_size).ignore_errors()

    def larger(largest: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        pixels = tf.reduce_prod(tf.cast(size, tf.int64))
        return tf.where(_is_small(size, max_pixels), tf.maximum(largest, pixels), largest)

    return sizes.with_options(_options()).reduce(tf.constant(1, tf.int64), larger)


def _is_png(data: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(data, 0, 8) == b"\x89PNG\r\n\x1a\n"


def _is_small(size: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Tells whether an image with this height and width, int32 [2], is within the limit."""
    sides = tf.cast(size, tf.int64)
    return (tf.reduce_min(sides) > 0) & (tf.reduce_prod(sides) <= max_pixels)


def _issue(data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Describes the problem of an image that could not be decoded, string []."""
    unknown = tf.data.Dataset.from_tensors(tf.constant([0, 0]))
    size = (
        tf.data.Dataset.from_tensors(data).map(_stored_size).ignore_errors().concatenate(unknown).take(1)
    ).get_single_element()
    kind = tf.where(tf.io.is_jpeg(data), "JPEG", "PNG")
    return tf.case(
        [
            (
                ~(_is_png(data) | tf.io.is_jpeg(data)),
                lambda: tf.strings.format(
                    "found {} bytes in another format, expected a PNG or JPEG", tf.strings.length(data)
                ),
            ),
            (
                (tf.reduce_min(size) > 0) & ~_is_small(size, max_pixels),
                lambda: tf.strings.format(
                    "found {} pixels (height, width), expected at most " + str(max_pixels) + " in all", size
                ),
            ),
        ],
        default=lambda: tf.strings.join(["found a ", kind, " that is truncated or corrupt, expected a complete one"]),
        exclusive=False,
    )


def _options() -> tf.data.Options:
    """Returns options that make a data set of a few elements start fast."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
