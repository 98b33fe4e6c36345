"""Choosing classes in strips gives exactly the masks of resizing the whole image."""

import numpy as np
import pytest
import tensorflow as tf

from serving import masks


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((35, 48, 12), (72, 96)),
        ((35, 48, 12), (36, 49)),
        ((35, 48, 11), (35, 48)),
        ((33, 47, 3), (1000, 7)),
        ((35, 48, 12), (10, 9)),
        ((1, 1, 5), (64, 100)),
        ((64, 64, 2), (1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("strip_values", [1, 5_000, 1 << 20])
def test_strips_give_the_masks_of_the_whole_image(shape, size, strip_values, monkeypatch):
    monkeypatch.setattr(masks, "_STRIP_VALUES", strip_values)
    probabilities = np.random.default_rng(3).dirichlet(np.ones(shape[-1]), shape[:2]).astype(np.float32)

    (in_strips,) = tf.function(masks.class_mask)(tf.constant(probabilities), tf.constant(size))
    mask, confidence = tf.function(masks.class_mask)(tf.constant(probabilities), tf.constant(size), True)

    whole = tf.image.resize(probabilities, size, method="bilinear")
    assert in_strips.dtype == mask.dtype == confidence.dtype == tf.uint8
    np.testing.assert_array_equal(in_strips, tf.argmax(whole, axis=-1))
    np.testing.assert_array_equal(mask, in_strips)
    # Half a level, and rounding errors of float32.
    np.testing.assert_allclose(confidence / 255, tf.reduce_max(whole, axis=-1), atol=1 / 510 + 1e-5)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1 / 3, 1.0, 1.0000001])
def test_confidence_is_rounded_to_the_nearest_of_256_levels(probability):
    level = masks.confidence_levels(tf.constant([probability, 0.0], tf.float32))

    assert int(level) == round(255 * min(probability, 1))
