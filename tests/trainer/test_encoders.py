import itertools

import keras
import numpy as np
import pytest

from trainer.config import ModelSettings
from trainer.models import convnext, dilation, efficientnet_lite, encoders, mit, preprocessing, registry


def imagenet_moments(image: np.ndarray) -> np.ndarray:
    return (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


APPLICATIONS = {
    "vgg16": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input),
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet.preprocess_input),
    "mobilenet_v2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input),
    "efficientnet_lite0": (efficientnet_lite.EfficientNetLite0, lambda image: (image - 127) / 128),
    "efficientnet_lite2": (efficientnet_lite.EfficientNetLite2, lambda image: (image - 127) / 128),
    "convnext_tiny": (convnext.ConvNeXtTiny, imagenet_moments),
    "mit_b0": (mit.MiTB0, imagenet_moments),
}


@pytest.fixture(scope="module", params=list(APPLICATIONS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def application(name) -> keras.Model:
    return APPLICATIONS[name][0](include_top=False, weights=None, input_shape=(64, 64, 3))


def side(model: keras.Model, layer: str) -> int:
    return model.get_layer(layer).output.shape[1]


def test_features_have_their_strides(name, application):
    encoder = encoders.ENCODERS[name]

    finest = None if name in ("convnext_tiny", "mit_b0") else 2
    assert [layer and 64 // side(application, layer) for layer in encoder.features] == [finest, 4, 8, 16, 32]
    assert [layer and 64 // side(application, layer) for layer in encoder.skips][1:] == [finest, 4, 8, 16]


def test_only_vgg16_has_features_of_stride_1():
    assert {name for name, encoder in encoders.ENCODERS.items() if encoder.skips[0]} == {"vgg16"}


def test_blocks_hold_every_layer_with_weights_and_end_where_the_size_halves(name, application):
    encoder = encoders.ENCODERS[name]
    cut = keras.Model(application.input, application.get_layer(encoder.features[-1]).output)

    assert len(encoder.blocks) == 5
    assert sorted(itertools.chain(*encoder.blocks)) == sorted(layer.name for layer in cut.layers if layer.weights)
    first = 2 if encoder.features[0] else 4
    for block, stride in zip(encoder.blocks, (first, 4, 8, 16, 32), strict=True):
        # VGG16 pools after a block's convolutions; the others begin a block with a stride. Only MiT-B0 has smaller
        # features within a block, for its attention.
        largest = stride // 2 if name == "vgg16" else stride
        assert 64 // side(application, block[0]) == largest
        assert {64 // side(application, layer) for layer in block} == {largest} or name == "mit_b0"


def test_pretrained_encoder_gets_its_preprocessing(name):
    settings = ModelSettings(encoder=name, encoder_weights="imagenet")
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)

    prepared = encoders.pixels(settings)(image)

    np.testing.assert_allclose(prepared, APPLICATIONS[name][1](image.copy()), atol=1e-4)
    assert registry.pixels(settings) == encoders.ENCODERS[name].pixels.__name__


def test_random_encoder_gets_pixels_from_minus_one_to_one(name):
    assert registry.pixels(ModelSettings(encoder=name)) == "minus_one_to_one"


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "efficientnet_lite0"])
def test_batch_normalisation_has_the_momentum_for_short_trainings(encoder):
    image = preprocessing.image_input((None, None))

    (features,) = encoders.extract(encoders.ENCODERS[encoder], image, [encoders.ENCODERS[encoder].deepest])

    momenta = {
        layer.momentum
        for layer in keras.Model(image, features).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert momenta == {0.9}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        *((name, "none") for name in registry.ARCHITECTURES["pspnet"].encoder_choices),
        # Strides and padding differ.
        ("resnet50", "timm.safetensors"),
        ("mobilenet_v2", "timm.safetensors"),
    ],
)
def test_dilation_keeps_the_features_at_strided_positions(name, weights):
    settings = ModelSettings(name="pspnet", encoder=name, encoder_weights=weights)
    encoder = encoders.chosen(settings)
    image = preprocessing.image_input((None, None))
    (features,) = encoders.extract(encoder, encoders.pixels(settings)(image), [encoder.deepest])
    strided = keras.Model(image, features)
    for layer in strided.layers:
        if isinstance(layer, convnext.LayerScale):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
    same_image, (features,) = dilation.extract(settings, encoder, (None, None), [encoder.deepest], 8)
    dilated = keras.Model(same_image, features)
    dilated.set_weights(strided.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 96, 64, 3)).astype(np.float32)

    expected, found = strided(pixels).numpy(), dilated(pixels).numpy()

    assert found.shape[1:3] == (12, 8)
    step = found.shape[1] // expected.shape[1]
    assert step == (2 if name == "vgg16" else 4)
    np.testing.assert_allclose(found[:, ::step, ::step], expected, atol=1e-3 * np.abs(expected).max())
