"""Writes the SavedModel that TensorFlow Serving loads: Transform's graph, the network, the signatures.

The class map, the input size and the model's name travel inside it, so a client needs nothing else.
"""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import tensorflow as tf

from components.artifact_files import MODEL_METADATA
from components.class_map import ClassMap
from serving.signatures import ServingModule


def export(
    model: keras.Model,
    transform_dir: str,
    directory: str,
    class_map: ClassMap,
    input_size: tuple[int, int],
    metadata: dict[str, Any],
    test_time_flip: bool = False,
) -> None:
    """Exports a trained network as a SavedModel.

    Args:
        model: maps RGB images, 0 to 255, [B, H, W, 3], to logits, float32 [B, H, W, num_classes].
        transform_dir: Transform's output, whose graph decodes and resizes images.
        directory: where the SavedModel is written.
        class_map: the classes of the logits.
        input_size: height and width of the network's input, in pixels.
        metadata: what else to say about the model, plain JSON types; "model" names the architecture.
        test_time_flip: whether scores are averaged over an image and its mirror image.
    """
    module = ServingModule(model, transform_dir, class_map, input_size, test_time_flip)
    tf.saved_model.save(module, directory, signatures=module.signatures())
    path = os.path.join(directory, MODEL_METADATA)
    tf.io.gfile.makedirs(os.path.dirname(path))
    content = {**metadata, "class_map": class_map.to_dict(), "input_size": list(input_size)}
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(content, indent=2, sort_keys=True))
