import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import deep_supervision
from trainer.config import ModelSettings
from trainer.losses import CrossEntropy
from trainer.models import registry
from trainer.padding import PADDING

LAYERS = ["decoder3_relu2", "decoder2_relu2"]
CLASSES = 3


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return registry.build(ModelSettings(name="unet", base_filters=4, dropout=0), None, CLASSES)


@pytest.fixture(scope="module")
def supervised(network) -> keras.Model:
    return deep_supervision.attach(network, LAYERS, CLASSES)


@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
def test_every_head_gives_float32_logits_of_its_layers_size(supervised, size):
    outputs = supervised(np.zeros((1, *size, 3), np.float32))

    sizes = [(size[0] // stride, size[1] // stride) for stride in (1, 4, 2)]
    assert [(output.shape, output.dtype.name) for output in outputs] == [
        ((1, *found, CLASSES), "float32") for found in sizes
    ]


def test_heads_are_compared_with_masks_of_their_size():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, CLASSES, (2, 4, 6)).astype(np.uint8)
    masks = coarse.repeat(4, axis=1).repeat(4, axis=2)
    heads = [tf.constant(rng.normal(size=(2, 4 * n, 6 * n, CLASSES)), tf.float32) for n in (1, 2)]
    objective = CrossEntropy(np.ones(CLASSES, np.float32))

    found = deep_supervision.loss(objective, tf.constant(masks), heads)

    middle = coarse.repeat(2, axis=1).repeat(2, axis=2)
    expected = (float(objective(coarse, heads[0])) + float(objective(middle, heads[1]))) / 2
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("size", [(6, 8), (12, 16), (5, 7), (13, 11), (1, 1)])
def test_masks_shrink_to_the_nearest_pixel_as_tensorflow_resizes(size, xla):
    masks = tf.constant(np.random.default_rng(0).integers(PADDING, 9, (2, 24, 32)), tf.int32)

    def objective(shrunk: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        assert shrunk.shape == logits.shape[:3]
        return tf.reduce_mean(tf.square(tf.cast(shrunk, tf.float32) - logits[..., 0]))

    expected = tf.image.resize(masks[..., tf.newaxis], size, method="nearest")
    step = tf.function(lambda heads: deep_supervision.loss(objective, masks, heads), jit_compile=xla)
    found = step([tf.cast(expected, tf.float32)])

    assert float(found) == 0.0


def test_padding_does_not_count_in_a_head():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, CLASSES, (3, 8, 12)).astype(np.int32)
    masks[2] = PADDING
    logits = tf.constant(rng.normal(size=(3, 4, 6, CLASSES)), tf.float32)
    objective = CrossEntropy(np.ones(CLASSES, np.float32))

    found, without = (deep_supervision.loss(objective, masks[:n], [logits[:n]]) for n in (3, 2))

    assert float(found) == pytest.approx(float(without), rel=1e-6)


def test_all_logits_are_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = registry.build(ModelSettings(name="unet", base_filters=4), (32, 48), CLASSES)
        supervised = deep_supervision.attach(model, LAYERS, CLASSES)
    finally:
        keras.config.set_dtype_policy(before)

    assert [output.dtype for output in supervised.outputs] == ["float32"] * 3


def test_the_first_output_is_the_networks_own_and_the_network_has_no_heads(network, supervised):
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype(np.float32)

    np.testing.assert_array_equal(supervised(images)[0], network(images))
    heads = {f"{name}_supervision" for name in LAYERS}
    assert heads <= {layer.name for layer in supervised.layers}
    assert not heads & {layer.name for layer in network.layers}
    assert {id(v) for v in network.variables} < {id(v) for v in supervised.variables}


def test_without_layers_the_network_is_not_changed(network):
    assert deep_supervision.attach(network, (), CLASSES) is network
