import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import precision
from trainer.config import ModelSettings
from trainer.models import preprocessing, registry
from trainer.models import pspnet as network
from trainer.models.pyramid import RegionAverages, ResizedLike

# ResNet50 without its classifier, as in Keras Applications.
RESNET50 = 23_587_712


@pytest.fixture(scope="module")
def pspnet() -> keras.Model:
    return registry.build(ModelSettings(name="pspnet"), (352, 480), 12)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv1_relu", (176, 240, 64)),
        ("conv2_block3_out", (88, 120, 256)),
        ("conv3_block4_out", (44, 60, 512)),
        ("conv4_block6_out", (44, 60, 1024)),
        ("conv5_block3_out", (44, 60, 2048)),
        ("pyramid1_averages", (1, 1, 2048)),
        ("pyramid2_averages", (2, 2, 2048)),
        ("pyramid3_averages", (3, 3, 2048)),
        ("pyramid6_relu", (6, 6, 512)),
        ("pyramid6_resized", (44, 60, 512)),
        ("pyramid", (44, 60, 4096)),
        ("fuse_relu", (44, 60, 512)),
        ("scores", (44, 60, 12)),
        ("logits", (352, 480, 12)),
    ],
)
def test_pspnet_has_the_shapes_of_the_paper(pspnet, layer, expected):
    assert tuple(pspnet.get_layer(layer).output.shape[1:]) == expected


def test_pspnet_has_the_parameters_of_the_paper(pspnet):
    pyramid = 4 * (2048 * 512 + 4 * 512)
    fuse = 3 * 3 * 4096 * 512 + 4 * 512

    assert pspnet.count_params() == RESNET50 + pyramid + fuse + 512 * 12 + 12
    assert pspnet.get_layer("dropout").rate == 0.1


def test_the_last_two_stages_are_dilated(pspnet):
    rates = {
        stage: {pspnet.get_layer(f"conv{stage}_block{unit}_2_conv").dilation_rate for unit in (1, 2, 3)}
        for stage in (2, 3, 4, 5)
    }

    assert rates == {2: {(1, 1)}, 3: {(1, 1)}, 4: {(2, 2)}, 5: {(4, 4)}}


def test_auxiliary_scores_come_from_the_fourth_stage():
    assert registry.deep_layers(ModelSettings(name="pspnet")) == ("conv4_block6_out",)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(12, 18), (7, 4)])
def test_regions_are_averaged_at_any_size(bins, height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)

    averages = RegionAverages(bins)(x)

    for i in range(bins):
        for j in range(bins):
            rows = slice(i * height // bins, -(-(i + 1) * height // bins))
            columns = slice(j * width // bins, -(-(j + 1) * width // bins))
            np.testing.assert_allclose(averages[:, i, j], x[:, rows, columns].mean(axis=(1, 2)), atol=1e-5)


def test_averages_keep_their_precision_under_mixed_precision():
    layer = RegionAverages(1, dtype="mixed_bfloat16")

    average = layer(np.full((1, 40, 40, 1), 1.01, np.float32))

    assert average.dtype == tf.float32
    np.testing.assert_allclose(average, 1.01, atol=1e-5)


def test_a_feature_of_one_pixel_is_repeated():
    spread = ResizedLike()((np.full((1, 1, 1, 2), 5, np.float32), np.zeros((1, 3, 4, 7), np.float32)))

    np.testing.assert_array_equal(spread, np.full((1, 3, 4, 2), 5))


def test_the_layers_of_the_pyramid_can_be_saved():
    layer = RegionAverages(3, name="three")

    again = RegionAverages.from_config(layer.get_config())

    assert again(np.zeros((1, 6, 6, 2), np.float32)).shape == (1, 3, 3, 2)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_xla_compiles_the_pyramid_in_half_precision(policy):
    image = keras.Input((14, 10, 3))
    with precision.policy(policy):
        features = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
        model = keras.Model(image, preprocessing.float32_logits(network.pyramid(features)))
    x = np.random.default_rng(0).normal(size=(2, 14, 10, 3)).astype(np.float32)

    @tf.function(jit_compile=True)
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - 1))
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    for weight, gradient in zip(model.trainable_variables, gradients(), strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() < 100, weight.path
