"""Saves a trained network's weights beside its export, and starts a later training from them.

They are not inside the SavedModel's folder, because serving does not need them. HDF5 locks its files, which not every
network volume supports, so it only opens local copies.
"""

from __future__ import annotations

import os
import tempfile

import keras
import tensorflow as tf

from components import artifact_files
from components.errors import SegpipeError


def save(model: keras.Model, serving_model_dir: str) -> None:
    """Writes a network's weights beside its export, local or on an object store."""
    path = artifact_files.weights_beside(serving_model_dir)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path))
        model.save_weights(local)
        tf.io.gfile.copy(local, path, overwrite=True)


def load(model: keras.Model, base_model: str) -> None:
    """Loads the weights of an earlier training into a network.

    Args:
        model: a network of the same architecture and classes.
        base_model: the folder of the earlier training's export.

    Raises:
        SegpipeError: no weights were found, or they belong to another network.
    """
    path = artifact_files.weights_beside(base_model)
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path))
        try:
            tf.io.gfile.copy(path, local)
            model.load_weights(local)
        except (tf.errors.OpError, ValueError, OSError) as error:
            raise SegpipeError(
                f"training.warm_start: {path} does not hold the weights of this network ({error}); "
                "train once without it, with --set training.warm_start=false"
            ) from error
