"""Applies the EXIF orientation inside a TensorFlow graph.

`tf.io.decode_jpeg` and `tf.io.decode_png` ignore it; browsers, photo viewers and annotation tools apply it. As in
browsers, only EXIF counts: an orientation in XMP or in a PNG's text is not read. Outside the graph, Pillow does the
same in `components.dataset.orientation`.
"""

from __future__ import annotations

import tensorflow as tf

ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4: 1 is upright, 5 to 8 swap height and width
_SHORT, _LONG = 3, 4  # field types of TIFF 6.0, section 2
_ENTRY = 12  # bytes of a TIFF directory entry: tag 2, type 2, count 4, value 4


def read_orientation(data: tf.Tensor) -> tf.Tensor:
    """Returns the orientation, int32 [], 1 to 8, of an encoded PNG or JPEG, string []; 1 without valid EXIF data."""
    tiff = tf.cond(tf.io.is_jpeg(data), lambda: _jpeg_exif(data), lambda: _png_exif(data))
    header = tf.strings.substr(tiff, 0, 4)
    little = header == b"II*\0"
    return tf.cond(little | (header == b"MM\0*"), lambda: _parse_tiff(tiff, little), lambda: tf.constant(1))


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Applies an orientation, int32 [], to pixels, [H, W, C], as `PIL.ImageOps.exif_transpose` does."""

    def turn() -> tf.Tensor:
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
        flips = [tf.reduce_any(orientation == [3, 4, 7, 8]), tf.reduce_any(orientation == [2, 3, 6, 7])]
        return tf.reverse(turned, tf.boolean_mask([0, 1], flips))

    return tf.cond(orientation == 1, lambda: pixels, turn)


def _jpeg_exif(data: tf.Tensor) -> tf.Tensor:
    """Returns the TIFF structure in a JPEG's first Exif segment, string []; empty if there is no such segment."""

    def head(place: tf.Tensor) -> tf.Tensor:
        """Returns a segment's first 10 bytes: marker, length, identifier; int32 [10]; zeros after the end."""
        part = tf.strings.substr(data, tf.minimum(place, tf.strings.length(data)), 10)
        return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=10), tf.int32)

    def length(found: tf.Tensor) -> tf.Tensor:
        return found[2] * 256 + found[3]

    def is_exif(found: tf.Tensor) -> tf.Tensor:
        return (found[1] == 0xE1) & tf.reduce_all(found[4:] == list(b"Exif\0\0"))

    def is_other_segment(place: tf.Tensor) -> tf.Tensor:
        found = head(place)
        # SOS (0xDA) begins the pixels, EOI (0xD9) ends the file.
        return (found[0] == 0xFF) & (found[1] != 0xDA) & (found[1] != 0xD9) & ~is_exif(found)

    def following(place: tf.Tensor) -> tf.Tensor:
        found = head(place)
        # Any number of fill bytes FF may precede a marker.
        return place + tf.where(found[1] == 0xFF, 1, 2 + length(found))

    (place,) = tf.while_loop(is_other_segment, lambda place: (following(place),), [tf.constant(2)])
    found = head(place)
    return tf.cond(
        is_exif(found),
        lambda: tf.strings.substr(
            data, tf.minimum(place + 10, tf.strings.length(data)), tf.maximum(length(found), 8) - 8
        ),
        lambda: tf.constant(""),
    )


def _png_exif(data: tf.Tensor) -> tf.Tensor:
    """Returns the content of a PNG's eXIf chunk, string []; empty if there is no such chunk.

    Searches for the chunk's name, because thousands of other chunks may precede it. The same letters among compressed
    pixels are not followed by a TIFF header.
    """
    size = tf.strings.length(data)
    place = tf.strings.length(tf.strings.split(data, "eXIf", maxsplit=1)[:1])[0]
    digits = tf.io.decode_raw(tf.strings.substr(data, tf.maximum(place - 4, 0), 4), tf.uint8, fixed_length=4)
    length = tf.reduce_sum(tf.cast(digits, tf.int64) * [256**3, 256**2, 256, 1])
    return tf.strings.substr(data, tf.minimum(place + 4, size), tf.cast(tf.minimum(length, tf.int32.max), tf.int32))


def _parse_tiff(tiff: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """Returns the orientation, int32 [], of a TIFF structure, string []; `little` says if it is little-endian."""
    size = tf.strings.length(tiff, "BYTE")
    # Padded with zeros, so that a truncated structure still has a header.
    values = tf.concat([tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int64), tf.zeros([_ENTRY], tf.int64)], axis=0)

    def number(digits: tf.Tensor, count: int) -> tf.Tensor:
        weights = tf.constant([256**place for place in range(count)], tf.int64)
        return tf.reduce_sum(digits * tf.where(little, weights, weights[::-1]), axis=-1)

    start = tf.minimum(number(values[4:8], 4), tf.cast(size, tf.int64))
    entries = values[start + 2 : tf.cast(size, tf.int64)]
    whole = tf.minimum(number(values[start : start + 2], 2), tf.size(entries, tf.int64) // _ENTRY)
    table = tf.reshape(entries[: whole * _ENTRY], [-1, _ENTRY])
    kind = number(table[:, 2:4], 2)
    value = tf.where(kind == _SHORT, number(table[:, 8:10], 2), number(table[:, 8:12], 4))
    fits = (number(table[:, :2], 2) == ORIENTATION) & (number(table[:, 4:8], 4) == 1) & (value >= 1) & (value <= 8)
    found = tf.boolean_mask(value, fits & ((kind == _SHORT) | (kind == _LONG)))
    return tf.cast(tf.concat([[1], found], axis=0)[-1], tf.int32)
