"""The pixel hash depends on the image, not on its file."""

from __future__ import annotations

import io

import numpy as np
from dataset_folder import encode, random_image
from PIL import Image

from components.dataset.encoded import Limits, decode, pixel_hash


def _hash(data):
    return pixel_hash(decode(data, Limits(), ("PNG", "JPEG")), data)


def test_one_picture_has_one_hash_in_every_lossless_form():
    grey = random_image().convert("L")
    smaller = io.BytesIO()
    grey.save(smaller, "PNG", compress_level=1)

    forms = [encode(grey), encode(grey.convert("RGB")), encode(grey.quantize(256)), smaller.getvalue()]

    assert len(set(forms)) == 4
    assert np.array_equal(grey.quantize(256).convert("L"), grey)
    assert len({_hash(form) for form in forms}) == 1


def test_other_pixels_and_the_same_pixels_in_another_shape_have_other_hashes():
    pixels = np.arange(8 * 16, dtype=np.uint8)
    changed = pixels.copy()
    changed[-1] += 1

    images = [pixels.reshape(8, 16), pixels.reshape(16, 8), changed.reshape(8, 16)]

    assert len({_hash(encode(Image.fromarray(image))) for image in images}) == 3


def test_the_lower_bits_of_16_bit_images_count():
    low = np.full((8, 8), 1000, np.uint16)

    assert _hash(encode(Image.fromarray(low))) != _hash(encode(Image.fromarray(low + 1)))
