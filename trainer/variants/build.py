"""Builds the variants of an exported model, measures each on the evaluation split, and writes the one to push.

What it writes is evaluated and gated like any other model afterwards, so what is judged is what is served.
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
    """What the variants are made of and compared on.

    Attributes:
        model: the SavedModel that the Trainer exported.
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
        """What the SavedModel says of itself."""
        return read_model_metadata(self.model)


def optimize(trained: Trained, settings: ExportSettings, directory: str) -> list[Measurement]:
    """Writes the first SavedModel variant that loses little enough, or else the exported model.

    The int8 variant is no SavedModel. Where it loses little enough, it is written beside, as `model.tflite`.

    Args:
        trained: the model and the data.
        settings: which variants, and how much mean IoU each may lose.
        directory: where the SavedModel is written, local or on an object store.

    Returns:
        A measurement of the exported model and of each variant; the model's metadata holds them too.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _measure(PLAIN, trained, _load(trained.model), _size(trained.model))
        rows = [plain]
        for name in settings.variants:
            PROGRESS.info("building the variant %s", name, extra={"progress": {"component": "Optimizer"}})
            path = os.path.join(folder, name)
            running = _BUILDERS[name](name, trained, settings, path)
            rows.append(_measure(name, trained, running, _size(path)))
        passing = [row.name for row in rows if plain.mean_iou - row.mean_iou <= settings.max_mean_drop]
        chosen = next((name for name in settings.variants if name in passing and name != INT8), PLAIN)
        rows = [dataclasses.replace(row, verdict=_verdict(row, plain, chosen, passing, settings)) for row in rows]
        io_utils.copy_dir(trained.model if chosen == PLAIN else os.path.join(folder, chosen), directory)
        if INT8 in passing:
            io_utils.copy_file(os.path.join(folder, INT8, LITERT_FILE), files.join(directory, LITERT_FILE))
    weights = weights_beside(trained.model)
    if tf.io.gfile.exists(weights):
        # A later training may start from what is passed on.
        io_utils.copy_file(weights, weights_beside(directory))
    variants = [row.to_dict() for row in rows]
    write_model_metadata(directory, {**read_model_metadata(directory), "variant": chosen, "variants": variants})
    return rows


@dataclasses.dataclass(frozen=True)
class _Running:
    """A model's signatures, and the model itself, without which they stop working."""

    model: Any
    signatures: dict[str, Any]


def _load(directory: str) -> _Running:
    model = tf.saved_model.load(directory)
    return _Running(model, model.signatures)


def _build_saved_model(name: str, trained: Trained, settings: ExportSettings, directory: str) -> _Running:
    """Exports a folded network, in bfloat16 or the export's own precision, and loads it."""
    precision = BFLOAT16 if name == BFLOAT16 else settings.precision
    metadata = {**trained.metadata, "export_precision": precision}
    test_time = TestTimeAugmentation.of(metadata)
    # Other scales need a graph for any height and width.
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


def _build_int8(name: str, trained: Trained, settings: ExportSettings, directory: str) -> _Running:
    """Writes a LiteRT model and runs it in this process behind the graph that the others have."""
    del name
    metadata = trained.metadata
    plain = _load(trained.model)

    def pixels() -> Iterator[np.ndarray]:
        for image in itertools.islice(trained.calibration(), settings.calibration_images):
            yield plain.signatures["preprocess"](image=tf.constant([image]))["pixels"].numpy()[0].astype(np.float32)

    content = quantize(fold(trained.network, "float32"), metadata["input_size"], pixels)
    os.makedirs(directory)
    files.write_bytes(os.path.join(directory, LITERT_FILE), content)
    module = ServingModule(
        LiteRTNetwork(content),
        trained.transform,
        files.join(trained.model, MODEL_METADATA),
        metadata["input_size"],
        metadata["max_pixels"],
        # A LiteRT model is of one size.
        dataclasses.replace(TestTimeAugmentation.of(metadata), scales=NO_AUGMENTATION.scales),
        Tiling.of(metadata),
    )
    return _Running(module, module.signatures())


_BUILDERS = {"folded": _build_saved_model, BFLOAT16: _build_saved_model, INT8: _build_int8}


def _measure(name: str, trained: Trained, running: _Running, size: int) -> Measurement:
    class_map = ClassMap.from_dict(trained.metadata["class_map"])
    serve, evaluate = running.signatures["serving_default"], running.signatures["evaluation"]
    return measure(name, serve, evaluate, trained.pairs(), class_map, size)


def _verdict(
    row: Measurement, plain: Measurement, chosen: str, passing: Collection[str], settings: ExportSettings
) -> str:
    if row.name not in passing:
        lost = plain.mean_iou - row.mean_iou
        return f"refused: it loses {lost:.4f} mean IoU, {settings.max_mean_drop:.4f} may be lost"
    if row.name == chosen:
        return "chosen"
    return f"chosen, as {LITERT_FILE} beside" if row.name == INT8 else "not chosen"


def _size(directory: str) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(
        tf.io.gfile.stat(files.join(folder, name)).length
        for folder, _, names in tf.io.gfile.walk(directory)
        for name in names
    )
