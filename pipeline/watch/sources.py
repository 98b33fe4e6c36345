"""Reads images from a source: a data set with masks, a folder of images, or logged requests.

Logged requests are TFRecords of `PredictionLog`, the format of TensorFlow Serving's request logging (`logging_config`,
LOG_TFRECORD) and its warm-up files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from components import features, files
from components.dataset.checks import Sample, read_pair
from components.dataset.conversion import as_png
from components.dataset.data_files import data_files, listed_once
from components.dataset.description import FILE_NAMES, DatasetDescription, detect, has_pairs
from components.dataset.encoded import BadFileError, Limits, decode
from components.dataset.layout import IMAGE_EXTENSIONS
from components.dataset.orientation import upright
from components.dataset.pairs import find_pairs
from components.errors import UsageError

DATA, IMAGES, REQUESTS = "data", "images", "requests"


@dataclasses.dataclass(frozen=True)
class Observation:
    """The compared values of one image.

    Attributes:
        image: its encoded bytes, PNG or JPEG.
        height: pixels.
        width: pixels.
        brightness: mean luma, 0 to 1.
        contrast: standard deviation of the luma, 0 to 0.5.
        class_share: proportion of each class in its mask, float [num_classes]; None without a mask.
    """

    image: bytes
    height: int
    width: int
    brightness: float
    contrast: float
    class_share: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Observations:
    """The images of a source.

    Attributes:
        kind: DATA, IMAGES or REQUESTS.
        images: the readable images.
        unreadable: number of files or requests without an image that the model accepts.
        class_names: the classes of the masks; None without masks.
    """

    kind: str
    images: list[Observation]
    unreadable: int
    class_names: tuple[str, ...] | None = None


def observe(data: bytes, class_share: np.ndarray | None = None, max_pixels: int = sys.maxsize) -> Observation:
    """Measures an encoded image. Raises BadFileError if it is broken or has too many pixels."""
    image = upright(decode(data, _any_side(max_pixels), ("PNG", "JPEG")))
    # Pillow clips 16-bit grey levels at 255 when it converts them.
    deep = image.mode.startswith("I")
    luma = np.asarray(image if deep else image.convert("L"), np.float32) / (65535 if deep else 255)
    return Observation(data, image.height, image.width, float(luma.mean()), float(luma.std()), class_share)


def _any_side(max_pixels: int) -> Limits:
    return Limits(max_side=sys.maxsize, min_side=1, max_pixels=max_pixels)


@listed_once()
def read_source(
    path: str,
    limit: int,
    split: str,
    description: DatasetDescription | None = None,
    sizes: Limits | None = None,
    model: str = "",
) -> Observations:
    """Detects the kind of a source, and reads its images.

    Args:
        path: a data set with masks, a folder of images, or a file or folder of logged requests, local or on an object
            store.
        limit: largest number of images to read: the newest images or requests, or evenly spaced pairs of a data set.
        split: the split of a data set to read.
        description: the description of a data set; if it is None or finds no pairs, it is detected.
        sizes: the allowed sizes of the pairs; `max_pixels` also applies to images and requests.
        model: read only requests for this model; empty for all.

    Raises:
        UsageError: the path has no images, or the data set's own description is wrong.
        OSError: a file or folder cannot be read.
    """
    described = description if description and has_pairs(description, list(data_files(path))) else _describe(path)
    if described:
        return _read_pairs(path, described.without_instances().without_depth(), split, limit, sizes)
    max_pixels = (sizes or Limits()).max_pixels
    found = _files(path)
    images = [file for file in found if _is_image(file)][-limit:]
    if images:
        return _collect(IMAGES, map(files.read_bytes, images), max_pixels)
    logs = [file for file in found if not os.path.basename(file).startswith(".")]
    requests = _collect(REQUESTS, _requests(logs, limit, model), max_pixels)
    if requests.images or requests.unreadable:
        return requests
    of_model = f" with requests for model {model}" if model else ""
    raise UsageError(
        f"{path}: found no images, expected a data set of images and masks, a folder of images, "
        f"or TFRecords of TensorFlow Serving's PredictionLog{of_model}"
    )


def _describe(path: str) -> DatasetDescription | None:
    """Detects the description of a data set; None if it has no masks. Raises UsageError if its own is wrong."""
    try:
        return detect(path)
    except UsageError:
        if any(files.exists(files.join(path, name)) for name in FILE_NAMES):
            raise
        return None


def _read_pairs(
    path: str, description: DatasetDescription, split: str, limit: int, sizes: Limits | None
) -> Observations:
    """Reads evenly spaced pairs of a split, because neighbouring frames are nearly equal."""
    pairs = [pair for pair in find_pairs(path, description)[0] if pair.split == split]
    chosen = [pairs[index * len(pairs) // limit] for index in range(limit)] if len(pairs) > limit else pairs
    samples = [read_pair(path, pair, description, sizes) for pair in chosen]
    readable = [sample for sample in samples if isinstance(sample, Sample)]
    images = [observe(sample.image, sample.class_pixels / sample.class_pixels.sum()) for sample in readable]
    return Observations(DATA, images, len(samples) - len(readable), description.class_map.names)


def _collect(kind: str, encoded: Iterator[bytes], max_pixels: int) -> Observations:
    images, unreadable = [], 0
    for data in encoded:
        try:
            # The model only accepts PNG and JPEG, so requests in another format are unreadable.
            image = as_png(data, _any_side(max_pixels), "") if kind == IMAGES else data
            images.append(observe(image, max_pixels=max_pixels))
        except BadFileError:
            unreadable += 1
    return Observations(kind, images, unreadable)


def _requests(logs: Sequence[str], limit: int, model: str) -> Iterator[bytes]:
    """Yields the images of the newest requests, oldest first. Raises UsageError if a file is not a request log."""
    images: list[bytes] = []
    for path in reversed(logs):
        if len(images) == limit:
            break
        images = [*_requests_of(path, limit - len(images), model), *images]
    yield from images


def _requests_of(path: str, limit: int, model: str) -> Iterable[bytes]:
    """Returns the last images that a model received, at most `limit`, and keeps no more in memory."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    images: deque[bytes] = deque(maxlen=limit)
    try:
        with _local(path) as log:
            for record in tf.data.TFRecordDataset(log, compression_type="GZIP" if path.endswith(".gz") else ""):
                request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
                if model in ("", request.model_spec.name):
                    images += request.inputs[features.IMAGE].string_val
    except (tf.errors.DataLossError, DecodeError) as error:
        # Ignore an unfinished last record, which a server is still writing. The message is from `ReadChecksummed` in
        # tensorflow/core/lib/io/record_reader.cc; for a wrong checksum it is "corrupted record".
        if "truncated record" not in str(error):
            raise UsageError(
                f"{path}: found {type(error).__name__}, expected a TFRecord file of PredictionLog"
            ) from None
    return images


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    """Yields the path of a file; an object is copied to the local disk, because TensorFlow reads few object stores."""
    if not files.is_remote(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="segpipe-") as copy:
        copy.writelines(files.chunks(path))
        copy.flush()
        yield copy.name


def _files(path: str) -> list[str]:
    """Returns the path of a file, or of each file below a folder, oldest first."""
    if files.exists(path) if files.is_remote(path) else os.path.isfile(path):
        return [path]
    found = sorted((info.modified, info.path) for info in files.scan(path, missing_ok=True))
    return [files.join(path, name) for _, name in found]


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower().removeprefix(".") in IMAGE_EXTENSIONS
