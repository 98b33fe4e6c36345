import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ModelSettings
from trainer.models import convnext, dilation, encoder_weights, encoders

# From Keras' documentation of the application, without the classifier.
PARAMETERS = 27_820_128


@pytest.fixture(scope="module")
def application() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(64, 96, 3))
    for layer in model.layers:
        if layer.name.endswith("layer_scale"):
            layer.gamma.assign(np.random.default_rng(0).uniform(0.5, 1, layer.gamma.shape))
    return model


@pytest.mark.parametrize("file_name", ["convnext.weights.h5", "convnext.keras"])
def test_a_file_of_keras_gives_the_activations_of_keras_network(application, tmp_path, file_name):
    path = str(tmp_path / file_name)
    (application.save_weights if file_name.endswith(".h5") else application.save)(path)
    settings = ModelSettings(name="unet", encoder="convnext_tiny", encoder_weights=path)
    image = keras.Input((64, 96, 3))
    encoder = encoders.chosen(settings)
    (features,) = encoders.extract(encoder, encoders.pixels(settings)(image), [encoder.deepest])
    model = keras.Model(image, features)
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)

    encoder_weights.load(model, path, "convnext_tiny")

    assert model.count_params() == application.count_params() == PARAMETERS
    np.testing.assert_allclose(model(pixels), application(pixels), atol=1e-3)


def test_only_removed_strides_are_padded():
    settings = ModelSettings(name="deeplabv3plus", encoder="convnext_tiny")
    encoder = encoders.ENCODERS["convnext_tiny"]
    image, features = dilation.extract(settings, encoder, (64, 96), [encoder.deepest], 16)
    model = keras.Model(image, features)

    paddings = {stage: model.get_layer(f"stage{stage}_pad").padding for stage in (2, 3, 4)}
    assert paddings == {2: ((0, 0), (0, 0)), 3: ((0, 0), (0, 0)), 4: ((0, 1), (0, 1))}
    assert model.get_layer("stage4_block1_depthwise").dilation_rate == (2, 2)


@pytest.mark.parametrize("keras_own", [False, True])
def test_only_keras_network_needs_xla(application, keras_own):
    network = application if keras_own else convnext.ConvNeXtTiny(input_shape=(64, 96, 3))
    predict = tf.function(lambda x: network(x, training=False), [tf.TensorSpec([None, 64, 96, 3])])

    functions = predict.get_concrete_function().graph.as_graph_def().library.function

    assert any(function.attr["_XlaMustCompile"].b for function in functions) == keras_own


def test_the_classifier_is_rejected():
    with pytest.raises(ValueError, match="include_top is True, expected False"):
        convnext.ConvNeXtTiny(include_top=True)
