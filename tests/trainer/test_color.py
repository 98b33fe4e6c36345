import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from trainer import color

SEED = tf.constant([5, 11])


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 150, (3, 16, 20, 3)).astype(np.float32)


@pytest.fixture
def steady(monkeypatch) -> None:
    """Leaves brightness and contrast as they are."""
    monkeypatch.setattr(color, "BRIGHTNESS", 0.0)
    monkeypatch.setattr(color, "CONTRAST", 0.0)


def test_random_numbers_are_uniform_and_the_same_with_xla():
    blank = tf.zeros([5000, 1])
    plain, compiled = (
        tf.stack(tf.function(lambda: color.uniform(3, blank, SEED), jit_compile=xla)()).numpy() for xla in (False, True)
    )

    np.testing.assert_array_equal(plain, compiled)
    assert plain.shape == (3, 5000)
    assert 0 <= plain.min() <= plain.max() <= 1
    np.testing.assert_allclose(np.quantile(plain, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    np.testing.assert_allclose(np.corrcoef(plain), np.eye(3), atol=0.05)


def test_channels_move_apart_within_the_limit(steady):
    gains = color.jitter(tf.fill([40, 4, 4, 3], 128.0), SEED, 0.3, exposure=1.0).numpy()[:, 0, 0] / 128

    assert 0.699 <= gains.min() < 0.8
    assert 1.2 < gains.max() <= 1.301
    assert np.abs(np.diff(gains, axis=1)).max() > 0.2


def test_colours_become_paler_and_stronger_and_as_light():
    saturations, red = np.linspace(0.5, 1.5, 5, dtype=np.float32), np.array([160.0, 110.0, 110.0], np.float32)

    varied = red @ color.color_matrix(tf.constant(saturations), tf.ones([5, 3])).numpy()

    np.testing.assert_allclose((varied[:, 0] - varied[:, 1]) / 50, saturations, rtol=1e-4)
    np.testing.assert_allclose(varied @ color.LUMA, np.full(5, red @ color.LUMA), rtol=1e-4)


def test_gains_come_after_saturation():
    saturation, gains = tf.constant([0.0]), tf.constant([[0.5, 1.0, 2.0]])

    varied = np.array([160.0, 110.0, 110.0], np.float32) @ color.color_matrix(saturation, gains).numpy()

    luma = np.dot((160, 110, 110), color.LUMA)
    np.testing.assert_allclose(varied[0], [0.5 * luma, luma, 2 * luma], rtol=1e-5)


def test_exposures_darken_and_lighten_alike_within_the_limit(steady):
    factors = color.jitter(tf.ones([60, 2, 2, 3]), SEED, 0.0, exposure=3.0).numpy()

    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], factors.shape), rtol=1e-5)
    factors = factors[:, 0, 0, 0]
    assert 0.333 <= factors.min() < 0.4
    assert 2.5 < factors.max() <= 3.001
    assert 20 <= (factors < 1).sum() <= 40


def test_brightness_shifts_and_contrast_stretches_around_the_mean():
    images = np.random.default_rng(0).uniform(100, 150, (60, 16, 20, 3)).astype(np.float32)

    varied = color.jitter(images, SEED, 0.0, 1.0).numpy()

    shifts = (varied.mean(axis=(1, 2)) - images.mean(axis=(1, 2))) / 255
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-4)
    assert -color.BRIGHTNESS <= shifts.min() < -0.13
    assert 0.13 < shifts.max() <= color.BRIGHTNESS
    factors = varied.std(axis=(1, 2)) / images.std(axis=(1, 2))
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), atol=1e-3)
    assert 1 - color.CONTRAST - 1e-3 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1 + color.CONTRAST + 1e-3


def test_all_variations_together_are_those_one_after_another(images):
    varied = color.jitter(images, SEED, 0.4, 2.0).numpy()

    draws = [draw.numpy() for draw in color.uniform(7, images, SEED)]
    gains = 1 + 0.4 * (2 * np.stack(draws[1:4], axis=-1) - 1)
    expected = images @ color.color_matrix(1 + 0.4 * (2 * draws[0] - 1), gains).numpy()[:, np.newaxis]
    exposure, brightness, contrast = (draw[:, np.newaxis, np.newaxis, np.newaxis] for draw in draws[4:])
    expected = expected * 2.0 ** (2 * exposure - 1) + 255 * color.BRIGHTNESS * (2 * brightness - 1)
    for image, factor, found in zip(expected, contrast, varied, strict=True):
        adjusted = tf.image.adjust_contrast(image, 1 + color.CONTRAST * (2 * factor.item() - 1))
        np.testing.assert_allclose(found, adjusted, atol=0.01)


@pytest.mark.parametrize("shape", [(16, 20), (32, 33), (70, 5)])
def test_the_blur_is_a_gaussian_of_each_images_own_width(shape):
    images = np.random.default_rng(0).uniform(100, 150, (3, *shape, 3)).astype(np.float32)
    deviations = (0.4, 1.0, 2.5)

    blurred = color.gaussian(tf.constant(images), tf.constant(deviations), largest=2.5)

    for image, deviation, found in zip(images, deviations, blurred, strict=True):
        radius = min(8, *shape)
        expected = gaussian_filter(image, (deviation, deviation, 0), mode="reflect", radius=(radius, radius, 0))
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_no_width_leaves_the_images_and_a_width_beyond_them_still_works(images):
    np.testing.assert_array_equal(color.gaussian(tf.constant(images), tf.zeros([3]), largest=1.0), images)
    wide = color.gaussian(tf.constant(images), tf.fill([3], 50.0), largest=50.0)
    assert wide.shape == images.shape
    assert np.ptp(wide.numpy(), axis=(1, 2)).max() < np.ptp(images, axis=(1, 2)).max() / 2


def test_half_of_the_images_are_blurred(images):
    batch = np.repeat(images[:1], 60, axis=0)

    blurred = color.blur(tf.constant(batch), SEED, 2.0).numpy()

    changed = (blurred != batch).any(axis=(1, 2, 3))
    assert 18 <= changed.sum() <= 42
    assert len({image.tobytes() for image in blurred[changed]}) == changed.sum()
