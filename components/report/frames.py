"""Choose and draw the frames of the report: the best, the worst and random ones among evaluated examples.

Scores and masks come from the functions of the evaluation, so the mean IoU of a frame means the same.
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
from components.metrics.depth import decode_depth
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
    """An example's position among those read, its prediction and its score.

    Attributes:
        index: the position.
        prediction: a mask PNG, or detections.
        score: mean IoU of the mask, or average precision of the detections; NaN if undefined.
        depth: the estimated depth map, a PNG; None without depth.
    """

    index: int
    prediction: bytes | Detections
    score: float
    depth: bytes | None = None


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
        max_frames: maximum number of examples to predict. ExampleGen stores them in an order that mixes sequences, so
            the first ones are a fair sample.
        per_group: maximum number of frames in each of the three groups.
        seed: seed of the random group.
        batch_size: images predicted at once.
        things: names of the classes that have instances; empty for a model of masks.

    Returns:
        The frames, worst first, then best, then random, without duplicates; and the number of scored frames.
    """
    predict = load_predictor(model_dir)
    scored = list(score_pairs(read_examples(example_files, max_frames), predict, class_map, batch_size, things))
    chosen = {frame.index: (group, frame) for group, frame in pick(scored, per_group, seed)}
    pairs = enumerate(read_examples(example_files, max_frames))
    drawn = {index: draw(pair, *chosen[index], class_map) for index, pair in pairs if index in chosen}
    return tuple(drawn[index] for index in chosen), len(scored)


def load_predictor(model_dir: str) -> Predict:
    """Loads an exported model's `evaluation` signature."""
    # The signature's variables live as long as the loaded object, which the closure references.
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
            yield _score(index, pair, outputs, class_map, things)


def _score(
    index: int, pair: RawExample, outputs: dict[str, Any], class_map: ClassMap, things: Sequence[str]
) -> ScoredFrame:
    if not things:
        prediction = features.mask_png(outputs)
        matrix = confusion_matrix(decode_mask(pair.mask), decode_mask(prediction), class_map.num_classes)
        return ScoredFrame(index, prediction, mean_iou(matrix, class_map), outputs.get(features.DEPTH_PNG))
    truth = _instances(pair)
    found = Detections.of_outputs(outputs, truth.masks.shape[1:])
    matched = match(truth, found, [class_map.index(name) for name in things])
    return ScoredFrame(index, found, AveragePrecision([matched], things).mask_ap)


def _instances(pair: RawExample) -> Instances:
    if pair.instances is None:
        raise ValueError(f"{pair.name}: found no instances, expected the raw features of a data set with instances")
    return pair.instances


def pick(scored: Sequence[ScoredFrame], per_group: int, seed: int) -> list[tuple[Group, ScoredFrame]]:
    """Picks the worst, the best and random frames, each frame once.

    With few frames, all groups get smaller. Frames without a score are never picked.
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
    """Draws a frame's pictures, at most `pictures.MAX_WIDTH` pixels wide."""
    photo, prediction = pictures.photo(pair.image), scored.prediction
    if isinstance(prediction, Detections):
        iou, precision = None, scored.score
        drawn = draw_instances(_instances(pair), prediction, class_map, photo)
    else:
        iou, precision = scored.score, None
        drawn = _draw_masks(pair.mask, prediction, class_map, photo)
    if pair.depth and scored.depth:
        drawn |= _draw_depth(pair.depth, scored.depth, photo)
    return Frame(
        group=group,
        name=pair.name,
        mean_iou=iou,
        mask_ap=precision,
        image=pictures.photo_address(photo),
        **drawn,
        sequence=pair.sequence,
    )


def _draw_masks(truth_png: bytes, prediction_png: bytes, class_map: ClassMap, photo: Image.Image) -> dict[str, str]:
    """Returns the pictures of truth, prediction and error by the name of their field."""
    truth, prediction = (pictures.mask(decode_mask(png)) for png in (truth_png, prediction_png))
    return {
        "truth": pictures.mask_address(truth, class_map),
        "prediction": pictures.mask_address(prediction, class_map),
        "error": pictures.marks_address(drawing.error_map(truth, prediction, class_map, np.asarray(photo))),
    }


def _draw_depth(truth_png: bytes, estimate_png: bytes, photo: Image.Image) -> dict[str, str]:
    """Returns the pictures of true depth, estimated depth and its error by the name of their field."""
    truth, estimate = (pictures.mask(decode_depth(png).astype(np.float32)) for png in (truth_png, estimate_png))
    known = truth[truth > 0]
    return {
        "depth_truth": pictures.marks_address(pictures.colored_depth(truth, known)),
        "depth_prediction": pictures.marks_address(pictures.colored_depth(estimate, known)),
        "depth_error": pictures.marks_address(pictures.depth_error(truth, estimate, np.asarray(photo))),
    }


def draw_instances(truth: Instances, found: Detections, class_map: ClassMap, photo: Image.Image) -> dict[str, str]:
    """Returns the pictures of truth, prediction and error by the name of their field.

    The error picture marks pixels whose true and detected class differ.
    """
    image, shown = np.asarray(photo), np.flatnonzero(found.scores >= SHOWN_SCORE)
    classes, scores = found.classes[shown], found.scores[shown]
    true_masks, masks = pictures.masks(truth.masks), pictures.masks(found.masks[shown])
    flat_truth, flat = _flatten(true_masks, truth.classes), _flatten(masks, classes)
    # Pixels in a crowd are not scored.
    crowd = true_masks[truth.crowd].any(axis=0)
    error = drawing.error_map(np.where(crowd, flat, flat_truth), flat, class_map, image)
    true_labels = [class_map.names[index] for index in truth.classes]
    labels = [f"{class_map.names[index]} {value:.2f}" for index, value in zip(classes, scores, strict=True)]
    # Labels keep their size, so small images are enlarged.
    times = max(1, pictures.MAX_WIDTH // photo.width)
    image = image.repeat(times, axis=0).repeat(times, axis=1)
    true_masks, masks = (each.repeat(times, axis=1).repeat(times, axis=2) for each in (true_masks, masks))
    return {
        "truth": pictures.marks_address(drawing.instances(image, true_masks, true_labels)),
        "prediction": pictures.marks_address(drawing.instances(image, masks, labels)),
        "error": pictures.marks_address(error),
    }


def _flatten(masks: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the class index of each pixel's first instance, uint8 [H, W]; 255 without one."""
    flat = np.full(masks.shape[1:], 255, np.uint8)
    for mask, index in zip(masks[::-1], classes[::-1], strict=True):
        flat[mask] = index
    return flat
