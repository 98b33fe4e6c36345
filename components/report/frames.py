"""Chooses the frames the report shows: predicts evaluation examples, scores each, keeps the extremes and a few others.

Scores and masks come from the same functions as the evaluation's, so a frame's mean IoU means the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from PIL import Image

from components import drawing, features
from components.class_map import ClassMap
from components.examples import RawExample, read_examples
from components.instances import Instances
from components.metrics.average_precision import AveragePrecision, match
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.detections import Detections
from components.metrics.scores import mean_iou
from components.report import pictures
from components.report.data import Frame

# Takes encoded images, returns the outputs of the signature `evaluation` for each, by name.
Predict = Callable[[list[bytes]], list[dict[str, Any]]]
Group = Literal["best", "worst", "random"]

_SIGNATURE = "evaluation"
# Detections with lower scores are not drawn.
SHOWN_SCORE = 0.5


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """An example's position among those read, what was predicted for it and its score, NaN if undefined.

    The prediction is a mask PNG with a mean IoU, or detections with an average precision.
    """

    index: int
    prediction: bytes | Detections
    score: float


def choose_frames(
    example_files: Sequence[str],
    model_dir: str,
    class_map: ClassMap,
    max_frames: int = 200,
    per_group: int = 3,
    seed: int = 0,
    batch_size: int = 8,
    things: Sequence[str] = (),
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
        things: names of the classes that have instances, for a model of instances; empty for one of masks.

    Returns:
        The frames, worst first, then best, then random, none twice; and how many were scored.
    """
    predict = load_predictor(model_dir)
    scored = list(score_pairs(read_examples(example_files, max_frames), predict, class_map, batch_size, things))
    chosen = {frame.index: (group, frame) for group, frame in pick(scored, per_group, seed)}
    pairs = enumerate(read_examples(example_files, max_frames))
    drawn = {index: draw(pair, *chosen[index], class_map) for index, pair in pairs if index in chosen}
    return tuple(drawn[index] for index in chosen), len(scored)


def load_predictor(model_dir: str) -> Predict:
    """Loads an exported model's `evaluation` signature."""
    # The signature's variables live as long as the loaded object: the closure keeps hold of it.
    model = tf.saved_model.load(model_dir)

    def predict(images: list[bytes]) -> list[dict[str, Any]]:
        outputs = model.signatures[_SIGNATURE](image=tf.constant(images))
        arrays = {name: value.numpy() for name, value in outputs.items()}
        return [{name: array[place] for name, array in arrays.items()} for place in range(len(images))]

    return predict


def score_pairs(
    pairs: Iterable[RawExample],
    predict: Predict,
    class_map: ClassMap,
    batch_size: int = 8,
    things: Sequence[str] = (),
) -> Iterator[ScoredFrame]:
    """Predicts pairs in batches and scores each, over the classes in its truth."""
    numbered = enumerate(pairs)
    while batch := list(itertools.islice(numbered, batch_size)):
        predictions = predict([pair.image for _, pair in batch])
        for (index, pair), outputs in zip(batch, predictions, strict=True):
            yield ScoredFrame(index, *_score(pair, outputs, class_map, things))


def _score(
    pair: RawExample, outputs: dict[str, Any], class_map: ClassMap, things: Sequence[str]
) -> tuple[bytes | Detections, float]:
    if not things:
        prediction = features.mask_png(outputs)
        matrix = confusion_matrix(decode_mask(pair.mask), decode_mask(prediction), class_map.num_classes)
        return prediction, mean_iou(matrix, class_map)
    truth = _instances(pair)
    found = Detections.of_outputs(outputs, truth.masks.shape[1:])
    matched = match(truth, found, [class_map.index(name) for name in things])
    return found, AveragePrecision([matched], things).mask_ap


def _instances(pair: RawExample) -> Instances:
    if pair.instances is None:
        raise ValueError(f"{pair.name}: found no instances, expected the raw features of a data set with instances")
    return pair.instances


def pick(scored: Sequence[ScoredFrame], per_group: int, seed: int) -> list[tuple[Group, ScoredFrame]]:
    """Picks the worst, the best and random frames, each frame once.

    With few frames the groups shrink together. A frame with nothing to score has no score and
    is never picked.
    """
    ranked = sorted((frame for frame in scored if not math.isnan(frame.score)), key=lambda frame: frame.score)
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
    if isinstance(scored.prediction, Detections):
        return _draw_instances(pair, group, scored.prediction, scored.score, class_map, photo)
    truth, prediction = (pictures.mask(decode_mask(mask)) for mask in (pair.mask, scored.prediction))
    error = Image.fromarray(drawing.error_map(truth, prediction, class_map, np.asarray(photo)))
    return Frame(
        group=group,
        name=pair.name,
        mean_iou=scored.score,
        image=pictures.photo_address(photo),
        truth=pictures.mask_address(truth, class_map),
        prediction=pictures.mask_address(prediction, class_map),
        error=pictures.marks_address(error),
        sequence=pair.sequence,
    )


def _draw_instances(
    pair: RawExample, group: Group, found: Detections, score: float, class_map: ClassMap, photo: Image.Image
) -> Frame:
    """Draws a frame of instances; in the error picture, pixels whose true and detected class differ are marked."""
    truth, image = _instances(pair), np.asarray(photo)
    shown = np.flatnonzero(found.scores >= SHOWN_SCORE)
    labels = [class_map.names[index] for index in truth.classes]
    found_labels = [
        f"{class_map.names[index]} {value:.2f}"
        for index, value in zip(found.classes[shown], found.scores[shown], strict=True)
    ]
    sides = pictures.masks(truth.masks), pictures.masks(found.masks[shown])
    flat = [
        _flatten(masks, classes) for masks, classes in zip(sides, (truth.classes, found.classes[shown]), strict=True)
    ]
    # What lies in a crowd is not scored.
    crowd = sides[0][truth.crowd].any(axis=0)
    error = drawing.error_map(np.where(crowd, flat[1], flat[0]), flat[1], class_map, image)
    # Labels keep their size, so small images are enlarged.
    times = max(1, pictures.MAX_WIDTH // photo.width)
    image = image.repeat(times, axis=0).repeat(times, axis=1)
    drawn = [
        drawing.instances(image, masks.repeat(times, axis=1).repeat(times, axis=2), texts)
        for masks, texts in zip(sides, (labels, found_labels), strict=True)
    ]
    return Frame(
        group=group,
        name=pair.name,
        mean_iou=None,
        mask_ap=score,
        image=pictures.photo_address(photo),
        truth=pictures.marks_address(Image.fromarray(drawn[0])),
        prediction=pictures.marks_address(Image.fromarray(drawn[1])),
        error=pictures.marks_address(Image.fromarray(error)),
        sequence=pair.sequence,
    )


def _flatten(masks: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the class index of each pixel's first instance, uint8 [H, W]; 255 without one."""
    flat = np.full(masks.shape[1:], 255, np.uint8)
    for mask, index in zip(masks[::-1], classes[::-1], strict=True):
        flat[mask] = index
    return flat
