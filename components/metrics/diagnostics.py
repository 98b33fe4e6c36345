"""Sum up the scores that do not gate: calibration, boundary IoU and recall by object size."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from components.class_map import ClassMap
from components.metrics.boundary import boundary_counts
from components.metrics.calibration import (
    BINS,
    ReliabilityBin,
    calibration_counts,
    expected_calibration_error,
    reliability,
)
from components.metrics.object_sizes import SIZES, SizeScore, object_counts, size_scores
from components.metrics.scores import iou, mean, metric_name, nested

CALIBRATION_ERROR = "expected_calibration_error"
MEAN_BOUNDARY_IOU = "mean_boundary_iou"
CLASS_BOUNDARY_IOU = "class_boundary_iou"


@dataclasses.dataclass
class Diagnostics:
    """Counts over images, from which the scores follow.

    Attributes:
        calibration: scored pixels, hits and sum of confidence by bin, int64 [BINS, 3]; see `calibration_counts`.
        boundary: pixels hit, true and predicted near the edges of each scored class, int64 [3, scored classes].
        object_sizes: objects, their pixels and the pixels found, int64 [scored classes, sizes, 3].
    """

    calibration: np.ndarray
    boundary: np.ndarray
    object_sizes: np.ndarray

    @classmethod
    def empty(cls, class_map: ClassMap) -> Diagnostics:
        """Returns the counts of no image."""
        scored = len(class_map.scored_names)
        shapes = (BINS, 3), (3, scored), (scored, len(SIZES), 3)
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    @classmethod
    def of_image(
        cls, truth: np.ndarray, prediction: np.ndarray, class_map: ClassMap, confidence: np.ndarray | None = None
    ) -> Diagnostics:
        """Counts one image.

        Args:
            truth: class indices, uint8 [H, W].
            prediction: class indices, uint8 [H, W].
            class_map: the classes.
            confidence: probability of the predicted class, uint8 [H, W], 0 to 255 for 0 to 1; None if unknown.

        Raises:
            ValueError: the confidence has another shape than the truth.
        """
        return cls(
            calibration_counts(truth, prediction, confidence, class_map),
            boundary_counts(truth, prediction, class_map),
            object_counts(truth, prediction, class_map),
        )

    def add(self, other: Diagnostics) -> None:
        """Adds the counts of other images."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).__iadd__(getattr(other, field.name))

    def flat(self, class_map: ClassMap) -> dict[str, float]:
        """Returns the scores by metric name, `class_boundary_iou/<class name>` included; NaN if undefined.

        The calibration error is undefined if the model returns no confidence.
        """
        by_class = iou(*self.boundary)
        return {
            CALIBRATION_ERROR: expected_calibration_error(self.calibration),
            MEAN_BOUNDARY_IOU: float(mean(by_class)),
            **{
                metric_name(CLASS_BOUNDARY_IOU, name): value
                for name, value in zip(class_map.scored_names, by_class.tolist(), strict=True)
            },
        }

    @property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The bins of the reliability diagram; empty if the model returns no confidence."""
        return reliability(self.calibration)

    @property
    def sizes(self) -> dict[str, SizeScore]:
        """The scores by object size, over the objects of all classes."""
        return size_scores(self.object_sizes.sum(axis=0))

    def class_sizes(self, class_map: ClassMap) -> dict[str, dict[str, SizeScore]]:
        """Returns the scores by class and object size."""
        return dict(zip(class_map.scored_names, map(size_scores, self.object_sizes), strict=True))

    def to_dict(self, class_map: ClassMap) -> dict[str, Any]:
        """Returns the scores as plain JSON types, null if undefined; docs/reference.md describes every field."""
        return {
            **nested(self.flat(class_map)),
            "reliability": [dataclasses.asdict(each) for each in self.reliability],
            "object_sizes": _plain(self.sizes),
            "class_object_sizes": {name: _plain(sizes) for name, sizes in self.class_sizes(class_map).items()},
        }


def _plain(sizes: dict[str, SizeScore]) -> dict[str, Any]:
    return {size: dataclasses.asdict(score) for size, score in sizes.items()}
