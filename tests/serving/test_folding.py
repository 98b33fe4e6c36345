"""Folding: the same outputs with fewer layers, and the requested precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.folding import FrozenNetwork, fold

_SIZE = (16, 24)


@pytest.fixture(scope="module")
def network():
    """Every kind of convolution with a batch norm behind it, a skip, and batch norms that must stay."""
    layers = keras.layers
    keras.utils.set_random_seed(5)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="scale")(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = skip = layers.Activation("relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.BatchNormalization(name="norm_of_pool")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(scale=False, name="norm_of_depthwise")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, name="transposed")(x)
    x = layers.BatchNormalization(center=False, name="norm_of_transposed")(x)
    x = layers.Concatenate()([x, skip])
    x = shared = layers.Conv2D(8, 1, name="read_twice")(x)
    x = layers.Add()([layers.BatchNormalization(name="norm_of_read_twice")(x), shared])
    x = layers.Conv2D(8, 1, activation="relu", name="with_relu")(x)
    x = layers.BatchNormalization(name="norm_of_relu")(x)
    logits = layers.Conv2D(3, 1, name="classes")(x)
    model = keras.Model(image, layers.Activation("linear", dtype="float32", name="logits")(logits))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).uniform(0, 255, (2, *_SIZE, 3)).astype(np.float32)


def test_the_folded_network_has_the_same_outputs(network, pixels):
    folded = fold(network, "float32")

    np.testing.assert_allclose(folded(pixels), network(pixels, training=False), rtol=1e-4, atol=1e-4)


def test_only_batch_norms_after_a_convolution_are_folded(network):
    left = [
        layer.name for layer in fold(network, "float32").layers if isinstance(layer, keras.layers.BatchNormalization)
    ]

    assert left == ["norm_of_pool", "norm_of_read_twice", "norm_of_relu"]


def test_bfloat16_keeps_pixels_and_logits_in_float32(network, pixels):
    folded = fold(network, "bfloat16")

    answer = folded(pixels)
    assert answer.dtype == tf.float32
    expected = network(pixels, training=False).numpy()
    assert 0 < np.abs(answer - expected).max() < 0.05 * np.abs(expected).max()
    compute = {layer.name: layer.compute_dtype for layer in folded.layers}
    assert (compute["scale"], compute["logits"], compute["conv"]) == ("float32", "float32", "bfloat16")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 5)])
def test_a_network_trained_in_mixed_precision_folds_to_either(pixels, precision, tolerance):
    image = keras.Input((None, None, 3))
    x = image
    for layer in (
        keras.layers.Conv2D(4, 3, padding="same", dtype="mixed_bfloat16", name="first"),
        keras.layers.Activation("relu", dtype="mixed_bfloat16"),
        keras.layers.Conv2D(4, 3, padding="same", dtype="mixed_bfloat16", name="second"),
        keras.layers.Activation("linear", dtype="float32"),
    ):
        x = layer(x)
    network = keras.Model(image, x)

    folded = fold(network, precision)

    kernels = [network.get_layer(name).kernel.value for name in ("first", "second")]
    features = tf.nn.relu(tf.nn.conv2d(pixels, kernels[0], 1, "SAME"))
    np.testing.assert_allclose(folded(pixels), tf.nn.conv2d(features, kernels[1], 1, "SAME"), atol=tolerance)
    assert {folded.get_layer(name).compute_dtype for name in ("first", "second")} == {precision}


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_a_frozen_network_has_no_variables_and_the_same_outputs(network, pixels, precision, tolerance):
    folded = fold(network, precision)

    frozen = FrozenNetwork(folded, _SIZE)

    assert not frozen.graph.captured_inputs
    np.testing.assert_allclose(frozen(tf.constant(pixels)), folded(pixels), rtol=1e-3, atol=tolerance)
