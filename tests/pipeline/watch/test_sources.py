"""The measured values of an image, which are compared with a reference."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.watch.sources import IMAGES, observe, read_source


def _png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_the_size_is_that_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6

    observation = observe(_png(np.zeros((4, 6, 3), np.uint8), exif=exif))

    assert (observation.height, observation.width) == (6, 4)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_brightness_and_contrast_do_not_depend_on_the_bits(dtype, white):
    pixels = np.array([[0, white], [0, white]], dtype)

    observation = observe(_png(pixels))

    assert (observation.brightness, observation.contrast) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("kind", "extension", "options"),
    [("PNG", "png", {}), ("TIFF", "TIF", {}), ("BMP", "bmp", {}), ("WEBP", "webp", {"lossless": True})],
)
def test_a_folder_of_images_may_hold_every_format_of_a_data_set(tmp_path, kind, extension, options):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{extension}", kind, **options)

    found = read_source(str(tmp_path), 10, "train")

    assert (found.kind, found.unreadable) == (IMAGES, 0)
    (image,) = found.images
    stored = Image.open(io.BytesIO(image.image))
    assert stored.format == "PNG"
    np.testing.assert_array_equal(np.asarray(stored), pixels)
