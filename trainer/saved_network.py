"""The trained network as a Keras file beside the training's history: what optimised variants are made of."""

from __future__ import annotations

import os
import tempfile

import keras
import tensorflow as tf

from components import files

# Keras finds the layers of its files among the classes that were imported.
from trainer.models import registry  # noqa: F401

_FILE = "network.keras"


def save(network: keras.Model, directory: str) -> None:
    """Writes a network into a training's directory, local or on an object store."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, _FILE)
        network.save(path)
        tf.io.gfile.copy(path, files.join(directory, _FILE), overwrite=True)


def load(directory: str) -> keras.Model:
    """Reads the network from a training's directory."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, _FILE)
        tf.io.gfile.copy(files.join(directory, _FILE), path)
        return keras.saving.load_model(path, compile=False)
