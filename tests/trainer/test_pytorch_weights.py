"""With weights of PyTorch libraries, the encoders give the same activations as in PyTorch."""

import re
import zlib

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import encoder_weights, encoders, pytorch_weights, registry

# First three channels of the first position and last three of the last position of the deepest features, from the
# libraries' networks in PyTorch 2.15.0 (timm 1.0.31, torchvision 0.29.2, transformers 5.24.0). `draw` made every
# tensor, and the input is `IMAGE`. ConvNeXt's features are those after the normalisation of its classifier.
ACTIVATIONS = {
    ("vgg16", "timm or torchvision"): [1.187, 0.0, 0.0, 1.9956, 0.0, 1.2259],
    ("resnet50", "timm or torchvision"): [8569.9, 0.0, 4969.0, 3248.8, 14125.0, 4534.8],
    ("resnet50", "Hugging Face"): [1300.1, 11643.0, 3502.3, 0.0, 3154.8, 13044.0],
    ("mobilenet_v2", "timm"): [0.28079, 0.15961, -2.6198, 2.5891, 0.32958, -0.53431],
    ("mobilenet_v2", "torchvision"): [2.2934, -1.3842, -0.3507, 3.8746, 1.0792, -3.7949],
    ("convnext_tiny", "timm"): [0.53601, 0.0044303, -1.3965, 1.0858, 0.55708, 1.84],
    ("convnext_tiny", "Hugging Face"): [-0.15942, -0.84758, -0.81551, 0.01536, -0.10934, 1.6565],
    ("mit_b0", "Hugging Face"): [1.723, -0.559, -0.33147, 0.23319, -0.33528, -0.17513],
}
# The same for the logits of Hugging Face's SegFormer-B0 with 150 classes, at a quarter of the image's size.
SEGFORMER_LOGITS = [-0.28699, -3.0162, -2.5485, 0.87612, 3.091, -0.070231]
IMAGE = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor that depends on its name, so that swapped tensors would change the activations."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        array = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("gamma", "layer_scale_parameter")):
        array = random.uniform(0.5, 1.0, shape)
    elif len(shape) > 1:
        array = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(".weight"):
        array = random.uniform(0.5, 1.5, shape)
    else:
        array = random.normal(size=shape) * 0.1
    return array.astype(np.float32)


def tensors(prefix: str, layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Returns the tensors of a layer in PyTorch's layout."""
    if isinstance(layer, keras.layers.BatchNormalization | keras.layers.LayerNormalization):
        names = ["weight", "bias", "running_mean", "running_var"][: len(layer.get_weights())]
        return {f"{prefix}.{name}": draw(f"{prefix}.{name}", layer.get_weights()[0].shape) for name in names}
    first, *others = (array.shape for array in layer.get_weights())
    if len(first) == 1:
        return {prefix: draw(prefix, first)}
    height, width, inputs, outputs = first
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        inputs, outputs = outputs, inputs
    # The libraries have dense layers instead of these 1x1 convolutions.
    dense = re.search(r"(fc\d|pwconv\d|query|key|value|dense\d?|linear_c\.\d\.proj)$", prefix)
    shape = (outputs, inputs) if dense else (outputs, inputs, height, width)
    # Keras' ResNet50 has biases before its batch normalisation; PyTorch's does not.
    biased = others and not layer.name.startswith("conv")
    biases = {f"{prefix}.bias": draw(f"{prefix}.bias", array.shape) for array in layer.get_weights()[1:] if biased}
    return {f"{prefix}.weight": draw(f"{prefix}.weight", shape), **biases}


def features(encoder: str, path: str) -> keras.Model:
    """Returns an encoder with the weights of a file, from preprocessed pixels to its deepest features."""
    settings = ModelSettings(encoder=encoder, encoder_weights=path)
    pixels = keras.Input((None, None, 3))
    chosen = encoders.chosen(settings)
    (deepest,) = encoders.extract(chosen, pixels, [chosen.features[-1]])
    model = keras.Model(pixels, deepest)
    encoder_weights.load(model, path, encoder)
    return model


def checkpoint(encoder: str, library: str) -> dict[str, np.ndarray]:
    network = encoders.ENCODERS[encoder].application(include_top=False, weights=None, input_shape=(64, 96, 3))
    layers = sum(encoders.ENCODERS[encoder].blocks, ())
    pairs = zip(pytorch_weights.NAMINGS[encoder][library], layers, strict=True)
    return {name: array for prefix, layer in pairs for name, array in tensors(prefix, network.get_layer(layer)).items()}


def corners(output: np.ndarray) -> np.ndarray:
    return np.concatenate([output[0, 0, 0, :3], output[0, -1, -1, -3:]])


@pytest.mark.parametrize(("encoder", "library"), ACTIVATIONS)
def test_a_checkpoint_gives_the_activations_that_it_gives_in_pytorch(tmp_path, encoder, library):
    path = str(tmp_path / "model.safetensors")
    save_file(checkpoint(encoder, library), path)

    found = np.asarray(features(encoder, path)(IMAGE))

    assert found.shape[:3] == (1, 2, 3)
    expected = ACTIVATIONS[encoder, library]
    np.testing.assert_allclose(corners(found), expected, atol=2e-4 * np.abs(expected).max())


def test_every_encoder_of_the_libraries_has_a_case():
    assert set(ACTIVATIONS) == {
        (encoder, library) for encoder, namings in pytorch_weights.NAMINGS.items() for library in namings
    }


def test_segformer_gives_the_logits_of_hugging_face(tmp_path):
    path = str(tmp_path / "model.safetensors")
    save_file(checkpoint("mit_b0", "Hugging Face"), path)
    model = registry.build(ModelSettings(name="segformer", encoder_weights=path), None, 150)
    heads = {
        **{f"level{k}": f"decode_head.linear_c.{k - 1}.proj" for k in (1, 2, 3, 4)},
        "fuse_conv": "decode_head.linear_fuse",
        "fuse_normalize": "decode_head.batch_norm",
        "scores": "decode_head.classifier",
    }
    for name, prefix in heads.items():
        layer = model.get_layer(name)
        layer.set_weights(pytorch_weights.convert(tensors(prefix, layer), prefix, layer))
    prepared = model.get_layer("imagenet_mean_and_deviation").output

    found = np.asarray(keras.Model(prepared, model.get_layer("scores").output)(IMAGE))

    assert found.shape == (1, 16, 24, 150)
    np.testing.assert_allclose(corners(found), SEGFORMER_LOGITS, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_folder_of_hugging_face_is_read(tmp_path, dtype):
    arrays = checkpoint("mit_b0", "Hugging Face")
    save_file({name: array.astype(dtype) for name, array in arrays.items()}, tmp_path / "model.safetensors")

    model = features("mit_b0", str(tmp_path))

    expected = arrays["segformer.encoder.patch_embeddings.0.proj.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(model.get_layer("stage1_embed").get_weights()[0], expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no model.safetensors or model.weights.h5 in "),
        (
            ["model.weights.h5"],
            "no preset of keras-hub, for the encoder vgg16; weights of vgg16 can be a .weights.h5",
        ),
    ],
)
def test_other_folders_are_rejected(tmp_path, files, message):
    for name in files:
        (tmp_path / name).touch()

    with pytest.raises(UsageError, match=message):
        registry.build(ModelSettings(name="fcn8", encoder_weights=str(tmp_path)), None, 3)


@pytest.mark.parametrize(
    ("encoder", "arrays", "message"),
    [
        ("vgg16", {"conv1.weight": 0}, r"found conv1.weight, ..., expected weights of vgg16 with features.0.weight"),
        ("resnet50", {"conv1.weight": 0}, r"no bn1.weight, which timm or torchvision's resnet50 has"),
        ("efficientnet_lite0", {"a": 0}, r"efficientnet_lite0 with a Keras file"),
        (
            "mobilenet_v2",
            {"mobilenet_v2.conv_stem.first_conv.convolution.weight": 0},
            "found Hugging Face's MobileNetV2.* use one of these, imagenet, or the file that imagenet downloads",
        ),
    ],
)
def test_another_checkpoint_is_rejected(tmp_path, encoder, arrays, message):
    path = str(tmp_path / "model.safetensors")
    save_file({name: np.zeros((1, 1, 1, 1), np.float32) for name in arrays}, path)

    with pytest.raises(UsageError, match=message):
        features(encoder, path)


def test_mit_b0_has_no_download():
    with pytest.raises(UsageError, match="mit_b0 has no download; choose none or a file: .* a safetensors file"):
        registry.check_options(ModelSettings(name="segformer", encoder_weights="imagenet"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no tensors")

    with pytest.raises(UsageError, match=r"model\.safetensors: cannot be read .*download the file again"):
        features("vgg16", str(path))


def test_a_checkpoint_of_another_size_is_rejected(tmp_path):
    arrays = checkpoint("convnext_tiny", "timm")
    arrays["stem.0.weight"] = arrays["stem.0.weight"][:48]
    path = str(tmp_path / "model.safetensors")
    save_file(arrays, path)

    with pytest.raises(UsageError, match=r"stem_conv has shape \(4, 4, 3, 48\), a ConvNeXtTiny has \(4, 4, 3, 96\)"):
        features("convnext_tiny", path)
