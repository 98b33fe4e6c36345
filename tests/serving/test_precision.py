"""A network's copy in another precision: the network that would have been built in it, with the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.precision import CONVOLUTIONS, with_precision
from trainer import precision
from trainer.config import ModelSettings
from trainer.models import registry

# Every architecture with its defaults, and the options that add other layers.
_NETWORKS = [
    *({"name": name} for name in registry.ARCHITECTURES if name not in ("unet", "mask_rcnn")),
    {"name": "unet", "base_filters": 4},
    {"name": "unet", "base_filters": 4, "normalization": True, "upsampling": "bilinear"},
    {"name": "unet", "base_filters": 4, "encoder": "mobilenet_v2"},
    {"name": "fcn8", "normalization": True, "head_filters": 8, "upsampling": "bilinear"},
]


def _build(settings: dict, policy: str) -> keras.Model:
    """Builds a network for images of any size."""
    with precision.policy(policy):
        return registry.build(ModelSettings(**settings), None, 3)


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def _randomize_statistics(network: keras.Model) -> None:
    """Sets statistics of batch norms that change the outputs, as training does."""
    random = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.8, 1.2, weight.shape) for weight in layer.get_weights()])


@pytest.mark.parametrize("settings", _NETWORKS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_the_copy_is_the_network_built_in_that_precision(settings):
    keras.utils.set_random_seed(0)
    half, full = _build(settings, "mixed_bfloat16"), _build(settings, "float32")
    _randomize_statistics(full)
    half.set_weights(full.get_weights())

    as_full, as_half = with_precision(half, "float32"), with_precision(full, "bfloat16")

    for image in (_image(32, 64), _image(96, 32)):
        expected = [network(image, training=False) for network in (full, half)]
        found = [network(image, training=False) for network in (as_full, as_half)]
        assert {logits.dtype for logits in found} == {tf.float32}
        np.testing.assert_array_equal(found[0], expected[0])
        # The network that is trained in bfloat16 computes its class scores in float32.
        np.testing.assert_allclose(found[1], expected[1], atol=0.02 * np.abs(expected[1]).max())
        assert np.any(found[0] != found[1])


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 0), ("bfloat16", 0.05), ("float16", 0.01)])
def test_every_convolution_computes_and_stores_its_kernel_in_the_precision(kind, tolerance):
    settings = {"name": "unet", "base_filters": 4, "normalization": True}
    keras.utils.set_random_seed(0)
    network = _build(settings, "float32")
    before = [np.array(weight) for weight in network.get_weights()]

    copy = with_precision(network, kind)

    convolutions = [layer for layer in copy.layers if isinstance(layer, CONVOLUTIONS)]
    assert {(layer.compute_dtype, layer.variable_dtype) for layer in convolutions} == {(kind, kind)}
    assert {layer.compute_dtype for layer in copy.layers if layer.name in ("minus_one_to_one", "logits")} == {"float32"}
    norms = [layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.variable_dtype for layer in norms} == {"float32"}
    expected = network(_image(32, 32), training=False)
    error = np.abs(copy(_image(32, 32), training=False) - expected).max()
    assert error <= tolerance * np.abs(expected).max()
    # The original network is not changed.
    for weight, old in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_frozen_layers_and_synchronised_statistics_do_not_change_the_copy():
    settings = {"name": "unet", "base_filters": 4, "encoder": "mobilenet_v2", "normalization": True}
    keras.utils.set_random_seed(0)
    network = _build(settings, "float32")
    _randomize_statistics(network)
    registry.freeze(network, ModelSettings(**settings), 2)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True

    copy = with_precision(network, "float32")

    np.testing.assert_array_equal(copy(_image(32, 32), training=False), network(_image(32, 32), training=False))
