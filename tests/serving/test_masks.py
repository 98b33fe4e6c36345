"""Choosing classes in strips gives the very masks of resizing as a whole."""

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
def test_strips_give_the_masks_of_the_whole(shape, size, strip_values, monkeypatch):
    monkeypatch.setattr(masks, "_STRIP_VALUES", strip_values)
    probabilities = np.random.default_rng(3).dirichlet(np.ones(shape[-1]), shape[:2]).astype(np.float32)

    in_strips = tf.function(masks.class_mask)(tf.constant(probabilities), tf.constant(size))

    whole = tf.argmax(tf.image.resize(probabilities, size, method="bilinear"), axis=-1)
    assert in_strips.dtype == tf.uint8
    np.testing.assert_array_equal(in_strips, whole)
