"""The fused layer gives the same results as Keras' layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.normalization import BatchNormalization

FEATURES = np.random.default_rng(0).normal(3, 2, (2, 6, 5, 4)).astype(np.float32)
WEIGHTS = [np.float32(w) for w in ([1, 2, 0.5, -1], [0, 1, -1, 3], [0, 1, 2, 3], [1, 2, 3, 4])]


def built(kind: type, **settings):
    layer = kind(momentum=0.9, **settings)
    layer.build(FEATURES.shape)
    layer.set_weights(WEIGHTS)
    return layer


def step(layer):
    """Returns the outputs, the gradients by input, gamma and beta, and the statistics after a training step."""
    features, towards = tf.constant(FEATURES), tf.constant(np.cos(FEATURES))
    with tf.GradientTape() as tape:
        tape.watch(features)
        outputs = layer(features, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * towards)
    weights = [features, *(weight.value for weight in layer.trainable_variables)]
    return [outputs, *tape.gradient(loss, weights), *layer.non_trainable_variables]


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.03)])
def test_a_training_step_is_that_of_keras(policy, tolerance):
    found, expected = (
        step(built(kind, dtype=policy)) for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )

    assert found[0].dtype == expected[0].dtype
    assert len(found) == 6
    for ours, theirs in zip(found, expected, strict=True):
        theirs = np.asarray(theirs, np.float32)
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=tolerance * np.abs(theirs).max())


def operations(layer, **arguments) -> set[str]:
    """Returns the types of the operations that a call of the layer makes."""
    graph = (
        tf.function(lambda features: layer(features, **arguments)).get_concrete_function(tf.constant(FEATURES)).graph
    )
    return {operation.type for operation in graph.get_operations()}


def test_a_training_step_is_one_operation():
    assert "FusedBatchNormV3" in operations(built(BatchNormalization), training=True)


def test_synchronised_statistics_and_masks_use_keras_code():
    shared = built(BatchNormalization)
    shared.synchronized = True

    assert "FusedBatchNormV3" not in operations(shared, training=True)
    assert "FusedBatchNormV3" not in operations(
        built(BatchNormalization), training=True, mask=tf.ones(FEATURES.shape[:-1], tf.bool)
    )


def test_prediction_uses_the_moving_statistics():
    found, expected = (built(kind)(FEATURES) for kind in (BatchNormalization, keras.layers.BatchNormalization))

    np.testing.assert_array_equal(found, expected)


def test_a_frozen_layer_keeps_its_statistics():
    layer = built(BatchNormalization)
    layer.trainable = False

    layer(FEATURES, training=True)

    np.testing.assert_array_equal(layer.moving_mean, WEIGHTS[2])
