import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import registry
from trainer.models.unpooling import MaxPoolingWithIndices, MaxUnpooling


@pytest.fixture(scope="module")
def segnet() -> keras.Model:
    return registry.build(ModelSettings(name="segnet"), (352, 480), 12)


def features(*shape: int, dtype: str = "float32") -> tf.Tensor:
    return tf.cast(np.random.default_rng(0).normal(size=shape), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_unpooling_puts_every_maximum_back_where_it_came_from(dtype):
    x = features(2, 6, 8, 5, dtype=dtype)

    maxima, indices = MaxPoolingWithIndices(dtype=dtype)(x)
    unpooled = MaxUnpooling(dtype=dtype)((maxima, indices))

    windows = x.numpy().astype(np.float32).reshape(2, 3, 2, 4, 2, 5)
    largest = windows.max(axis=(2, 4), keepdims=True)
    expected = np.where(windows == largest, windows, 0).reshape(2, 6, 8, 5)
    assert unpooled.dtype == maxima.dtype == dtype
    # In bfloat16, values in a window may be equal; all other pixels are unchanged or zero.
    alone = np.broadcast_to((windows == largest).sum(axis=(2, 4), keepdims=True) == 1, windows.shape)
    alone = alone.reshape(2, 6, 8, 5)
    assert alone.mean() > 0.9
    np.testing.assert_array_equal(unpooled.numpy().astype(np.float32)[alone], expected[alone])


def test_the_first_of_equal_maxima_is_kept():
    unpooled = MaxUnpooling()(MaxPoolingWithIndices()(np.ones((1, 4, 4, 1), np.float32)))

    np.testing.assert_array_equal(unpooled[0, ..., 0], [[1, 0, 1, 0], [0, 0, 0, 0]] * 2)


def test_pooling_and_indices_agree_with_tensorflow():
    x = features(2, 6, 4, 3)

    maxima, indices = MaxPoolingWithIndices()(x)

    expected, flat = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=False)
    row, column = np.divmod(flat.numpy() // 3, 4)
    np.testing.assert_array_equal(maxima, expected)
    np.testing.assert_array_equal(indices, row % 2 * 2 + column % 2)


def test_only_maxima_get_gradients():
    x = tf.Variable(features(1, 4, 4, 2))

    with tf.GradientTape() as tape:
        unpooled = MaxUnpooling()(MaxPoolingWithIndices()(x))
        total = tf.reduce_sum(unpooled * 3)

    np.testing.assert_array_equal(tape.gradient(total, x), np.where(unpooled.numpy() != 0, 3, 0))


def test_a_window_of_negative_values_keeps_its_maximum():
    unpooled = MaxUnpooling()(MaxPoolingWithIndices()(np.array([[-1.0, -2], [-3, -4]], np.float32)[None, ..., None]))

    np.testing.assert_array_equal(unpooled[0, ..., 0], [[-1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("block1_relu2", (352, 480, 64)),
        ("block5_relu3", (22, 30, 512)),
        ("decoder5_unpool", (22, 30, 512)),
        ("decoder5_relu1", (22, 30, 512)),
        ("decoder4_unpool", (44, 60, 512)),
        ("decoder4_relu1", (44, 60, 256)),
        ("decoder3_relu1", (88, 120, 128)),
        ("decoder2_relu1", (176, 240, 64)),
        ("decoder1_unpool", (352, 480, 64)),
        ("decoder1_relu2", (352, 480, 64)),
        ("classes", (352, 480, 12)),
    ],
)
def test_segnet_has_the_shapes_of_the_paper(segnet, layer, expected):
    assert tuple(segnet.get_layer(layer).output.shape[1:]) == expected


def test_segnet_has_the_parameters_of_the_paper(segnet):
    encoder = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
    channels = [*itertools.pairwise(encoder), *itertools.pairwise(decoder)]
    convolutions = sum(9 * inputs * outputs + outputs for inputs, outputs in [*channels, (64, 12)])
    normalisations = sum(4 * outputs for _, outputs in channels)

    assert len(channels) == 25
    assert segnet.count_params() == convolutions + normalisations == 29_465_804


def test_the_encoders_blocks_include_their_normalisation(segnet):
    blocks = registry.encoder_blocks(ModelSettings(name="segnet"))

    assert blocks[0] == ("block1_conv1", "block1_normalize1", "block1_conv2", "block1_normalize2")
    assert sorted(sum(blocks, ())) == sorted(
        layer.name for layer in segnet.layers if layer.weights and layer.name.startswith("block")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampling": "bilinear"}, "model.upsampling: found bilinear, which segnet does not support; use default"),
        ({"encoder": "resnet50"}, "model.encoder: found resnet50, which segnet does not support; use default or vgg16"),
    ],
)
def test_segnet_rejects_options_that_unpooling_does_not_support(options, message):
    with pytest.raises(UsageError, match=message):
        registry.build(ModelSettings(name="segnet", **options), None, 3)
