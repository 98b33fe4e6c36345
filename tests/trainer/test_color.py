import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from trainer import color


def seeds(number: int) -> list[tf.Tensor]:
    return [tf.constant([i, 11]) for i in range(number)]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 150, (16, 20, 3)).astype(np.float32)


def test_channels_move_apart_within_the_limit():
    grey = tf.fill([4, 4, 3], 128.0)

    gains = [gain for seed in seeds(40) for gain in color.tint(grey, seed, 0.3).numpy()[0, 0] / 128]

    assert 0.699 <= min(gains) < 0.8
    assert 1.2 < max(gains) <= 1.301


def test_colours_become_paler_and_stronger_and_as_light():
    red = tf.tile(tf.constant([[[160.0, 110.0, 110.0]]]), [4, 4, 1])

    strengths = []
    for seed in seeds(40):
        gains = color.tint(tf.ones([4, 4, 3]), seed, 0.4).numpy()[0, 0]
        saturated = color.tint(red, seed, 0.4).numpy()[0, 0] / gains
        strengths.append((saturated[0] - saturated[1]) / 50)
        np.testing.assert_allclose(saturated @ color.LUMA, np.dot((160, 110, 110), color.LUMA), rtol=1e-3)

    assert 0.59 <= min(strengths) < 0.8
    assert 1.2 < max(strengths) <= 1.41


def test_exposures_darken_and_lighten_alike_within_the_limit(image):
    factors = np.array([np.unique(color.expose(tf.ones([2, 2, 3]), seed, 3.0)).item() for seed in seeds(60)])

    assert 0.333 <= factors.min() < 0.4
    assert 2.5 < factors.max() <= 3.001
    assert 20 <= (factors < 1).sum() <= 40
    np.testing.assert_allclose(color.expose(image, seeds(1)[0], 3.0), image * factors[0], rtol=1e-5)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.5])
def test_the_blur_is_a_gaussian(image, deviation):
    blurred = color.gaussian(tf.constant(image), tf.constant(deviation), largest=2.5)

    expected = gaussian_filter(image, (deviation, deviation, 0), mode="reflect", radius=(8, 8, 0))
    np.testing.assert_allclose(blurred, expected, atol=0.02)


def test_no_width_leaves_the_image_and_a_width_beyond_it_still_works(image):
    np.testing.assert_allclose(color.gaussian(tf.constant(image), tf.constant(0.0), largest=1.0), image, atol=1e-3)
    assert color.gaussian(tf.constant(image), tf.constant(50.0), largest=50.0).shape == image.shape


def test_half_of_the_images_are_blurred(image):
    changed = [not np.array_equal(color.blur(tf.constant(image), seed, 2.0), image) for seed in seeds(60)]

    assert 18 <= sum(changed) <= 42
