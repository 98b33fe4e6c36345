"""With the folder of a preset, the encoders give the same activations as in keras-hub."""

import json
import pathlib
import re
import zlib

import h5py
import keras
import numpy as np
import pytest

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import encoder_weights, encoders, keras_hub_weights, registry

# Of the deepest features for `IMAGE`: three channels of the first position, and the last three of the last position.
# From the networks of keras-hub 0.32.0 in Keras 3.15.1, with arrays from `draw` in files that keras-hub had saved.
# keras-hub was installed without its dependencies, because `src.models.*_backbone` needs none. ResNet50 and
# EfficientNet-Lite0 have the configurations in `src.utils.timm`. MiT's GELU was made exact, as in the network whose
# weights were converted; keras-hub approximates it.
ACTIVATIONS = {
    ("vgg16", "VGGBackbone"): [0.14071, 4.183, 2.4567, 0.0, 3.5838, 0.54177],
    ("resnet50", "ResNetBackbone"): [0.0, 0.0, 0.0, 0.0, 2156.7, 5797.8],
    ("efficientnet_lite0", "EfficientNetBackbone"): [2.1634, 2.8666, -0.82896, 2.4588, -0.23969, 3.6998],
    ("mit_b0", "MiTBackbone"): [-1.3489, -0.62541, -0.18908, 0.48083, -1.2853, 2.5027],
    ("mit_b0", "SegFormerBackbone"): [0.67201, 0.71143, 0.18022, -0.0028401, -0.50304, -0.49891],
}
IMAGE = np.random.default_rng(0).normal(size=(1, 96, 96, 3)).astype(np.float32)


def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array that depends on its path, so that swapped arrays would change the activations."""
    random = np.random.default_rng(zlib.crc32(path.encode()))
    if len(shape) > 1:
        inputs = np.prod(shape[:2]) if "depthwise" in path or "dwconv" in path else np.prod(shape[:-1])
        array = random.normal(size=shape) * np.sqrt(2 / inputs)
    elif path.endswith("vars/3") or ("norm" in path and path.endswith("vars/0")):
        array = random.uniform(0.5, 1.5, shape)
    else:
        array = random.normal(size=shape) * 0.1
    return array.astype(np.float32)


def shapes(encoder: str, path: str, layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    """Returns the shapes of a layer's arrays in keras-hub."""
    first, *others = (array.shape for array in layer.get_weights())
    if encoder == "resnet50" and len(first) == 4:
        return [first]
    if re.search(r"/(q|k|v|attn/proj|fc1|fc2)$", path):
        return [first[2:], first[3:]]
    return [first, *others]


def preset(folder: str, encoder: str, backbone: str, **changes) -> None:
    """Writes a preset, with changes in its configuration."""
    about = keras_hub_weights.BACKBONES[encoder][backbone]
    network = encoders.ENCODERS[encoder].application(include_top=False, weights=None, input_shape=(64, 64, 3))
    with h5py.File(f"{folder}/model.weights.h5", "w") as file:
        for layer, path in about.paths.items():
            for index, shape in enumerate(shapes(encoder, path, network.get_layer(layer))):
                file[f"{path}/vars/{index}"] = draw(f"{path}/vars/{index}", shape)
    config = {**about.config, **changes}
    if backbone == "SegFormerBackbone":
        config = {"image_encoder": {"config": config}}
    with open(f"{folder}/config.json", "w") as file:
        json.dump({"class_name": backbone, "config": config}, file)


def features(encoder: str, folder: str) -> keras.Model:
    """Returns an encoder with the weights of a folder, from preprocessed pixels to its deepest features."""
    chosen = encoders.chosen(ModelSettings(encoder=encoder, encoder_weights=folder))
    pixels = keras.Input((None, None, 3))
    (deepest,) = encoders.extract(chosen, pixels, [chosen.features[-1]])
    model = keras.Model(pixels, deepest)
    encoder_weights.load(model, folder, encoder)
    return model


@pytest.mark.parametrize(("encoder", "backbone"), ACTIVATIONS)
def test_a_preset_gives_the_activations_that_it_gives_in_keras_hub(tmp_path, encoder, backbone):
    preset(str(tmp_path), encoder, backbone)

    found = np.asarray(features(encoder, str(tmp_path))(IMAGE))

    assert found.shape[:3] == (1, 3, 3)
    expected = ACTIVATIONS[encoder, backbone]
    corners = np.concatenate([found[0, 0, 0, :3], found[0, -1, -1, -3:]])
    np.testing.assert_allclose(corners, expected, atol=2e-4 * np.abs(expected).max())


def test_every_backbone_has_a_case():
    backbones = keras_hub_weights.BACKBONES
    assert set(ACTIVATIONS) == {(encoder, backbone) for encoder, known in backbones.items() for backbone in known}


def test_a_preset_gets_pytorchs_pixels(tmp_path):
    preset(str(tmp_path), "vgg16", "VGGBackbone")
    settings = ModelSettings(name="fcn8", encoder_weights=str(tmp_path))

    model = registry.build(settings, None, 3)

    path = "layers/conv2d_12/vars/0"
    np.testing.assert_array_equal(model.get_layer("block5_conv3").get_weights()[0], draw(path, (3, 3, 512, 512)))
    assert registry.pixels(settings) == "imagenet_mean_and_deviation"


def test_efficientnet_lite_of_a_preset_can_be_dilated(tmp_path):
    preset(str(tmp_path), "efficientnet_lite0", "EfficientNetBackbone")
    settings = ModelSettings(name="deeplabv3plus", encoder="efficientnet_lite0", encoder_weights=str(tmp_path))

    model = registry.build(settings, None, 3)

    # At the stride 16 that remains, the padding stays PyTorch's.
    assert model.get_layer("block3_depthwise_pad").padding == ((2, 1), (2, 1))
    assert np.asarray(model(np.zeros((1, 64, 64, 3), np.float32))).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("encoder", "backbone", "changes", "message"),
    [
        ("resnet50", "ResNetBackbone", {"use_pre_activation": True}, "use_pre_activation True, expected False"),
        ("mit_b0", "MiTBackbone", {"hidden_dims": [64]}, r"hidden_dims \[64\], expected \[32, 64, 160, 256\]"),
    ],
)
def test_a_preset_of_another_variant_is_rejected(tmp_path, encoder, backbone, changes, message):
    preset(str(tmp_path), encoder, backbone, **changes)

    with pytest.raises(UsageError, match=message):
        features(encoder, str(tmp_path))


@pytest.mark.parametrize("encoder", sorted(encoders.ENCODERS))
def test_a_preset_of_another_network_is_rejected_with_the_formats_that_work(tmp_path, encoder):
    (tmp_path / "model.weights.h5").touch()
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "ViTBackbone", "config": {}}))

    with pytest.raises(UsageError) as error:
        keras_hub_weights.read(str(tmp_path), encoder, None, encoder_weights.expected(encoder))

    message = str(error.value)
    assert f"holds ViTBackbone, for the encoder {encoder}; weights of {encoder} can be" in message
    assert all(source in message for sources in encoder_weights.formats(encoder).values() for source in sources)


def test_a_file_without_the_layers_of_the_preset_is_named(tmp_path):
    preset(str(tmp_path), "resnet50", "ResNetBackbone")
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        del file["layers/conv2d_7"]

    with pytest.raises(UsageError, match=r"not the weights of keras-hub's ResNetBackbone .*conv2d_7"):
        features("resnet50", str(tmp_path))


@pytest.mark.parametrize("encoder", sorted(encoders.ENCODERS))
def test_the_documentation_names_the_formats_of_each_encoder(encoder):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
    heading, rows = re.search(r"\n(\| `model.encoder` \| .weights.h5, .*)\n.*\n((?:\|.*\n)+)", text).groups()
    cells = {row[0].strip("`"): row[1:] for row in map(_cells, rows.splitlines())}

    assert _cells(heading)[1:] == list(encoder_weights.formats(encoder))
    assert cells[encoder] == [", ".join(sources) for sources in encoder_weights.formats(encoder).values()]
    assert set(cells) == set(encoders.ENCODERS)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]
