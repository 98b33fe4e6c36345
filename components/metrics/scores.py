"""Definitions of the segmentation scores, each a function of a confusion matrix and a class map.

The pipeline's evaluation, `segpipe evaluate` and the report all read the registries here, so a
score means the same wherever it is shown. Matrices hold the truth in rows and the prediction in
columns. Pixels whose truth is the ignore index are left out (their row is dropped); a prediction
of the ignored class on any other pixel is a miss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from components.class_map import ClassMap

Metric = Callable[[np.ndarray, ClassMap], float]
ClassMetric = Callable[[np.ndarray, ClassMap], dict[str, float]]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides, float64, with NaN where the denominator is 0."""
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not NaN, NaN where none is left."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def _counts(matrix: np.ndarray, class_map: ClassMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns pixels hit, true and predicted of each scored class, int64 [scored classes] each."""
    indices = list(class_map.scored_indices)
    rows = np.asarray(matrix, dtype=np.int64)[indices]
    return rows[range(len(indices)), indices], rows.sum(axis=1), rows.sum(axis=0)[indices]


def _iou(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns IoU = TP / (TP + FP + FN), float64, NaN where a class is neither true nor predicted."""
    return _ratio(hit, truth + predicted - hit)


def _dice(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns Dice = 2 TP / (2 TP + FP + FN), float64, NaN where a class is neither true nor predicted."""
    return _ratio(2 * hit, truth + predicted)


def class_iou(matrix: np.ndarray, class_map: ClassMap) -> dict[str, float]:
    """Returns each scored class's intersection over union, TP / (TP + FP + FN).

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.3.
    A class absent from truth and prediction gets NaN.
    """
    return dict(zip(class_map.scored_names, _iou(*_counts(matrix, class_map)).tolist(), strict=True))


def class_dice(matrix: np.ndarray, class_map: ClassMap) -> dict[str, float]:
    """Returns each scored class's Dice coefficient, 2 TP / (2 TP + FP + FN) = 2 IoU / (1 + IoU).

    Source: Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 1945.
    A class absent from truth and prediction gets NaN.
    """
    return dict(zip(class_map.scored_names, _dice(*_counts(matrix, class_map)).tolist(), strict=True))


def mean_iou(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean IoU over the scored classes that occur in truth or prediction.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
    """
    return _mean(_iou(*_counts(matrix, class_map)))


def mean_dice(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean Dice coefficient over the scored classes that occur in truth or prediction."""
    return _mean(_dice(*_counts(matrix, class_map)))


def pixel_accuracy(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the share of scored pixels whose class is right.

    Source: Long et al., CVPR 2015, section 5.
    """
    hit, truth, _ = _counts(matrix, class_map)
    return float(_ratio(hit.sum(), truth.sum()))


def frequency_weighted_iou(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean of the classes' IoU, weighted by their share of the true pixels.

    Source: Long et al., CVPR 2015, section 5.
    """
    hit, truth, predicted = _counts(matrix, class_map)
    iou = np.nan_to_num(_iou(hit, truth, predicted))
    return float(_ratio((truth * iou).sum(), truth.sum()))


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
            name: {key: _or_null(score) for key, score in value.items()} if isinstance(value, dict) else _or_null(value)
            for name, value in dataclasses.asdict(self).items()
        }

    def flat(self) -> dict[str, float | None]:
        """Returns the scores by metric name, `class_iou/<class name>` included, null for NaN."""
        values = {name: getattr(self, name) for name in METRICS}
        for family in CLASS_METRICS:
            values |= {metric_name(family, name): value for name, value in getattr(self, family).items()}
        return {name: _or_null(value) for name, value in values.items()}


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


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
