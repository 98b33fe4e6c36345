"""The scores of masks as TensorFlow Model Analysis metrics.

A label and a prediction are encoded masks. Each pair is decoded and counted once, and all metrics read the sums.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma

from components import features
from components.class_map import ClassMap
from components.metrics import scores, tfma_base
from components.metrics.confusion import confusion_matrix, decode_confidence, decode_mask
from components.metrics.diagnostics import Diagnostics
from components.metrics.tally import Tally
from components.metrics.tfma_base import SEQUENCE_NAMES, one_bytes, one_feature

CONFUSION_MATRIX = "confusion_matrix"
SEQUENCE_COUNTS = "sequence_counts"
SELECTION_COUNTS = "selection_counts"
DIAGNOSTICS = "diagnostics"

# One example: its confusion matrix, int64 [N, N], its encoded image, the name of its sequence, and its diagnostics;
# None if it belongs to the split that chose the epoch.
_Counted = tuple[np.ndarray, bytes, str, Diagnostics | None]


class _CountPixels(tfma.metrics.Preprocessor):
    """Turns one example's label and prediction into its counts."""

    def __init__(self, class_map: ClassMap, selection_split: str, model_name: str, output_name: str) -> None:
        super().__init__(name=f"count_pixels_{model_name}_{output_name}")
        self._class_map = class_map
        self._selection_split = selection_split
        self._model_name = model_name
        self._output_name = output_name

    def process(self, extracts: dict[str, Any]) -> Iterator[_Counted]:
        # With a baseline, labels and predictions are keyed by model: only the getters read both forms.
        inputs = tfma.metrics.StandardMetricInputs(extracts)
        truth = inputs.get_labels(self._model_name, self._output_name)
        outputs = inputs.get_predictions(self._model_name, self._output_name)
        # TFMA takes the only output of a model out of its dictionary: a model without confidence.
        if not isinstance(outputs, Mapping):
            outputs = {features.MASK_PNG: outputs}
        label = decode_mask(one_bytes(truth, "label"))
        prediction = decode_mask(one_bytes(features.mask_png(outputs), "prediction"))
        matrix = confusion_matrix(label, prediction, self._class_map.num_classes)
        image, sequence = (one_feature(extracts, name) for name in (features.IMAGE, features.SEQUENCE))
        selects = tfma_base.is_selection(extracts, self._selection_split)
        confidence = outputs.get(features.CONFIDENCE_PNG)
        levels = None if confidence is None else decode_confidence(one_bytes(confidence, "confidence"))
        diagnostics = None if selects else Diagnostics.of_image(label, prediction, self._class_map, levels)
        yield matrix, image, sequence.decode(), diagnostics


def _add(tally: Tally, counted: _Counted) -> None:
    matrix, image, sequence, diagnostics = counted
    if diagnostics is None:
        tally.add_selection(matrix)
    else:
        tally.add(matrix, image, sequence, diagnostics)


class MaskMetric(tfma_base.TallyMetric):
    """Base of the metrics of masks."""

    def computation(
        self, class_map: ClassMap, things: tuple[str, ...], selection_split: str, model_name: str, output_name: str
    ) -> tfma_base.Computation:
        """Returns how masks are counted."""
        del things
        preprocessor = _CountPixels(class_map, selection_split, model_name, output_name)
        return tfma_base.Computation(preprocessor, functools.partial(Tally.empty, class_map), _add)

    def derive(self, tally: Tally) -> Mapping[str, Any]:
        """Returns the metric's values by name."""
        return {self.metric: scores.METRICS[self.metric](tally.matrix, tally.class_map)}


class ClassMetric(MaskMetric):
    """Base of the metrics that have one value a class, named as in `class_iou/road`."""

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the values of the scored classes."""
        values = scores.CLASS_METRICS[self.metric](tally.matrix, tally.class_map)
        return {scores.metric_name(self.metric, name): value for name, value in values.items()}


class ConfusionMatrix(MaskMetric):
    """The pixel counts themselves, int64 [N, N], rows the truth, columns the prediction."""

    metric = CONFUSION_MATRIX

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the matrix."""
        return {self.metric: tally.matrix}


class SequenceCounts(MaskMetric):
    """Pixels hit, true and predicted of each scored class by sequence, int64 [sequences, 3, scored classes]."""

    metric = SEQUENCE_COUNTS

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the counts and, beside them, the sequences' names; nothing if there are too many sequences."""
        if not tally.sequences:
            return {}
        names = sorted(tally.sequences)
        return {SEQUENCE_NAMES: np.array(names), self.metric: np.stack([tally.sequences[name] for name in names])}


class SelectionCounts(MaskMetric):
    """Pixels hit, true and predicted of each scored class in the selection split, int64 [3, scored classes]."""

    metric = SELECTION_COUNTS

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the counts."""
        return {self.metric: tally.selection}


class DiagnosticScores(MaskMetric):
    """The scores that do not gate, and the counts they follow from, named as in `diagnostics/boundary`."""

    metric = DIAGNOSTICS

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the counts, int64, and the scores."""
        counts = {f"{self.metric}/{name}": value for name, value in vars(tally.diagnostics).items()}
        return {**counts, **tally.diagnostics.flat(tally.class_map)}


class MaskScoreInterval(tfma_base.ScoreInterval, MaskMetric):
    """The intervals of the scores of masks."""


class MaskPairedChange(tfma_base.PairedChange, MaskMetric):
    """The changes of the scores of masks."""


class MeanIoU(MaskMetric):
    """Mean IoU over the scored classes that occur in the truth."""

    metric = "mean_iou"


class MeanDice(MaskMetric):
    """Mean Dice coefficient over the scored classes that occur in the truth."""

    metric = "mean_dice"


class PixelAccuracy(MaskMetric):
    """Fraction of scored pixels whose class is right."""

    metric = "pixel_accuracy"


class FrequencyWeightedIoU(MaskMetric):
    """IoU weighted by the classes' fraction of the true pixels."""

    metric = "frequency_weighted_iou"


class MeanIoUWithVoid(MaskMetric):
    """Mean IoU over all classes, the ignored one included."""

    metric = "mean_iou_with_void"


class ClassIoU(ClassMetric):
    """IoU of each scored class."""

    metric = "class_iou"


class ClassDice(ClassMetric):
    """Dice coefficient of each scored class."""

    metric = "class_dice"


METRIC_CLASSES: tuple[type[MaskMetric], ...] = (
    ConfusionMatrix,
    MeanIoU,
    MeanDice,
    PixelAccuracy,
    FrequencyWeightedIoU,
    MeanIoUWithVoid,
    ClassIoU,
    ClassDice,
    SequenceCounts,
    SelectionCounts,
    DiagnosticScores,
    MaskScoreInterval,
    MaskPairedChange,
)
