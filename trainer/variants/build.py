"""Builds variants of an exported model, measures each on the evaluation split, and writes the one to push.

The Evaluator and the gate then judge this variant, so they judge the model that is served.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.utils import io_utils

from components import files
from components.artifact_files import MODEL_METADATA, read_model_metadata, weights_beside, write_model_metadata
from components.class_map import ClassMap
from serving.comparison import Measurement, measure
from serving.export import export
from serving.folding import FrozenNetwork, fold
from serving.litert import LITERT_FILE, LiteRTNetwork, quantize
from serving.settings import ExportSettings
from serving.signatures import ServingModule
from serving.test_time import NO_AUGMENTATION, TestTimeAugmentation
from serving.tiling import Tiling

PLAIN = "plain"
BFLOAT16 = "bfloat16"
INT8 = "int8"

PROGRESS = logging.getLogger("segpipe.progress")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model and the data for its variants.

    Attributes:
        model: directory of the Trainer's SavedModel.
        network: the network in it.
        transform: Transform's output.
        calibration: returns encoded training images.
        pairs: returns the evaluation split's encoded images and mask PNGs.
    """

    model: str
    network: keras.Model
    transform: str
    calibration: Callable[[], Iterable[bytes]]
    pairs: Callable[[], Iterable[tuple[bytes, bytes]]]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the SavedModel."""
        return read_model_metadata(self.model)


def optimize(trained: Trained, settings: ExportSettings, directory: str) -> list[Measurement]:
    """Writes the first variant whose loss of mean IoU is small enough, or the exported model if all lose too much.

    The int8 variant is a LiteRT file, not a SavedModel. If it loses little enough, it is added as `model.tflite`.

    Args:
        trained: the model and the data.
        settings: `variants`, and `max_mean_drop`, the largest loss of mean IoU.
        directory: where to write the SavedModel, local or on an object store.

    Returns:
        A measurement of the exported model and of each variant, also written to the metadata.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _measure(PLAIN, trained, _load(trained.model), _size(trained.model))
        rows = [plain]
        for name in settings.variants:
            PROGRESS.info("building the variant %s", name, extra={"progress": {"component": "Optimizer"}})
            path = os.path.join(folder, name)
            if name == INT8:
                loaded = _build_int8(trained, settings, path)
            else:
                loaded = _build_saved_model(trained, BFLOAT16 if name == BFLOAT16 else settings.precision, path)
            rows.append(_measure(name, trained, loaded, _size(path)))
        passing = [row.name for row in rows if plain.mean_iou - row.mean_iou <= settings.max_mean_drop]
        chosen = next((name for name in settings.variants if name in passing and name != INT8), PLAIN)
        rows = [dataclasses.replace(row, verdict=_verdict(row, plain, chosen, passing, settings)) for row in rows]
        io_utils.copy_dir(trained.model if chosen == PLAIN else os.path.join(folder, chosen), directory)
        if INT8 in passing:
            io_utils.copy_file(os.path.join(folder, INT8, LITERT_FILE), files.join(directory, LITERT_FILE))
    weights = weights_beside(trained.model)
    if tf.io.gfile.exists(weights):
        # A warm start may use the pushed model.
        io_utils.copy_file(weights, weights_beside(directory))
    variants = [row.to_dict() for row in rows]
    write_model_metadata(directory, {**read_model_metadata(directory), "variant": chosen, "variants": variants})
    return rows


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A model's signatures, and the model itself, which must live as long as they do."""

    model: Any
    signatures: dict[str, Any]


def _load(directory: str) -> _Loaded:
    model = tf.saved_model.load(directory)
    return _Loaded(model, model.signatures)


def _build_saved_model(trained: Trained, precision: str, directory: str) -> _Loaded:
    """Exports a folded network and loads it."""
    metadata = {**trained.metadata, "export_precision": precision}
    test_time = TestTimeAugmentation.of(metadata)
    # Other test-time scales need a graph for any height and width.
    size = metadata["input_size"] if test_time.scales == NO_AUGMENTATION.scales else (None, None)
    network = FrozenNetwork(fold(trained.network, precision), size)
    export(
        network,
        trained.transform,
        directory,
        ClassMap.from_dict(metadata["class_map"]),
        metadata["input_size"],
        metadata,
        test_time,
        metadata["max_pixels"],
        Tiling.of(metadata),
    )
    return _load(directory)


def _build_int8(trained: Trained, settings: ExportSettings, directory: str) -> _Loaded:
    """Writes a LiteRT model, and runs it in this process with the signatures of the other variants."""
    metadata = trained.metadata
    plain = _load(trained.model)

    def pixels() -> Iterator[np.ndarray]:
        for image in itertools.islice(trained.calibration(), settings.calibration_images):
            yield plain.signatures["preprocess"](image=tf.constant([image]))["pixels"].numpy()[0].astype(np.float32)

    content = quantize(fold(trained.network, "float32"), metadata["input_size"], pixels)
    os.makedirs(directory)
    files.write_bytes(os.path.join(directory, LITERT_FILE), content)
    # A LiteRT model takes one size.
    one_size = dataclasses.replace(TestTimeAugmentation.of(metadata), scales=NO_AUGMENTATION.scales).to_dict()
    path = files.join(trained.model, MODEL_METADATA)
    module = ServingModule(LiteRTNetwork(content), trained.transform, path, {**metadata, **one_size})
    return _Loaded(module, module.signatures())


def _measure(name: str, trained: Trained, loaded: _Loaded, size: int) -> Measurement:
    class_map = ClassMap.from_dict(trained.metadata["class_map"])
    serve, evaluate = loaded.signatures["serving_default"], loaded.signatures["evaluation"]
    return measure(name, serve, evaluate, trained.pairs(), class_map, size)


def _verdict(
    row: Measurement, plain: Measurement, chosen: str, passing: Collection[str], settings: ExportSettings
) -> str:
    if row.name not in passing:
        lost = plain.mean_iou - row.mean_iou
        return f"refused: it loses {lost:.4f} mean IoU, expected at most {settings.max_mean_drop:.4f}"
    if row.name == chosen:
        return "chosen"
    return f"chosen, as {LITERT_FILE} beside" if row.name == INT8 else "not chosen"


def _size(directory: str) -> int:
    """Returns the total size in bytes of all files below a folder."""
    return sum(
        tf.io.gfile.stat(files.join(folder, name)).length
        for folder, _, names in tf.io.gfile.walk(directory)
        for name in names
    )
