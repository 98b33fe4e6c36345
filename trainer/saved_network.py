"""Saves the trained network as a Keras file beside the training's history; optimised variants are built from it."""

from __future__ import annotations

import os
import tempfile

import keras
import tensorflow as tf

from components import files

# Keras finds custom layers of its files only if their classes were imported.
from trainer.models import registry  # noqa: F401

_FILE = "network.keras"


def save(network: keras.Model, directory: str) -> None:
    """Writes a network into a training's directory, local or on an object store."""
    network.save(files.join(directory, _FILE))


def load(directory: str) -> keras.Model:
    """Reads the network from a training's directory."""
    # Keras reads remote files too, but leaves its temporary copy behind (saving_api.py, load_model, at 3.12).
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, _FILE)
        tf.io.gfile.copy(files.join(directory, _FILE), path)
        return keras.saving.load_model(path, compile=False)
