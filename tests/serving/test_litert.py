"""Networks for LiteRT: small, with outputs like the original ones, or rejected with an explanation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from serving.litert import LiteRTNetwork, quantize

_SIZE = (16, 24)


def _network(head):
    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    return keras.Model(image, head(x), name="toy")


def _pixels(count):
    return np.random.default_rng(1).uniform(0, 255, (count, *_SIZE, 3)).astype(np.float32)


def test_an_int8_network_has_a_quarter_of_the_size_and_similar_outputs():
    network = _network(keras.layers.Conv2D(4, 1))
    pixels = _pixels(3)

    content = quantize(network, _SIZE, lambda: iter(pixels))

    answer = LiteRTNetwork(content)(tf.constant(pixels)).numpy()
    expected = network(pixels, training=False).numpy()
    assert answer.shape == (3, *_SIZE, 4)
    assert 0 < np.abs(answer - expected).max() < 0.05 * np.ptp(expected)
    assert len(content) < 2 * network.count_params()


def test_a_network_that_litert_does_not_support_is_rejected():
    class Unique(keras.layers.Layer):
        def call(self, x):
            return x + tf.strings.to_number(tf.strings.as_string(x))

    with pytest.raises(UsageError, match="found int8 for toy, expected a network that LiteRT supports"):
        quantize(_network(Unique()), _SIZE, lambda: iter(_pixels(1)))
