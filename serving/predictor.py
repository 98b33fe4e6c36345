"""Runs an exported model in this process: encoded images in, masks out. Needs only TensorFlow."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from components import features, files
from components.artifact_files import MODEL_METADATA, read_model_metadata
from components.class_map import ClassMap
from components.errors import UsageError
from components.pusher.versions import newest_version
from components.stored_folder import fetch, is_published

_Item = TypeVar("_Item")


class Evaluated(NamedTuple):
    """What a model returns for an image to be scored.

    Attributes:
        mask: class indices at the image's own size, uint8 [H, W].
        confidence: the probability of each pixel's class, uint8 [H, W], 0 to 255 for 0 to 1; None if the model was
            exported before version 0.2.
        depth_png: as in `Prediction`.
    """

    mask: np.ndarray
    confidence: np.ndarray | None
    depth_png: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The semantic segmentation of one image.

    Attributes:
        mask: class indices at the image's own size, uint8 [H, W].
        class_share: each class's fraction of the pixels, float32 [num_classes].
        confidence: mean over pixels of the winning class's probability, 0 to 1.
        depth_png: the depth map as a 16-bit grey PNG at the image's own size, None without depth.
    """

    mask: np.ndarray
    class_share: np.ndarray
    confidence: float
    depth_png: bytes | None = None


class Predictor:
    """A SavedModel in memory, with the class map stored in it."""

    def __init__(self, directory: str) -> None:
        """Loads a model.

        Args:
            directory: a SavedModel exported by segpipe, such as `serving/segpipe/1732190400`, or a folder of numbered
                versions, of which the newest is loaded.

        Raises:
            UsageError: no model was found.
        """
        self.directory = find_version(directory)
        self.metadata = read_metadata(self.directory)
        self.class_map = ClassMap.from_dict(self.metadata["class_map"])
        import tensorflow as tf  # slow, so a wrong path is reported first

        self._tf = tf
        self._model = tf.saved_model.load(self._loadable())

    def _loadable(self) -> str:
        """Returns a path that TensorFlow can load: it reads few object stores, and expands patterns in paths."""
        if files.is_remote(self.directory):
            return fetch(self.directory) if is_published(self.directory) else self.directory
        if not files.pattern_character(os.path.abspath(self.directory)):
            return self.directory
        # Must live as long as the model, which may read its assets later.
        self._link = tempfile.TemporaryDirectory(prefix="segpipe-")
        path = os.path.join(self._link.name, "model")
        os.symlink(os.path.abspath(self.directory), path)
        return path

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Segments encoded PNG or JPEG images of any sizes, as one batch."""
        return [
            Prediction(
                decode_mask_png(features.mask_png(outputs)),
                outputs["class_share"],
                float(outputs["confidence"]),
                outputs.get(features.DEPTH_PNG),
            )
            for outputs in self._call("serving_default", images)
        ]

    def find_instances(self, images: Sequence[bytes], limits: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Finds the instances in encoded PNG or JPEG images of any sizes, as one batch.

        Args:
            images: the encoded images.
            limits: the other inputs of the signature `find_instances` by name, one value per image.

        Returns:
            The outputs for each image by name, as described in `components/features.py`.
        """
        return self._call(features.FIND_INSTANCES, images, limits)

    def evaluate(self, images: Sequence[bytes]) -> list[Evaluated]:
        """Returns what the pipeline's Evaluator scores, for encoded PNG or JPEG images of any sizes."""
        found = []
        for outputs in self._call("evaluation", images):
            confidence = outputs.get(features.CONFIDENCE_PNG)
            mask = decode_mask_png(features.mask_png(outputs))
            decoded = None if confidence is None else decode_mask_png(confidence)
            found.append(Evaluated(mask, decoded, outputs.get(features.DEPTH_PNG)))
        return found

    def _call(
        self, signature: str, images: Sequence[bytes], inputs: Mapping[str, np.ndarray] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the outputs of a signature by name, for each image."""
        values = {features.IMAGE: list(images), **(inputs or {})}
        tensors = {name: self._tf.constant(value) for name, value in values.items()}
        outputs = {name: tensor.numpy() for name, tensor in self._model.signatures[signature](**tensors).items()}
        return [{name: rows[index] for name, rows in outputs.items()} for index in range(len(images))]


def find_version(directory: str, option: str = "--model") -> str:
    """Returns a model's directory, or the newest version in a folder of versions, local or on an object store.

    Returns a remote directory without versions unchanged. `option` is the command's, for the message.

    Raises:
        UsageError: no model was found.
        SegpipeError: the object store cannot be read.
    """
    newest = newest_version(directory)
    if newest:
        return newest[0]
    if files.is_remote(directory) or os.path.exists(os.path.join(directory, "saved_model.pb")):
        return directory
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = f"a folder with {len(names)} entries and no version" if os.path.isdir(directory) else "nothing"
    raise UsageError(
        f"{option} {directory}: found {found}, expected an exported model (a folder with saved_model.pb) "
        "or a folder of versions, such as WORKDIR/serving/segpipe"
    )


def read_metadata(directory: str) -> dict[str, Any]:
    """Returns a model's metadata: name, class map, input size. Raises UsageError if there is no metadata."""
    try:
        return read_model_metadata(directory)
    except (OSError, ValueError):
        raise UsageError(
            f"{directory}: found no readable {MODEL_METADATA}, "
            "expected a model exported by segpipe, which has its classes there"
        ) from None


def decode_mask_png(data: bytes) -> np.ndarray:
    """Returns the values, uint8 [H, W], of a grey PNG."""
    return np.asarray(Image.open(io.BytesIO(data)))


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yields consecutive lists of up to `size` items, as `itertools.batched` of Python 3.12."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
