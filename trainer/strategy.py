"""Chooses how training is spread over devices: here, the one device TensorFlow takes by default."""

from __future__ import annotations

import tensorflow as tf


def choose() -> tf.distribute.Strategy:
    """Returns the strategy in whose scope the model is built and compiled."""
    return tf.distribute.get_strategy()
