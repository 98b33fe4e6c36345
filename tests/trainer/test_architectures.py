"""Every architecture of semantic segmentation with every encoder that it supports."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from trainer import deep_supervision, precision
from trainer.config import ModelSettings
from trainer.models import pspnet, registry
from trainer.models.unpooling import MaxPoolingWithIndices, MaxUnpooling

CHOICES = [
    (name, encoder)
    for name, architecture in registry.ARCHITECTURES.items()
    for encoder in ("default", *architecture.encoder_choices)
    # Skips the default under its own name, and Mask R-CNN, which has a fixed size.
    if encoder != architecture.encoder and name != "mask_rcnn"
]


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(("name", "encoder"), CHOICES)
def test_one_network_trains_and_predicts_at_several_sizes(name, encoder):
    settings = ModelSettings(name=name, encoder=encoder, **({"base_filters": 4} if name == "unet" else {}))
    keras.utils.set_random_seed(0)
    with precision.policy("mixed_bfloat16"):
        model = registry.build(settings, None, 5)
    predict = tf.function(lambda x: model(x, training=False), [tf.TensorSpec([None, None, None, 3])])

    with tf.GradientTape() as tape:
        logits = model(image(32, 64), training=True)
        loss = tf.reduce_mean(tf.square(logits - 1))
    gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    assert logits.shape == (2, 32, 64, 5)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.any(keras.ops.convert_to_numpy(gradient)), f"{variable.path} learns nothing"
    smaller = predict(image(64, 32)[:1])
    assert smaller.shape == (1, 64, 32, 5)
    assert smaller.dtype == tf.float32
    names = {layer.name for layer in model.layers}
    assert names.issuperset(registry.deep_layers(settings))
    assert names.issuperset(sum(registry.encoder_blocks(settings), ()))
    assert registry.pixels(settings) in names


SMALL_UNET = {"name": "unet", "base_filters": 4, "dropout": 0}
QUICK_TO_COMPILE = {
    "fcn8-bilinear": {"name": "fcn8", "upsampling": "bilinear", "head_filters": 8, "normalization": True},
    "unet-bilinear": {**SMALL_UNET, "upsampling": "bilinear", "normalization": True},
}
# What `training.xla` "auto" compiles, and PSPNet, whose pyramid once crashed XLA. tests/gpu compiles all networks.
SLOW_TO_COMPILE = {
    "fcn8": {"name": "fcn8"},
    "fcn8-nearest": {"name": "fcn8", "upsampling": "nearest", "head_filters": 8},
    "fcn16": {"name": "fcn16", "dropout": 0},
    "fcn32-bilinear": {"name": "fcn32", "upsampling": "bilinear", "dropout": 0},
    "fcn8_conv7": {"name": "fcn8_conv7"},
    "unet": SMALL_UNET,
    "unet-vgg16": {**SMALL_UNET, "encoder": "vgg16"},
    "pspnet-vgg16": {"name": "pspnet", "encoder": "vgg16", "dropout": 0},
}


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        *(
            pytest.param(options, policy, id=f"{name}-{policy}")
            for name, options in QUICK_TO_COMPILE.items()
            for policy in ("mixed_bfloat16", "mixed_float16")
        ),
        # Only bfloat16, whose steps once failed to compile, because each case takes a minute or two.
        *(
            pytest.param(options, "mixed_bfloat16", id=name, marks=pytest.mark.slow)
            for name, options in SLOW_TO_COMPILE.items()
        ),
    ],
)
def test_xla_compiles_a_training_step_in_half_precision(options, policy, monkeypatch):
    monkeypatch.setattr("trainer.models.fcn_encoder.CONV7_FILTERS", 8)
    settings = ModelSettings(**options)
    images = image(32, 64)

    def build(policy: str) -> keras.Model:
        with precision.policy(policy):
            network = registry.build(settings, (32, 64), 5)
            return deep_supervision.attach(network, registry.deep_layers(settings), 5)

    def loss_and_norm(model: keras.Model) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.square(logits - 1)) for logits in model(images, training=True)])
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        return loss, tf.linalg.global_norm(gradients)

    keras.utils.set_random_seed(0)
    reference, model = build("float32"), build(policy)
    model.set_weights(reference.get_weights())

    loss, norm = tf.function(lambda: loss_and_norm(model), jit_compile=True)()

    expected_loss, expected_norm = loss_and_norm(reference)
    # Corrupt gradients are wrong by many orders of magnitude; rounding in a deep network by less than one.
    assert float(loss) == pytest.approx(float(expected_loss), rel=0.3)
    assert expected_norm / 10 < norm < 10 * expected_norm


def test_deep_layers_are_spatial_features_before_the_last():
    settings = ModelSettings(name="unet", base_filters=4)
    model = registry.build(settings, (64, 64), 5)

    shapes = [model.get_layer(name).output.shape[1:] for name in registry.deep_layers(settings)]

    assert shapes == [(8, 8, 32), (16, 16, 16), (32, 32, 8)]


def test_own_encoder_of_unet_has_no_blocks_to_freeze():
    assert registry.encoder_blocks(ModelSettings(name="unet")) == ()
    assert len(registry.encoder_blocks(ModelSettings(name="unet", encoder="vgg16"))) == 5


def test_frozen_blocks_keep_their_statistics():
    settings = ModelSettings(name="unet", encoder="mobilenet_v2", encoder_weights="imagenet", base_filters=4)
    model = registry.build(settings.model_copy(update={"encoder_weights": "none"}), None, 3)

    registry.freeze(model, settings, 1)
    before = model.get_layer("bn_Conv1").get_weights()
    model(image(32, 32), training=True)

    frozen = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    assert frozen == set(registry.encoder_blocks(settings)[0])
    for old, new in zip(before, model.get_layer("bn_Conv1").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("name", "encoder"), [("fcn8_conv7", "resnet50"), ("segnet", "mobilenet_v2")])
def test_unsupported_encoder_is_rejected(name, encoder):
    message = f"model.encoder: found {encoder}, which {name} does not support; use default or vgg16"

    with pytest.raises(UsageError, match=message):
        registry.build(ModelSettings(name=name, encoder=encoder), None, 3)


def test_fcn16_has_conv6_only_with_vgg16():
    model = registry.build(ModelSettings(name="fcn16", encoder="mobilenet_v2"), (64, 64), 3)

    assert "conv6" not in {layer.name for layer in model.layers}
    assert model.get_layer("scores_conv7").input.shape[1:] == (2, 2, 320)


@pytest.mark.parametrize("part", ["unpooling", "pyramid"])
def test_layers_for_any_size_can_be_exported(part, tmp_path):
    x = keras.Input((None, None, 8), name="features")
    y = MaxUnpooling()(MaxPoolingWithIndices()(x)) if part == "unpooling" else pspnet.pyramid(x)
    model = keras.Model(x, y)
    module = tf.Module()
    module.model = model
    predict = tf.function(lambda f: model(f, training=False), [tf.TensorSpec([None, None, None, 8])])

    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": predict.get_concrete_function()})

    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for height, width in ((8, 12), (6, 4)):
        features = np.random.default_rng(1).normal(size=(2, height, width, 8)).astype(np.float32)
        (found,) = served(tf.constant(features)).values()
        np.testing.assert_allclose(found, model(features), atol=1e-5)
