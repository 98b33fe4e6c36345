"""Transform keeps image and mask aligned, normalises the exposure and scales 16-bit images to 8 bits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features
from components.instances import encode_runs
from components.preprocessing import (
    KEY,
    MAX_GAIN,
    exposure_gain,
    own_pixels,
    preprocessing_fn,
    resize_instances,
    resize_mask,
)

_SIZE = (24, 32)
_SCENE = np.random.default_rng(5).integers(40, 110, (*_SIZE, 3))


def _log_average(image):
    return np.exp(np.mean(np.log(image @ [0.299, 0.587, 0.114] + 1)))


def _transformed(image, normalize_exposure=False, mask=None):
    mask = np.arange(image[..., 0].size).reshape(_SIZE) if mask is None else mask
    files = io.BytesIO(), io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(files[0], "PNG")
    Image.fromarray(mask.astype(np.uint8)).save(files[1], "PNG")
    inputs = {name: [file.getvalue()] for name, file in zip((features.IMAGE, features.MASK), files, strict=True)}
    outputs = preprocessing_fn(inputs, {"input_size": list(_SIZE), "normalize_exposure": normalize_exposure})
    names = features.TRANSFORMED_IMAGE, features.TRANSFORMED_MASK
    return [tf.io.decode_png(outputs[name][0]).numpy() for name in names]


@pytest.mark.parametrize("size", [(17, 20), (40, 70), (60, 32), (24, 32)])
def test_mask_pixels_are_sampled_at_the_centres_of_image_pixels(size):
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    # The pixels hold their source coordinates, and so does the mask.
    source = np.stack([rows, columns, rows], axis=-1)
    for channel, places in enumerate((rows, columns)):
        image, mask = _transformed(source, mask=places)

        # Rounding the mask's coordinate and the image's value adds at most 0.5 each.
        assert np.abs(image[..., channel].astype(int) - mask[..., 0]).max() <= 1


@pytest.mark.parametrize("exposure", [0.5, 2.0])
def test_one_scene_at_two_exposures_becomes_one_image(exposure):
    assert exposure * _SCENE.max() <= 255
    image, mask = _transformed(_SCENE, normalize_exposure=True)

    other, same_mask = _transformed(exposure * _SCENE, normalize_exposure=True)

    # The tolerance covers two roundings at half the brightness, and the 1 that is added before the logarithm.
    np.testing.assert_allclose(other.astype(float), image, atol=3)
    np.testing.assert_array_equal(same_mask, mask)


def test_the_exposure_is_unchanged_by_default():
    image, _ = _transformed(_SCENE, normalize_exposure=False)

    np.testing.assert_array_equal(image, _SCENE)


def test_the_gain_brings_the_log_average_to_the_key():
    scene = 0.6 * _SCENE.astype(np.float32)

    gain = exposure_gain(tf.constant(scene)).numpy()

    assert gain == pytest.approx(KEY / _log_average(scene), rel=1e-3)
    assert _log_average(gain * scene) == pytest.approx(KEY, rel=0.02)


@pytest.mark.parametrize(("value", "factor"), [(0.0, MAX_GAIN), (2.0, MAX_GAIN), (255.0, KEY / 256)])
def test_the_gain_is_limited(value, factor):
    image = np.full((4, 4, 3), value, np.float32)

    assert exposure_gain(tf.constant(image)).numpy() == pytest.approx(factor, rel=1e-3)


def _deep_png(values):
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (0, 4095), (1024, 1280)])
def test_the_values_of_16_bits_are_scaled_from_their_range(low, high):
    values = np.random.default_rng(0).integers(0, 65536, (16, 24))
    values[0] = np.linspace(low, high, 24).round()

    image = own_pixels(tf.constant(_deep_png(values)), 8, 8, False, (low, high)).numpy()

    expected = np.clip((values - low) * 255 / (high - low), 0, 255)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, np.stack([expected] * 3, -1), atol=0.501)


def test_the_range_does_not_change_images_of_8_bits():
    image = tf.io.encode_png(_SCENE.astype(np.uint8))

    np.testing.assert_array_equal(own_pixels(image, 8, 8, False, (0, 4095)), _SCENE)


def test_transform_scales_16_bits_from_the_full_range_by_default():
    values = np.arange(24 * 32).reshape(_SIZE) * 5
    mask = tf.io.encode_png(np.zeros((*_SIZE, 1), np.uint8)).numpy()
    inputs = {features.IMAGE: [_deep_png(values)], features.MASK: [mask]}
    for image_range, high in ((None, 65535), ([0, 4095], 4095)):
        config = {"input_size": list(_SIZE), "normalize_exposure": False, "image_range": image_range}

        (encoded,) = preprocessing_fn(inputs, config)[features.TRANSFORMED_IMAGE].numpy()

        expected = np.stack([np.rint(values * 255 / high)] * 3, -1)
        np.testing.assert_allclose(tf.io.decode_png(encoded).numpy().astype(int), expected, atol=1)


def _instances_resized(masks, classes, crowd, things, size):
    num_runs, runs = encode_runs(masks)
    values = (np.asarray(classes, np.int64), np.asarray(crowd, np.int64), num_runs, runs, *masks.shape[1:])
    values = [tf.constant(value, tf.int64) for value in values]
    return resize_instances(*values, things=things, height=size[0], width=size[1]).numpy()


@pytest.mark.parametrize("size", [(24, 32), (12, 20), (40, 33)])
def test_instances_are_resized_like_masks_and_labelled_by_their_class_s_position(size):
    masks = np.random.default_rng(1).random((4, *_SIZE)) > 0.7

    data = _instances_resized(masks, [9, 8, 9, 10], [0, 0, 1, 0], [8, 10, 9], size)

    stack = np.asarray(Image.open(io.BytesIO(data))).reshape(-1, *size)
    for found, number, label in zip(stack, (0, 1, 3), (3, 1, 2), strict=True):
        alone = resize_mask(tf.io.encode_png(masks[number][..., None].astype(np.uint8)), *size)
        np.testing.assert_array_equal(found, label * tf.io.decode_png(alone).numpy()[..., 0])


def test_an_instance_whose_pixels_vanish_is_left_out():
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 0, 0] = True
    masks[1, 4:12, 4:12] = True

    data = _instances_resized(masks, [1, 1], [0, 0], [1], (4, 4))

    assert np.asarray(Image.open(io.BytesIO(data))).shape == (4, 4)
    assert _instances_resized(masks[:1], [1], [0], [1], (4, 4)) == b""


@pytest.mark.parametrize("crowd", [[], [1]])
def test_an_image_without_an_instance_to_train_on_has_no_stack(crowd):
    masks = np.ones((len(crowd), 8, 8), bool)

    assert _instances_resized(masks, [1] * len(crowd), crowd, [1], (4, 4)) == b""
