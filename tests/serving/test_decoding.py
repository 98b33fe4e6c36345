"""Decoding inside a graph: errors name the bad image and its problem."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.decoding import decode_each, image_size

_MAX_PIXELS = 10_000


def _encoded(kind, size=(37, 53), **options):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _png_that_claims(height, width):
    data = _encoded("PNG")
    return data[:16] + struct.pack(">II", width, height) + data[24:]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _decode(images):
    def shrink(data):
        pixels = tf.io.decode_image(data, channels=3, expand_animations=False)
        pixels.set_shape([None, None, 3])
        return tf.cast(tf.image.resize(pixels, [4, 6]), tf.uint8)

    return decode_each(images, shrink, tf.TensorSpec([4, 6, 3], tf.uint8), _MAX_PIXELS)


_GOOD = [_encoded("PNG"), _encoded("JPEG"), _encoded("JPEG", progressive=True)]
_BAD = {
    "empty": (b"", "found 0 bytes in another format"),
    "text": (b"no image", "found 8 bytes in another format"),
    "gif": (_encoded("GIF"), "found [0-9]+ bytes in another format"),
    "png signature alone": (_GOOD[0][:8], "found a PNG that is truncated or corrupt"),
    "truncated png": (_GOOD[0][:1000], "found a PNG that is truncated or corrupt"),
    "png with a flipped byte": (
        _GOOD[0][:500] + bytes([_GOOD[0][500] ^ 255]) + _GOOD[0][501:],
        "found a PNG that is truncated or corrupt",
    ),
    "jpeg start alone": (_GOOD[1][:3], "found a JPEG that is truncated or corrupt"),
    "truncated jpeg": (_GOOD[1][:-200], "found a JPEG that is truncated or corrupt"),
    "jpeg without an end": (_GOOD[2][:600], "found a JPEG that is truncated or corrupt"),
    "too large": (
        _encoded("JPEG", (101, 100)),
        r"found \[101 100\] pixels \(height, width\), expected at most 10000 in all",
    ),
    "huge": (_png_that_claims(2**31 - 1, 2**31 - 1), r"found \[2147483647 2147483647\] pixels"),
    "negative": (_png_that_claims(2**32 - 1, 8), "found a PNG that is truncated or corrupt"),
    "no rows": (_png_that_claims(0, 8), "found a PNG that is truncated or corrupt"),
}


@pytest.mark.parametrize("name", _BAD)
@pytest.mark.parametrize("place", [0, 2, 3])
def test_the_error_names_the_image_and_its_problem(name, place):
    data, issue = _BAD[name]
    images = [*_GOOD[:place], data, *_GOOD[place:]]

    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"image\[{place}\] of 4: {issue}"):
        _decode(tf.constant(images))


def test_the_first_of_several_bad_images_is_named():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image\[1\] of 4"):
        _decode(tf.constant([_GOOD[0], b"x", _GOOD[1], b"y"]))


def test_batches_of_any_size_keep_their_order():
    images = _GOOD * 7

    together = _decode(tf.constant(images)).numpy()

    assert together.shape == (21, 4, 6, 3)
    for image, pixels in zip(images, together, strict=True):
        np.testing.assert_array_equal(_decode(tf.constant([image]))[0], pixels)


def test_an_empty_batch_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="image: found 0 images, expected at least 1"):
        _decode(tf.constant([], tf.string))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_size_is_read_from_the_header(kind):
    assert image_size(tf.constant(_encoded(kind))).numpy().tolist() == [37, 53]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("orientation", "size"), [(3, [37, 53]), (5, [53, 37]), (6, [53, 37]), (8, [53, 37])])
def test_the_size_respects_the_exif_orientation(kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation

    assert image_size(tf.constant(_encoded(kind, exif=exif))).numpy().tolist() == size
