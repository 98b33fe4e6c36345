"""Chooses the frames the report shows: predicts evaluation examples, scores each, keeps the extremes and a few others.

Scores and masks come from the same functions as the evaluation's, so a frame's mean IoU means the same.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf
from PIL import Image

from components import drawing, features
from components.class_map import ClassMap
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.scores import mean_iou
from components.report.data import Frame

# Takes encoded images, returns a mask PNG each, at the image's own size.
Predict = Callable[[list[bytes]], list[bytes]]
Group = Literal["best", "worst", "random"]

MAX_WIDTH = 480
_JPEG_QUALITY = 85
_SIGNATURE = "evaluation"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One raw example: encoded image, mask PNG, name and sequence."""

    image: bytes
    mask: bytes
    name: str
    sequence: str


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """A pair's position among the examples, the mask PNG predicted for it and its mean IoU, NaN if undefined."""

    index: int
    prediction: bytes
    mean_iou: float


def choose_frames(
    example_files: Sequence[str],
    model_dir: str,
    class_map: ClassMap,
    max_frames: int = 200,
    per_group: int = 3,
    seed: int = 0,
    batch_size: int = 8,
) -> tuple[tuple[Frame, ...], int]:
    """Predicts and scores examples, and draws the best, the worst and random ones.

    Args:
        example_files: gzip TFRecords of raw examples.
        model_dir: an exported SavedModel with the signature `evaluation`.
        class_map: the classes of masks and predictions.
        max_frames: largest number of examples to predict; ExampleGen stores them in an order that
            mixes sequences, so the first ones are a fair sample.
        per_group: largest number of frames in each of the three groups.
        seed: of the random group.
        batch_size: images predicted at once.

    Returns:
        The frames, worst first, then best, then random, none twice; and how many were scored.
    """
    predict = load_predictor(model_dir)
    scored = list(score_pairs(read_pairs(example_files, max_frames), predict, class_map, batch_size))
    chosen = {frame.index: (group, frame) for group, frame in pick(scored, per_group, seed)}
    pairs = enumerate(read_pairs(example_files, max_frames))
    drawn = {index: draw(pair, *chosen[index], class_map) for index, pair in pairs if index in chosen}
    return tuple(drawn[index] for index in chosen), len(scored)


def load_predictor(model_dir: str) -> Predict:
    """Loads an exported model's `evaluation` signature."""
    # The signature's variables live as long as the loaded object: the closure keeps hold of it.
    model = tf.saved_model.load(model_dir)

    def predict(images: list[bytes]) -> list[bytes]:
        return list(features.mask_png(model.signatures[_SIGNATURE](image=tf.constant(images))).numpy())

    return predict


def read_pairs(example_files: Sequence[str], limit: int) -> Iterator[Pair]:
    """Yields the first examples of some gzip TFRecords, in their stored order."""
    for record in tf.data.TFRecordDataset(list(example_files), compression_type="GZIP").take(limit):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        image, mask, name, sequence = (
            feature[key].bytes_list.value[0]
            for key in (features.IMAGE, features.MASK, features.NAME, features.SEQUENCE)
        )
        yield Pair(image, mask, name.decode(), sequence.decode())


def score_pairs(
    pairs: Iterable[Pair], predict: Predict, class_map: ClassMap, batch_size: int = 8
) -> Iterator[ScoredFrame]:
    """Predicts pairs in batches and scores each by its mean IoU over the classes in its mask."""
    numbered = enumerate(pairs)
    while batch := list(itertools.islice(numbered, batch_size)):
        predictions = predict([pair.image for _, pair in batch])
        for (index, pair), prediction in zip(batch, predictions, strict=True):
            matrix = confusion_matrix(decode_mask(pair.mask), decode_mask(prediction), class_map.num_classes)
            yield ScoredFrame(index, prediction, mean_iou(matrix, class_map))


def pick(scored: Sequence[ScoredFrame], per_group: int, seed: int) -> list[tuple[Group, ScoredFrame]]:
    """Picks the worst, the best and random frames, each frame once.

    With few frames the groups shrink together. A frame without a scored pixel has no mean IoU and
    is never picked.
    """
    ranked = sorted((frame for frame in scored if not math.isnan(frame.mean_iou)), key=lambda frame: frame.mean_iou)
    size = min(per_group, math.ceil(len(ranked) / 3))
    worst, rest = ranked[:size], ranked[size:]
    best = rest[::-1][:size]
    others = rest[: len(rest) - len(best)]
    randoms = random.Random(seed).sample(others, min(size, len(others)))
    groups: tuple[tuple[Group, list[ScoredFrame]], ...] = (("worst", worst), ("best", best), ("random", randoms))
    return [(group, frame) for group, frames in groups for frame in frames]


def draw(pair: Pair, group: Group, scored: ScoredFrame, class_map: ClassMap) -> Frame:
    """Draws a frame's four pictures, at most `MAX_WIDTH` pixels wide."""
    photo = _shrink(Image.fromarray(drawing.photo(pair.image)), Image.Resampling.LANCZOS)
    truth, prediction = _shrunk_mask(pair.mask), _shrunk_mask(scored.prediction)
    error = Image.fromarray(drawing.error_map(truth, prediction, class_map, np.asarray(photo)))
    return Frame(
        group=group,
        name=pair.name,
        mean_iou=scored.mean_iou,
        image=_data_uri(photo, "JPEG", quality=_JPEG_QUALITY),
        truth=_mask_uri(truth, class_map),
        prediction=_mask_uri(prediction, class_map),
        # Full colour resolution keeps the edges of what is marked sharp.
        error=_data_uri(error, "JPEG", quality=_JPEG_QUALITY, subsampling=0),
        sequence=pair.sequence,
    )


def _mask_uri(mask: np.ndarray, class_map: ClassMap) -> str:
    """Encodes class indices as a palette PNG, a third the size of one in colours."""
    image = Image.fromarray(mask)
    image.putpalette(class_map.colorize(np.arange(256)).tobytes())
    return _data_uri(image, "PNG", optimize=True)


def _shrunk_mask(png: bytes) -> np.ndarray:
    return np.asarray(_shrink(Image.fromarray(decode_mask(png)), Image.Resampling.NEAREST))


def _shrink(image: Image.Image, resample: Image.Resampling) -> Image.Image:
    if image.width <= MAX_WIDTH:
        return image
    return image.resize((MAX_WIDTH, max(1, round(image.height * MAX_WIDTH / image.width))), resample)


def _data_uri(image: Image.Image, encoding: Literal["JPEG", "PNG"], **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return f"data:image/{encoding.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
