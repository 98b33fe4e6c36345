"""Runs an exported model in this process: encoded images in, masks out, with TensorFlow alone."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from components import features, files
from components.artifact_files import MODEL_METADATA, read_model_metadata
from components.class_map import ClassMap
from components.errors import UsageError
from components.pusher.versions import find_versions
from components.stored_folder import fetch, is_published

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        mask: class indices at the image's own size, uint8 [H, W].
        class_share: each class's share of the pixels, float32 [num_classes].
        confidence: mean over pixels of the winning class's probability, 0 to 1.
        depth_png: the depth map as a 16-bit grey PNG at the image's own size, None without depth.
    """

    mask: np.ndarray
    class_share: np.ndarray
    confidence: float
    depth_png: bytes | None = None


class Predictor:
    """A SavedModel in memory, with the class map that travelled inside it."""

    def __init__(self, directory: str) -> None:
        """Loads a model.

        Args:
            directory: a SavedModel that segpipe exported, such as `serving/fcn8/1732190400`, or a
                folder of numbered versions, of which the newest is taken.

        Raises:
            UsageError: there is no such model.
        """
        self.directory = find_version(directory)
        self.metadata = read_metadata(self.directory)
        self.class_map = ClassMap.from_dict(self.metadata["class_map"])
        import tensorflow as tf  # here, so that a wrong path is reported at once

        self._tf = tf
        self._model = tf.saved_model.load(self._loadable())
        self._serve = self._model.signatures["serving_default"]

    def _loadable(self) -> str:
        """Returns a path of the model that TensorFlow does not read as a pattern: a link if its own has one."""
        if files.is_remote(self.directory):
            # TensorFlow reads few stores.
            return fetch(self.directory) if is_published(self.directory) else self.directory
        if not files.pattern_character(os.path.abspath(self.directory)):
            return self.directory
        # Kept as long as the model, which may read its assets later.
        self._link = tempfile.TemporaryDirectory(prefix="segpipe-")
        path = os.path.join(self._link.name, "model")
        os.symlink(os.path.abspath(self.directory), path)
        return path

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Segments encoded PNG or JPEG images of any sizes, as one batch."""
        outputs: dict[str, Any] = self._serve(image=self._tf.constant(list(images)))
        depth = outputs.get(features.DEPTH_PNG)
        return [
            Prediction(decode_mask_png(mask), share, float(confidence), depth_png)
            for mask, share, confidence, depth_png in zip(
                features.mask_png(outputs).numpy(),
                outputs["class_share"].numpy(),
                outputs["confidence"].numpy(),
                [None] * len(images) if depth is None else depth.numpy().tolist(),
                strict=True,
            )
        ]

    def find_instances(self, images: Sequence[bytes], limits: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Asks a model of instances for encoded PNG or JPEG images of any sizes, as one batch.

        Args:
            images: as `predict` takes them.
            limits: the other inputs of the signature `find_instances` by name, one value an image.

        Returns:
            The outputs of each image by name, as `components/features.py` describes them.
        """
        inputs = {features.IMAGE: list(images), **limits}
        found = self._model.signatures[features.FIND_INSTANCES](**{k: self._tf.constant(v) for k, v in inputs.items()})
        outputs = {name: tensor.numpy() for name, tensor in found.items()}
        return [{name: rows[index] for name, rows in outputs.items()} for index in range(len(images))]

    def evaluate(self, images: Sequence[bytes]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Returns what the pipeline's Evaluator scores: each image's mask and the probability of each pixel's class.

        Args:
            images: encoded PNG or JPEG, of any sizes.

        Returns:
            Class indices, uint8 [H, W], and probabilities, uint8 [H, W], 0 to 255 for 0 to 1; None in place of the
            probabilities if the model was exported before version 0.2.
        """
        outputs = self._model.signatures["evaluation"](image=self._tf.constant(list(images)))
        masks = [decode_mask_png(mask) for mask in features.mask_png(outputs).numpy()]
        if features.CONFIDENCE_PNG not in outputs:
            return [(mask, None) for mask in masks]
        levels = [decode_mask_png(each) for each in outputs[features.CONFIDENCE_PNG].numpy()]
        return list(zip(masks, levels, strict=True))


def find_version(directory: str, option: str = "--model") -> str:
    """Returns a model's directory, or the newest version in a folder of versions, local or on an object store.

    A remote directory without versions is returned as it is. `option` is the command's, for the message.

    Raises:
        UsageError: there is no model.
        SegpipeError: the object store cannot be read.
    """
    versions = find_versions(directory)
    if versions:
        return versions[max(versions)]
    if files.is_remote(directory) or os.path.exists(os.path.join(directory, "saved_model.pb")):
        return directory
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = f"a folder with {len(names)} entries and no version" if os.path.isdir(directory) else "nothing"
    raise UsageError(
        f"{option} {directory}: found {found}, expected an exported model (a folder with saved_model.pb) "
        "or a folder of versions, such as WORKDIR/serving/fcn8"
    )


def read_metadata(directory: str) -> dict[str, Any]:
    """Returns what a model says of itself: name, class map, input size. Raises UsageError where it does not."""
    try:
        return read_model_metadata(directory)
    except (OSError, ValueError):
        raise UsageError(
            f"{directory}: found no readable {MODEL_METADATA}, "
            "expected a model that segpipe exported, which carries its classes there"
        ) from None


def decode_mask_png(data: bytes) -> np.ndarray:
    """Returns the values, uint8 [H, W], of a grey PNG."""
    return np.asarray(Image.open(io.BytesIO(data)))


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yields consecutive lists of up to `size` items."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
