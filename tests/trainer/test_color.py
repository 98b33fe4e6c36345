import numpy as np
import tensorflow as tf

from trainer import color

SEED = tf.constant([5, 11])


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


def test_brightness_shifts_and_contrast_stretches_around_the_mean():
    images = np.random.default_rng(0).uniform(100, 150, (60, 16, 20, 3)).astype(np.float32)

    varied = color.jitter(images, SEED).numpy()

    shifts = (varied.mean(axis=(1, 2)) - images.mean(axis=(1, 2))) / 255
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-4)
    assert -color.BRIGHTNESS <= shifts.min() < -0.13
    assert 0.13 < shifts.max() <= color.BRIGHTNESS
    factors = varied.std(axis=(1, 2)) / images.std(axis=(1, 2))
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), atol=1e-3)
    assert 1 - color.CONTRAST - 1e-3 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1 + color.CONTRAST + 1e-3


def test_each_image_is_brightened_and_adjusted_by_its_own_draws():
    images = np.random.default_rng(0).uniform(100, 150, (3, 16, 20, 3)).astype(np.float32)

    varied = color.jitter(images, SEED).numpy()

    brightness, contrast = (2 * draw.numpy() - 1 for draw in color.uniform(2, images, SEED))
    for image, shift, factor, found in zip(images, brightness, contrast, varied, strict=True):
        adjusted = tf.image.adjust_contrast(image, 1 + color.CONTRAST * factor) + 255 * color.BRIGHTNESS * shift
        np.testing.assert_allclose(found, adjusted, atol=0.01)
