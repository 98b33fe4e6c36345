import keras
import numpy as np
import pytest

from components.errors import UsageError
from pipeline.configuration.loading import load_config
from pipeline.configuration.presets import PRESETS, preset
from trainer import deep_supervision, precision
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import registry

# Settings that make networks small.
NARROW = {"unet": {"base_filters": 4}}


def conv(kernel: int, inputs: int, outputs: int, bias: bool = True) -> int:
    return kernel * kernel * inputs * outputs + (outputs if bias else 0)


def shape(model: keras.Model, layer: str) -> tuple[int, ...]:
    return tuple(model.get_layer(layer).output.shape[1:])


VGG16_CONVOLUTIONS = sum(
    conv(3, inputs, outputs)
    for inputs, outputs in [
        (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256),
        (256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def fcn8() -> keras.Model:
    return registry.build(ModelSettings(name="fcn8"), (224, 224), 12)


@pytest.fixture(scope="module")
def unet() -> keras.Model:
    return registry.build(ModelSettings(name="unet"), (128, 128), 3)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("block1_conv2", (224, 224, 64)),
        ("block1_pool", (112, 112, 64)),
        ("block2_conv2", (112, 112, 128)),
        ("block2_pool", (56, 56, 128)),
        ("block3_conv3", (56, 56, 256)),
        ("block3_pool", (28, 28, 256)),
        ("block4_conv3", (28, 28, 512)),
        ("block4_pool", (14, 14, 512)),
        ("block5_conv3", (14, 14, 512)),
        ("block5_pool", (7, 7, 512)),
        ("up_pool5", (16, 16, 12)),
        ("crop_pool5", (14, 14, 12)),
        ("skip_pool4", (14, 14, 12)),
        ("up_pool4", (30, 30, 12)),
        ("crop_pool4", (28, 28, 12)),
        ("skip_pool3", (28, 28, 12)),
        ("up_pool3", (224, 224, 12)),
        ("logits", (224, 224, 12)),
    ],
)
def test_fcn8_has_the_shapes_of_the_paper(fcn8, layer, expected):
    assert shape(fcn8, layer) == expected


def test_fcn8_has_the_parameters_of_the_paper(fcn8):
    n = 12
    decoder = conv(4, 512, n, bias=False) + conv(1, 512, n) + conv(4, n, n) + conv(1, 256, n) + conv(8, n, n)

    assert VGG16_CONVOLUTIONS == 14_714_688
    assert fcn8.count_params() == VGG16_CONVOLUTIONS + decoder


def test_fcn8_options_add_only_what_they_name(fcn8):
    n = 12
    settings = ModelSettings(name="fcn8", normalization=True, head_filters=32)

    model = registry.build(settings, (64, 64), n)

    head = conv(3, 512, 32) - conv(4, 512, n, bias=False) + conv(4, 32, n, bias=False)
    assert model.count_params() == fcn8.count_params() + 4 * (256 + 512 + 512) + head
    assert shape(model, "head") == (2, 2, 32)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("encoder1_relu2", (128, 128, 64)),
        ("encoder1_pool", (64, 64, 64)),
        ("encoder2_relu2", (64, 64, 128)),
        ("encoder3_relu2", (32, 32, 256)),
        ("encoder4_relu2", (16, 16, 512)),
        ("encoder4_pool", (8, 8, 512)),
        ("bottleneck_relu2", (8, 8, 1024)),
        ("decoder4_up", (16, 16, 512)),
        ("decoder4_concatenate", (16, 16, 1024)),
        ("decoder4_relu2", (16, 16, 512)),
        ("decoder3_relu2", (32, 32, 256)),
        ("decoder2_relu2", (64, 64, 128)),
        ("decoder1_concatenate", (128, 128, 128)),
        ("decoder1_relu2", (128, 128, 64)),
        ("logits", (128, 128, 3)),
    ],
)
def test_unet_has_the_shapes_of_the_paper(unet, layer, expected):
    assert shape(unet, layer) == expected


def test_unet_has_the_parameters_of_the_paper(unet):
    def block(inputs: int, filters: int) -> int:
        return conv(3, inputs, filters) + conv(3, filters, filters)

    encoder = block(3, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    decoder = sum(conv(3, 2 * filters, filters) + block(2 * filters, filters) for filters in (512, 256, 128, 64))

    assert unet.count_params() == encoder + block(512, 1024) + decoder + conv(1, 64, 3)


def test_unet_has_its_dropout_rates(unet):
    rates = [layer.rate for layer in unet.layers if isinstance(layer, keras.layers.Dropout)]

    assert rates == [0.3] * 8


def test_unet_normalization_replaces_the_bias_of_each_convolution():
    plain = registry.build(ModelSettings(name="unet", base_filters=4), (16, 32), 5)
    normalized = registry.build(ModelSettings(name="unet", base_filters=4, normalization=True), (16, 32), 5)

    filters = 2 * (2 * (4 + 8 + 16 + 32) + 64)
    assert normalized.count_params() == plain.count_params() + (4 - 1) * filters


# conv6 is 7x7 from pool5, conv7 1x1.
CONV6_AND_7 = conv(7, 512, 4096) + conv(1, 4096, 4096)


def test_fcn8_conv7_has_the_published_parameters_and_shapes():
    model = registry.build(ModelSettings(name="fcn8_conv7"), (224, 224), 12)

    assert model.count_params() == 135_066_008
    for layer, expected in [
        ("conv6", (7, 7, 4096)), ("conv7", (7, 7, 4096)), ("up_conv7", (28, 28, 12)), ("pool4_conv", (14, 14, 12)),
        ("up_pool4", (28, 28, 12)), ("pool3_conv", (28, 28, 12)), ("add", (28, 28, 12)), ("up_sum", (224, 224, 12)),
    ]:  # fmt: skip
        assert shape(model, layer) == expected


def test_fcn32_has_the_parameters_and_shapes_of_the_paper():
    model = registry.build(ModelSettings(name="fcn32"), (96, 64), 21)

    upsampling = conv(64, 21, 21, bias=False)
    assert model.count_params() == VGG16_CONVOLUTIONS + CONV6_AND_7 + conv(1, 4096, 21) + upsampling
    assert shape(model, "scores_conv7") == (3, 2, 21)
    assert shape(model, "logits") == (96, 64, 21)
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]


def test_fcn16_adds_pool4_with_zero_weights_to_fcn32():
    model = registry.build(ModelSettings(name="fcn16"), (96, 64), 21)

    upsampling = conv(4, 21, 21, bias=False) + conv(32, 21, 21, bias=False)
    scores = conv(1, 4096, 21) + conv(1, 512, 21)
    assert model.count_params() == VGG16_CONVOLUTIONS + CONV6_AND_7 + scores + upsampling
    assert shape(model, "up_conv7") == shape(model, "scores_pool4") == (6, 4, 21)
    assert shape(model, "logits") == (96, 64, 21)
    assert not model.get_layer("scores_pool4").get_weights()[0].any()


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_interpolating_fcn8_has_no_upsampling_weights(fcn8, method):
    n = 12

    model = registry.build(ModelSettings(name="fcn8", upsampling=method), (64, 64), n)

    assert model.count_params() == VGG16_CONVOLUTIONS + conv(1, 512, n) * 2 + conv(1, 256, n)
    for name, side in (("up_pool5", 4), ("up_pool4", 8), ("up_pool3", 64)):
        assert shape(model, name) == (side, side, n)
        assert model.get_layer(name).interpolation == method


def test_fcn8_with_bilinear_upsampling_has_no_block_artefacts():
    model = registry.build(ModelSettings(name="fcn8", upsampling="bilinear"), (64, 64), 3)

    logits = model(np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)).numpy()

    steps = np.abs(np.diff(logits[0, 32], axis=0)).max(axis=-1)
    assert (steps[8:-8] > 0).all()


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_interpolating_unet_has_the_shapes_of_the_paper(unet, method):
    model = registry.build(ModelSettings(name="unet", base_filters=4, upsampling=method), (32, 32), 3)

    assert shape(model, "decoder4_up") == (4, 4, 64)
    assert shape(model, "decoder1_relu2") == (32, 32, 4)
    assert shape(model, "logits") == (32, 32, 3)


@pytest.mark.parametrize("method", ["transposed", "bilinear"])
@pytest.mark.parametrize("name", ["fcn8", "unet"])
def test_network_for_any_size_agrees_with_one_for_a_fixed_size(name, method):
    settings = ModelSettings(name=name, upsampling=method, **NARROW.get(name, {}))
    anything = registry.build(settings, None, 5)
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 64, 3)).astype(np.float32)

    fixed = registry.build(settings, (32, 64), 5)
    fixed.set_weights(anything.get_weights())

    np.testing.assert_allclose(anything(image), fixed(image), atol=1e-4)
    assert anything(np.zeros((2, 96, 32, 3), np.float32)).shape == (2, 96, 32, 5)


def test_only_frozen_blocks_keep_their_weights():
    settings = ModelSettings(name="fcn8")
    model = registry.build(settings, None, 3)

    registry.freeze(model, ModelSettings(name="fcn8", encoder_weights="edges"), 2)

    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert frozen == ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]


@pytest.mark.parametrize(
    ("network", "training", "message"),
    [
        (
            {"name": "unet"},
            {"frozen_blocks": 1},
            r"training\.frozen_blocks: found 1 with model.encoder_weights=none",
        ),
        (
            {"name": "unet"},
            {"encoder_lr_multiplier": 0.1},
            r"training\.encoder_lr_multiplier: found 0\.1, but unet has no separate encoder",
        ),
        (
            {"name": "pspnet", "encoder_weights": "edges"},
            {},
            r"model\.encoder_weights: found edges, which are weights of vgg16, but the encoder is resnet50",
        ),
    ],
)
def test_training_settings_that_do_not_fit_the_encoder_are_rejected(network, training, message):
    with pytest.raises(UsageError, match=message):
        registry.check(ModelSettings(**network), (96, 96), TrainingSettings(**training))


@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32)])
@pytest.mark.parametrize("name", ["fcn8", "unet"])
def test_logits_have_the_size_of_the_image(name, height, width):
    model = registry.build(ModelSettings(name=name, **NARROW.get(name, {})), (height, width), 7)

    logits = model(np.zeros((2, height, width, 3), np.uint8))

    assert logits.shape == (2, height, width, 7)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "fcn8",
            (360, 480),
            "size: found 360x480, but fcn8 needs a height that is a multiple of 32, not 360; use 352 or 384",
        ),
        ("unet", (128, 100), "needs a width that is a multiple of 16, not 100; use 96 or 112"),
        ("fcn8", (64, 20), "not 20; use 32"),
    ],
)
def test_wrong_size_is_rejected_with_the_nearest_sizes(name, size, message):
    with pytest.raises(UsageError, match=message):
        registry.build(ModelSettings(name=name), size, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "fcn8", "dropout": 0.5}, "model.dropout: found 0.5, but fcn8 does not support it; leave it at null"),
        ({"name": "fcn16", "head_filters": 8}, "model.head_filters: found 8, but fcn16 does not .* leave it at 0"),
        (
            {"name": "fcn16", "encoder": "resnet50", "dropout": 0.3},
            "model.dropout: found 0.3, but fcn16 on resnet50 does not support it; leave it at null",
        ),
        ({"name": "pspnet", "normalization": True}, "model.normalization: found True, but pspnet .* leave it at false"),
        ({"name": "segnet", "base_filters": 8}, "model.base_filters: found 8, but segnet does not support .* at 64"),
        (
            {"name": "unet", "encoder": "vgg16", "head_filters": 8},
            "model.head_filters: found 8, but unet on vgg16 does not support it",
        ),
    ],
)
def test_unsupported_option_is_rejected(settings, message):
    with pytest.raises(UsageError, match=message):
        registry.build(ModelSettings(**settings), None, 3)


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, models in PRESETS.items() for model in models])
def test_every_preset_fits_its_network(name, model):
    config = load_config([("preset", preset(name, model))])

    registry.check(config.model, config.size, config.training)


@pytest.mark.parametrize("model", PRESETS["source"])
def test_the_preset_source_adds_nothing_to_a_source_s_network(model):
    config = load_config([("preset", preset("source", model))])

    bare = ModelSettings(name=model, encoder_weights=config.model.encoder_weights)
    assert config.model == bare
    training = config.training
    losses = (
        training.cross_entropy,
        training.focal_weight,
        training.dice_weight,
        training.lovasz_weight,
        training.deep_supervision,
    )
    assert losses == (1, 0, 0, 0, 0)
    assert (training.class_balance, training.augment, training.ema, config.normalize_exposure) == (0, False, 0, False)


# FCN-8's number is what Keras prints in the source; UNet's is the sum over the layers that its source lists.
@pytest.mark.parametrize(
    ("name", "model", "classes", "parameters"),
    [("source", "fcn8_conv7", 12, 135_066_008), ("source", "unet", 3, 34_513_475), ("pets", "unet", 3, 34_513_475)],
)
def test_a_preset_of_a_source_has_the_parameters_of_the_source(name, model, classes, parameters):
    config = load_config([("preset", preset(name, model))])

    network = registry.build(config.model, config.size, classes, pretrained=False)

    assert network.count_params() == parameters


def test_a_crop_without_augmentation_names_the_setting_to_change():
    layers = [("preset", preset("smoke", "unet")), ("--set", {"training": {"crop_size": [64, 64]}})]

    with pytest.raises(UsageError, match=r"crop_size is \(64, 64\), expected null .* set training\.augment=true"):
        load_config(layers)


def test_unet_rejects_pretrained_weights():
    with pytest.raises(UsageError, match=r"model.encoder_weights: found 'edges', but unet"):
        registry.build(ModelSettings(name="unet", encoder_weights="edges"), (128, 128), 3)


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"name": name, "upsampling": upsampling}
            for name in ("fcn8", "fcn16", "fcn32", "fcn8_conv7", "unet", "pspnet")
            for upsampling in ("transposed", "bilinear")
        ),
        {"name": "unet", "encoder": "vgg16"},
        {"name": "segnet"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_class_scores_are_computed_in_float32(settings, monkeypatch):
    monkeypatch.setattr("trainer.models.fcn_encoder.CONV7_FILTERS", 8)
    settings = ModelSettings(**settings, **NARROW.get(settings["name"], {}))

    with precision.policy("mixed_bfloat16"):
        model = registry.build(settings, (32, 64), 5)
        model = deep_supervision.attach(model, registry.deep_layers(settings), 5)

        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    scores = [layer for layer in model.layers if keras.tree.flatten(layer.output)[0].shape[-1] == 5]
    assert {layer.compute_dtype for layer in scores} == {"float32"}
    others = [layer for layer in model.layers if layer not in scores and isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in others} == {"bfloat16"}


def test_preprocessing_is_float32_in_mixed_precision():
    with precision.policy("mixed_bfloat16"):
        model = registry.build(ModelSettings(name="unet", base_filters=4), (16, 16), 3)
    prepared = keras.Model(model.input, model.get_layer("minus_one_to_one").output)
    image = np.full((1, 16, 16, 3), 201, np.uint8)

    np.testing.assert_allclose(prepared(image), 201 / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(prepared(image.astype(np.float32)), 201 / 127.5 - 1, atol=1e-6)


def test_preprocessing_is_that_of_keras_applications():
    settings = ModelSettings(name="fcn8", encoder_weights="edges")
    model = registry.build(settings, (32, 32), 3, pretrained=False)
    prepared = keras.Model(model.input, model.get_layer("bgr_minus_imagenet_mean").output)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)

    expected = keras.applications.vgg16.preprocess_input(image.copy())

    np.testing.assert_allclose(prepared(image), expected, atol=1e-4)
