"""Definitions of the segmentation scores, each a function of a confusion matrix and a class map.

The pipeline's evaluation, `segpipe evaluate` and the report all read the registries here, so a
score means the same wherever it is shown. Matrices hold the truth in rows and the prediction in
columns. Pixels whose truth is the ignore index are left out (their row is dropped); a prediction
of the ignored class on any other pixel is a miss.

A class without a true pixel has no IoU and no Dice (NaN), and a mean leaves it out. Keras' MeanIoU (3.12) and
others instead count a class that is only predicted as 0. With 11 classes, one of them absent, a single stray
pixel then takes a mean of 0.600 to 0.545. Here its pixels count where they are wrong: as misses of the true class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from components.class_map import ClassMap

Metric = Callable[[np.ndarray, ClassMap], float]
ClassMetric = Callable[[np.ndarray, ClassMap], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """The names of a task's scores.

    Attributes:
        main: the score that the gate, the choice of frames and lists of runs go by.
        by_class: the same of each class, named as in `class_iou/road`.
        listed: the scores that stand first in a report and in lists of runs.
        of_epoch: the score that chooses the epoch; in a training's history with `val_` before it.
    """

    main: str
    by_class: str
    listed: tuple[str, ...]
    of_epoch: str


SEMANTIC = TaskScores("mean_iou", "class_iou", ("mean_iou", "mean_dice", "pixel_accuracy"), "mean_iou")
INSTANCE = TaskScores("mask_ap", "class_mask_ap", ("mask_ap", "mask_ap50", "box_ap"), "mask_ap50")

# The scores of depth; see `components.metrics.depth`.
DEPTH = ("abs_rel", "rmse", "delta_1")
LOWER_IS_BETTER = ("abs_rel", "rmse")


def task_scores(scores: Mapping[str, Any]) -> TaskScores:
    """Returns the names of the task's scores that a model's scores by name are of."""
    return INSTANCE if INSTANCE.main in scores else SEMANTIC


def nested(scores: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns scores by metric name as plain JSON types, those of classes by class name; null for NaN.

    `class_iou/road` becomes `{"class_iou": {"road": ...}}`.
    """
    result: dict[str, Any] = {}
    for name, value in scores.items():
        family, _, class_name = name.partition("/")
        group = result.setdefault(family, {}) if class_name else result
        group[class_name or family] = None if value is None else or_null(value)
    return result


def ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Divides, float64, with NaN where the denominator is 0 or `where` is false."""
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0 if where is None else where)
    return result


def mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values that are not NaN over the last axis, NaN if none is left."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


def counts(matrix: np.ndarray, class_map: ClassMap) -> np.ndarray:
    """Returns the pixels hit, true and predicted of each scored class, int64 [3, scored classes].

    Every score but `mean_iou_with_void` is a function of these.
    """
    indices = list(class_map.scored_indices)
    rows = np.asarray(matrix, dtype=np.int64)[indices]
    return np.stack([rows[range(len(indices)), indices], rows.sum(axis=1), rows.sum(axis=0)[indices]])


def iou(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns IoU = TP / (TP + FP + FN), float64, NaN for a class without a true pixel."""
    return ratio(hit, truth + predicted - hit, where=truth > 0)


def dice(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns Dice = 2 TP / (2 TP + FP + FN), float64, NaN for a class without a true pixel."""
    return ratio(2 * hit, truth + predicted, where=truth > 0)


def accuracy(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the fraction of true pixels whose class is right, NaN without any."""
    del predicted
    return float(ratio(hit.sum(), truth.sum()))


def class_iou(matrix: np.ndarray, class_map: ClassMap) -> dict[str, float]:
    """Returns each scored class's intersection over union, TP / (TP + FP + FN).

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.3.
    A class without a true pixel gets NaN.
    """
    return dict(zip(class_map.scored_names, iou(*counts(matrix, class_map)).tolist(), strict=True))


def class_dice(matrix: np.ndarray, class_map: ClassMap) -> dict[str, float]:
    """Returns each scored class's Dice coefficient, 2 TP / (2 TP + FP + FN) = 2 IoU / (1 + IoU).

    Source: Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 1945.
    A class without a true pixel gets NaN.
    """
    return dict(zip(class_map.scored_names, dice(*counts(matrix, class_map)).tolist(), strict=True))


def mean_iou(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean IoU over the scored classes that occur in the truth.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
    """
    return float(mean(iou(*counts(matrix, class_map))))


def mean_dice(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean Dice coefficient over the scored classes that occur in the truth."""
    return float(mean(dice(*counts(matrix, class_map))))


def pixel_accuracy(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the fraction of scored pixels whose class is right.

    Source: Long et al., CVPR 2015, section 5.
    """
    return accuracy(*counts(matrix, class_map))


def frequency_weighted_iou(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean of the classes' IoU, weighted by their fraction of the true pixels.

    Source: Long et al., CVPR 2015, section 5.
    """
    hit, truth, predicted = counts(matrix, class_map)
    return float(ratio((truth * np.nan_to_num(iou(hit, truth, predicted))).sum(), truth.sum()))


def mean_iou_with_void(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean IoU over all classes and pixels, as if no index were ignored."""
    return mean_iou(matrix, dataclasses.replace(class_map, ignore_index=None))


METRICS: dict[str, Metric] = {
    "mean_iou": mean_iou,
    "mean_dice": mean_dice,
    "pixel_accuracy": pixel_accuracy,
    "frequency_weighted_iou": frequency_weighted_iou,
    "mean_iou_with_void": mean_iou_with_void,
}
CLASS_METRICS: dict[str, ClassMetric] = {"class_iou": class_iou, "class_dice": class_dice}


def metric_name(class_metric: str, class_name: str) -> str:
    """Returns the name of one class's score, as in `class_iou/road`."""
    return f"{class_metric}/{class_name}"


@dataclasses.dataclass(frozen=True)
class Scores:
    """All scores of one confusion matrix, 0 to 1; NaN where there is nothing to score.

    The fields are the names of the metrics; `class_iou` and `class_dice` are keyed by the name of
    each class that is not ignored.
    """

    mean_iou: float
    mean_dice: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    mean_iou_with_void: float
    class_iou: dict[str, float]
    class_dice: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores as plain JSON types, null for NaN, which JSON lacks."""
        return {
            name: {key: or_null(score) for key, score in value.items()} if isinstance(value, dict) else or_null(value)
            for name, value in dataclasses.asdict(self).items()
        }

    def flat(self) -> dict[str, float | None]:
        """Returns the scores by metric name, `class_iou/<class name>` included, null for NaN."""
        values = {name: getattr(self, name) for name in METRICS}
        for family in CLASS_METRICS:
            values |= {metric_name(family, name): value for name, value in getattr(self, family).items()}
        return {name: or_null(value) for name, value in values.items()}


def or_null(value: float) -> float | None:
    """Returns a score as JSON takes it: None for NaN."""
    return None if math.isnan(value) else value


def difference(value: float | None, baseline: float | None) -> float:
    """Returns value minus baseline, NaN if either is undefined."""
    return math.nan if value is None or baseline is None else value - baseline


def scores(matrix: np.ndarray, class_map: ClassMap) -> Scores:
    """Computes every score of a confusion matrix.

    Args:
        matrix: pixel counts, integer [N, N], rows the truth, columns the prediction.
        class_map: names and ignore index of the N classes.

    Raises:
        ValueError: the matrix is not N by N.
    """
    expected = (class_map.num_classes, class_map.num_classes)
    if matrix.shape != expected:
        raise ValueError(
            f"confusion matrix: found shape {matrix.shape}, expected {expected} for the class map's "
            f"{class_map.num_classes} classes; use the class map it was counted with"
        )
    means = {name: metric(matrix, class_map) for name, metric in METRICS.items()}
    by_class = {name: metric(matrix, class_map) for name, metric in CLASS_METRICS.items()}
    return Scores(class_iou=by_class["class_iou"], class_dice=by_class["class_dice"], **means)
