"""Upsampling interpolates at any size, and transposed convolutions begin as interpolation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.upsampling import Interpolation, interpolate


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
def test_other_kernels_are_refused(size, channels):
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
