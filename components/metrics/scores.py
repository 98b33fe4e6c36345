"""Define the scores of semantic segmentation, each a function of a confusion matrix and a class map.

The Evaluator, `segpipe evaluate` and the report all use these functions, so a score means the same everywhere. The
rows of a matrix are the truth, the columns the prediction. Pixels whose truth is the ignore index are not scored: their
row is dropped. If another pixel is predicted as the ignored class, it is a miss.

A class without a true pixel has no IoU and no Dice (NaN), and the means leave it out. Keras' MeanIoU (3.12) and others
score a class that is predicted but absent as 0. With 11 classes, one of them absent, a single stray pixel then lowers a
mean of 0.600 to 0.545. Here such pixels still count as misses of their true class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from components.class_map import ClassMap


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """The names of a task's scores.

    Attributes:
        main: the score that the gate, the choice of frames and lists of runs use.
        by_class: the same score of one class, named as in `class_iou/road`.
        listed: the scores shown first in reports and in lists of runs.
        of_epoch: the score that selects the epoch; `val_` precedes it in a training history.
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


# Scores of one model by metric name, `class_iou/<class name>` included, 0 to 1; NaN if undefined.
Scores = dict[str, float]


def task_scores(scores: Collection[str]) -> TaskScores:
    """Returns the names of the task that a model's scores, by metric name, belong to."""
    return INSTANCE if INSTANCE.main in scores else SEMANTIC


def metric_name(family: str, class_name: str) -> str:
    """Returns the name of one class's score, as in `class_iou/road`."""
    return f"{family}/{class_name}"


def nested(scores: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns scores by metric name as plain JSON types, those of classes by class name; null for NaN.

    `class_iou/road` becomes `{"class_iou": {"road": ...}}`.
    """
    result: dict[str, Any] = {}
    for name, value in scores.items():
        family, _, class_name = name.partition("/")
        group = result.setdefault(family, {}) if class_name else result
        group[class_name or family] = or_null(value)
    return result


def or_null(value: float | None) -> float | None:
    """Returns a score, or None for NaN, which JSON lacks."""
    return None if value is None or math.isnan(value) else value


def difference(value: float | None, baseline: float | None) -> float:
    """Returns value minus baseline, NaN if either is undefined."""
    return math.nan if value is None or baseline is None else value - baseline


def ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Divides, float64; NaN if the denominator is 0 or `where` is false."""
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0 if where is None else where)
    return result


def mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis of the values that are not NaN; NaN if all are."""
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
    """Returns intersection over union, TP / (TP + FP + FN), float64; NaN for a class without a true pixel.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.3.
    """
    return ratio(hit, truth + predicted - hit, where=truth > 0)


def dice(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the Dice coefficient, 2 TP / (2 TP + FP + FN), float64; NaN for a class without a true pixel.

    Source: Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 1945.
    """
    return ratio(2 * hit, truth + predicted, where=truth > 0)


def accuracy(hit: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the fraction of true pixels whose class is right; NaN without a true pixel.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
    """
    del predicted
    return float(ratio(hit.sum(), truth.sum()))


def overlap_scores(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns IoU and Dice by metric name, of each class and the mean, float64 [...].

    The means are over the classes that occur in the truth, as in Long et al., CVPR 2015, section 5.

    Args:
        counts: pixels hit, true and predicted, integer [3, ..., classes].
        class_names: names of the classes.
    """
    overlaps = {"iou": iou(*counts), "dice": dice(*counts)}
    result = {f"mean_{name}": mean(by_class) for name, by_class in overlaps.items()}
    for name, by_class in overlaps.items():
        for index, class_name in enumerate(class_names):
            result[metric_name(f"class_{name}", class_name)] = by_class[..., index]
    return result


def mean_iou(matrix: np.ndarray, class_map: ClassMap) -> float:
    """Returns the mean IoU over the scored classes that occur in the truth."""
    return float(mean(iou(*counts(matrix, class_map))))


def scores(matrix: np.ndarray, class_map: ClassMap) -> Scores:
    """Computes every score of a confusion matrix.

    Frequency-weighted IoU weights each class by its fraction of the true pixels (Long et al., CVPR 2015, section 5).
    Mean IoU with void is over all classes and pixels, as if no index were ignored.

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
    counted = counts(matrix, class_map)
    overlaps = overlap_scores(counted, class_map.scored_names)
    truth = counted[1]
    weighted = (truth * np.nan_to_num(iou(*counted))).sum()
    values: dict[str, Any] = {
        "mean_iou": overlaps.pop("mean_iou"),
        "mean_dice": overlaps.pop("mean_dice"),
        "pixel_accuracy": accuracy(*counted),
        "frequency_weighted_iou": ratio(weighted, truth.sum()),
        "mean_iou_with_void": mean_iou(matrix, dataclasses.replace(class_map, ignore_index=None)),
    }
    return {name: float(value) for name, value in {**values, **overlaps}.items()}
