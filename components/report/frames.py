"""Chooses the frames the report shows: predicts evaluation examples, scores each, keeps the extremes and a few others.

Scores and masks come from the same functions as the evaluation's, so a frame's mean IoU means the same.
"""

from __future__ import annotations

import dataclasses
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
from components.examples import RawExample, read_examples
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.scores import mean_iou
from components.report import pictures
from components.report.data import Frame

# Takes encoded images, returns a mask PNG each, at the image's own size.
Predict = Callable[[list[bytes]], list[bytes]]
Group = Literal["best", "worst", "random"]

_SIGNATURE = "evaluation"


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """An example's position among those read, the mask PNG predicted for it and its mean IoU, NaN if undefined."""

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
    scored = list(score_pairs(read_examples(example_files, max_frames), predict, class_map, batch_size))
    chosen = {frame.index: (group, frame) for group, frame in pick(scored, per_group, seed)}
    pairs = enumerate(read_examples(example_files, max_frames))
    drawn = {index: draw(pair, *chosen[index], class_map) for index, pair in pairs if index in chosen}
    return tuple(drawn[index] for index in chosen), len(scored)


def load_predictor(model_dir: str) -> Predict:
    """Loads an exported model's `evaluation` signature."""
    # The signature's variables live as long as the loaded object: the closure keeps hold of it.
    model = tf.saved_model.load(model_dir)

    def predict(images: list[bytes]) -> list[bytes]:
        return list(features.mask_png(model.signatures[_SIGNATURE](image=tf.constant(images))).numpy())

    return predict


def score_pairs(
    pairs: Iterable[RawExample], predict: Predict, class_map: ClassMap, batch_size: int = 8
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


def draw(pair: RawExample, group: Group, scored: ScoredFrame, class_map: ClassMap) -> Frame:
    """Draws a frame's four pictures, at most `pictures.MAX_WIDTH` pixels wide."""
    photo = pictures.photo(pair.image)
    truth, prediction = (pictures.mask(decode_mask(mask)) for mask in (pair.mask, scored.prediction))
    error = Image.fromarray(drawing.error_map(truth, prediction, class_map, np.asarray(photo)))
    return Frame(
        group=group,
        name=pair.name,
        mean_iou=scored.mean_iou,
        image=pictures.photo_address(photo),
        truth=pictures.mask_address(truth, class_map),
        prediction=pictures.mask_address(prediction, class_map),
        error=pictures.marks_address(error),
        sequence=pair.sequence,
    )
