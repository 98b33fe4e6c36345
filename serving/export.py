"""Writes the SavedModel for TensorFlow Serving: Transform's graph, the network and the signatures.

It contains the class map, the input size and the model's name, so clients need nothing else.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from components.artifact_files import MODEL_METADATA
from components.class_map import ClassMap
from serving.instance_signatures import InstanceModule
from serving.settings import ExportSettings
from serving.signatures import ServingModule
from serving.test_time import NO_AUGMENTATION, TestTimeAugmentation
from serving.tiling import Tiling
from serving.warmup import write_warmup


def export(
    network: Any,
    transform_dir: str,
    directory: str,
    class_map: ClassMap,
    input_size: tuple[int, int],
    metadata: dict[str, Any],
    test_time: TestTimeAugmentation = NO_AUGMENTATION,
    max_pixels: int = ExportSettings().max_pixels,
    tiling: Tiling | None = None,
    things: Sequence[int] = (),
    depth_scale: float | None = None,
) -> None:
    """Exports a trained network as a SavedModel, with warm-up requests.

    Args:
        network: see `ServingModule` or, with `things`, `InstanceModule`.
        transform_dir: Transform's output, whose graph decodes and resizes images.
        directory: folder of the SavedModel.
        class_map: the classes of the logits.
        input_size: height and width of the network's input, in pixels.
        metadata: further metadata of the model, plain JSON types; "model" is the architecture.
        test_time: test-time augmentation.
        max_pixels: height times width of the largest image to decode.
        tiling: sliding windows over an image at its own size; None resizes the whole image to `input_size`.
        things: class indices of an instance segmentation model, without test-time augmentation and tiling.
        depth_scale: value of a depth map at a distance of 1 metre, for a network with depth.
    """
    content = {
        **metadata,
        "class_map": class_map.to_dict(),
        "input_size": list(input_size),
        "max_pixels": max_pixels,
        **test_time.to_dict(),
        "tiling": tiling and tiling.to_dict(),
        "task": "instance" if things else "semantic",
        "depth_scale": depth_scale,
        "things": [class_map.names[index] for index in things],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(MODEL_METADATA))
        with open(path, "w") as file:
            file.write(json.dumps(content, indent=2, sort_keys=True))
        kind = InstanceModule if things else ServingModule
        module = kind(network, transform_dir, path, content)
        # Copies the metadata file as an asset, which the signature `describe` reads.
        tf.saved_model.save(module, directory, signatures=module.signatures())
    write_warmup(directory, metadata["model"], input_size, module.signatures())
