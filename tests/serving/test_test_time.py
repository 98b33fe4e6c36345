"""Predictions averaged over sizes and mirror images."""

import numpy as np
import pytest
import tensorflow as tf

from serving.test_time import TestTimeAugmentation, scaled

_SIZE = (64, 96)


def _left_and_height(pixels):
    """Returns the reciprocal of the height for class 0, and for class 1 a ramp that mirroring reverses."""
    height, width = pixels.shape[1], pixels.shape[2]
    ramp = tf.broadcast_to(tf.linspace(0.0, 1.0, width), tf.shape(pixels)[:3])
    return tf.stack([tf.fill(tf.shape(pixels)[:3], 1 / height), ramp], axis=-1)


def test_without_augmentation_the_network_predicts_once():
    pixels = tf.zeros([2, *_SIZE, 3])

    np.testing.assert_array_equal(TestTimeAugmentation().average(_left_and_height, pixels), _left_and_height(pixels))


def test_scales_have_equal_weight_at_the_input_size():
    averaged = TestTimeAugmentation(scales=(0.5, 1.0, 1.5)).average(_left_and_height, tf.zeros([2, *_SIZE, 3]))

    assert averaged.shape == (2, *_SIZE, 2)
    np.testing.assert_allclose(averaged[..., 0], (1 / 32 + 1 / 64 + 1 / 96) / 3, rtol=1e-6)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
def test_the_prediction_of_the_mirror_image_is_mirrored_back(scales):
    averaged = TestTimeAugmentation(flip=True, scales=scales).average(_left_and_height, tf.zeros([1, *_SIZE, 3]))

    np.testing.assert_allclose(averaged[..., 1], 0.5, atol=1e-6)


def test_every_scale_predicts_the_resized_image():
    picture = tf.image.resize(tf.random.stateless_uniform([1, 4, 6, 3], seed=[1, 2]), _SIZE)
    seen = []

    TestTimeAugmentation(scales=(2.0,)).average(lambda pixels: seen.append(pixels) or pixels, picture)

    (look,) = seen
    assert look.shape == (1, 128, 192, 3)
    np.testing.assert_allclose(tf.image.resize(look, _SIZE, antialias=True), picture, atol=0.02)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((352, 480), 0.75, (256, 352)),
        ((352, 480), 1.25, (448, 608)),
        ((352, 480), 0.5, (192, 256)),
        ((352, 480), 1.5, (512, 704)),
        ((352, 480), 0.01, (32, 32)),
        # PSPNet and UNet accept sizes that are not multiples of 32.
        ((40, 48), 1.0, (40, 48)),
    ],
)
def test_scaled_sizes_are_multiples_of_every_architecture_s_stride(size, scale, expected):
    assert scaled(size, scale) == expected


def test_test_time_augmentation_is_restored_from_metadata():
    test_time = TestTimeAugmentation(flip=True, scales=(0.75, 1.0))

    assert TestTimeAugmentation.of(test_time.to_dict()) == test_time
