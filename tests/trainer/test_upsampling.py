"""The initial weights of upsampling layers are interpolation."""

import keras
import numpy as np
import pytest

from trainer.models.upsampling import Interpolation


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
