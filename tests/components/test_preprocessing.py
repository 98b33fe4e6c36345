"""What Transform makes of a pair: one place in image and mask, and one exposure of a scene at any light."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features
from components.preprocessing import KEY, MAX_GAIN, even_exposure, preprocessing_fn

_SIZE = (24, 32)
_SCENE = np.random.default_rng(5).integers(40, 110, (*_SIZE, 3))


def _log_average(image):
    return np.exp(np.mean(np.log(image @ [0.299, 0.587, 0.114] + 1)))


def _transformed(image, auto_exposure=False, mask=None):
    mask = np.arange(image[..., 0].size).reshape(_SIZE) if mask is None else mask
    files = io.BytesIO(), io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(files[0], "PNG")
    Image.fromarray(mask.astype(np.uint8)).save(files[1], "PNG")
    inputs = {name: [file.getvalue()] for name, file in zip((features.IMAGE, features.MASK), files, strict=True)}
    outputs = preprocessing_fn(inputs, {"input_size": list(_SIZE), "auto_exposure": auto_exposure})
    names = features.TRANSFORMED_IMAGE, features.TRANSFORMED_MASK
    return [tf.io.decode_png(outputs[name][0]).numpy() for name in names]


@pytest.mark.parametrize("size", [(17, 20), (40, 70), (60, 32), (24, 32)])
def test_each_mask_pixel_is_the_one_at_the_centre_of_its_image_pixel(size):
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    # Where a pixel of the image comes from; the mask tells the same of its own.
    source = np.stack([rows, columns, rows], axis=-1)
    for channel, places in enumerate((rows, columns)):
        image, mask = _transformed(source, mask=places)

        # The nearest of whole numbers is never further away than a half, and the image is rounded too.
        assert np.abs(image[..., channel].astype(int) - mask[..., 0]).max() <= 1


@pytest.mark.parametrize("exposure", [0.5, 2.0])
def test_one_scene_at_two_exposures_becomes_one_image(exposure):
    assert exposure * _SCENE.max() <= 255
    image, mask = _transformed(_SCENE, auto_exposure=True)

    other, same_mask = _transformed(exposure * _SCENE, auto_exposure=True)

    # Rounding to integers at half the light, twice over, and the one that is added before the logarithm.
    np.testing.assert_allclose(other.astype(float), image, atol=3)
    np.testing.assert_array_equal(same_mask, mask)


def test_the_exposure_stays_unless_asked():
    image, _ = _transformed(_SCENE, auto_exposure=False)

    np.testing.assert_array_equal(image, _SCENE)


def test_colours_keep_their_ratios_and_the_log_average_becomes_the_key():
    scene = 0.6 * _SCENE.astype(np.float32)

    even = even_exposure(tf.constant(scene)).numpy()

    np.testing.assert_allclose(even / scene, np.full_like(scene, KEY / _log_average(scene)), rtol=1e-3)
    assert _log_average(even) == pytest.approx(KEY, rel=0.02)


@pytest.mark.parametrize(("value", "factor"), [(2.0, MAX_GAIN), (255.0, KEY / 256)])
def test_the_dark_is_not_lit_without_end(value, factor):
    image = np.full((4, 4, 3), value, np.float32)

    np.testing.assert_allclose(even_exposure(tf.constant(image)), factor * image, rtol=1e-3)


def test_a_black_image_stays_black():
    np.testing.assert_array_equal(even_exposure(tf.zeros([4, 4, 3])), np.zeros([4, 4, 3]))
