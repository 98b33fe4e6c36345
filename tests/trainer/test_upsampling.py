"""Upsampling interpolates at any size, and transposed convolutions are initialised to interpolation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.upsampling import Interpolation, _weights, interpolate, resize


def _upsample(x, size, stride):
    layer = keras.layers.Conv2DTranspose(
        x.shape[-1], size, strides=stride, padding="same", kernel_initializer=Interpolation(stride)
    )
    return keras.ops.convert_to_numpy(layer(x))


def test_a_kernel_twice_the_stride_is_bilinear():
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 3)).astype(np.float32)

    bilinear = keras.ops.convert_to_numpy(keras.ops.image.resize(x, (12, 10), interpolation="bilinear"))

    inside = np.s_[:, 1:-1, 1:-1]
    np.testing.assert_allclose(_upsample(x, 4, 2)[inside], bilinear[inside], atol=1e-6)


def test_a_kernel_of_the_stride_repeats_each_value():
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 4)).astype(np.float32)

    np.testing.assert_allclose(_upsample(x, 8, 8), x.repeat(8, axis=1).repeat(8, axis=2), atol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [(3, (4, 4)), (4, (4, 5))])
def test_other_kernels_are_rejected(size, channels):
    with pytest.raises(ValueError, match="no interpolation"):
        Interpolation(2)((size, size, *channels))


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_one_network_interpolates_features_of_any_size(method):
    features = keras.Input((None, None, 3))
    model = keras.Model(features, interpolate(features, 2, method, "up"))
    upsample = tf.function(lambda x: model(x), [tf.TensorSpec([None, None, None, 3])])

    for height, width in ((4, 6), (5, 3)):
        x = np.random.default_rng(0).normal(size=(1, height, width, 3)).astype(np.float32)
        expected = keras.ops.image.resize(x, (2 * height, 2 * width), interpolation=method)
        np.testing.assert_allclose(upsample(x), expected, atol=1e-6)


SIZES = [
    ((6, 5), (12, 10)),  # integer factors
    ((6, 6), (44, 60)),  # other factors
    ((1, 1), (7, 3)),
    ((9, 12), (3, 4)),  # shrinks by integer factors
    ((9, 12), (4, 5)),  # shrinks by other factors
    ((4, 5), (4, 5)),
]


@pytest.mark.parametrize("known", [True, False])
# Half precision rounds twice, and rounds positions to 1/256 pixel; the largest value is near 3.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.015)])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resizing_and_its_gradient_agree_with_tensorflow(before, after, dtype, tolerance, known):
    rng = np.random.default_rng(0)
    x = tf.cast(rng.normal(size=(2, *before, 3)), dtype)
    # Scaled to a mean of the gradients, which is about as large as the values.
    scale = before[0] * before[1] / max(before[0] * before[1], after[0] * after[1])
    upstream = tf.cast(scale * rng.normal(size=(2, *after, 3)), dtype)
    any_size = tf.TensorSpec([None, None, None, 3], dtype)

    @tf.function(input_signature=None if known else [any_size, tf.TensorSpec([2], tf.int32), any_size])
    def resized(x, size, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = resize(x, after if known else (size[0], size[1]))
        return y, tape.gradient(y, x, upstream)

    y, gradient = resized(x, tf.constant(after), upstream)

    wide = tf.Variable(tf.cast(x, tf.float32))
    with tf.GradientTape() as tape:
        expected = tf.image.resize(wide, after, method="bilinear", antialias=False)
    expected_gradient = tape.gradient(expected, wide, tf.cast(upstream, tf.float32))
    assert y.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, atol=tolerance)
    np.testing.assert_allclose(tf.cast(gradient, tf.float32), expected_gradient, atol=tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_equal_values_stay_equal_in_half_precision(before, after, dtype):
    x = tf.fill([1, *before, 2], tf.cast(1.1, dtype))

    np.testing.assert_array_equal(tf.unique(tf.reshape(tf.cast(resize(x, after), tf.float32), [-1])).y, x[0, 0, 0, :1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_add_up_to_1_in_half_precision(dtype):
    weights = tf.cast(_weights(9, 60, dtype), tf.float32)

    np.testing.assert_array_equal(tf.reduce_sum(weights, axis=1), np.ones(60))


# `tf.image.resize` failed here, or had a wrong gradient: with TensorFlow 2.16, XLA returned it as float32.
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("relu", [True, False])
def test_xla_finds_the_gradient_in_half_precision(dtype, relu):
    x = tf.cast(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), dtype)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = resize(tf.nn.relu(x) if relu else x, (12, 20))
            loss = tf.reduce_sum(tf.square(tf.cast(y, tf.float32)))
        return tape.gradient(loss, x)

    compiled = tf.function(gradient, jit_compile=True)(x)

    assert compiled.dtype == dtype
    expected = gradient(tf.cast(x, tf.float32))
    np.testing.assert_allclose(tf.cast(compiled, tf.float32), expected, rtol=0.05, atol=0.5)
