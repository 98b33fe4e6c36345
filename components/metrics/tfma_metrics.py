"""The scores as TensorFlow Model Analysis metrics, all derived from one confusion matrix per model and slice.

A label and a prediction are encoded masks; each pair is decoded and counted once, before slicing,
so that slices and metrics only ever add up small matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.class_map import ClassMap
from components.metrics import scores
from components.metrics.confusion import confusion_matrix, decode_mask

CONFUSION_MATRIX = "confusion_matrix"
CLASS_IOU_OR_ZERO = "class_iou_or_zero"

# A leading underscore keeps a metric out of the results.
_PRIVATE_MATRIX = "_mask_confusion_matrix"

MetricsDict = dict[tfma.metrics.MetricKey, Any]
# What one metric makes of the matrix: values by metric name.
Derivation = Callable[[np.ndarray, ClassMap], dict[str, Any]]


def _encoded_mask(value: Any, what: str) -> bytes:
    """Returns the one byte string in a label or prediction, which arrive as bytes or arrays of one element."""
    array = np.asarray(value, dtype=object)
    if array.size != 1 or not isinstance(array.item(), bytes):
        raise ValueError(f"evaluation: the {what} of an example is {value!r:.200}, expected one encoded mask as bytes")
    return array.item()


class _CountPixels(tfma.metrics.Preprocessor):
    """Turns one example's label and prediction into its confusion matrix, int64 [N, N]."""

    def __init__(self, num_classes: int, model_name: str, output_name: str) -> None:
        super().__init__(name=f"count_pixels_{model_name}_{output_name}")
        self._num_classes = num_classes
        self._model_name = model_name
        self._output_name = output_name

    def process(self, extracts: dict[str, Any]) -> Iterator[np.ndarray]:
        # With a baseline, labels and predictions are keyed by model: only the getters read both forms.
        inputs = tfma.metrics.StandardMetricInputs(extracts)
        truth = inputs.get_labels(self._model_name, self._output_name)
        prediction = inputs.get_predictions(self._model_name, self._output_name)
        yield confusion_matrix(
            decode_mask(_encoded_mask(truth, "label")),
            decode_mask(_encoded_mask(prediction, "prediction")),
            self._num_classes,
        )


class SumMatrices(beam.CombineFn):
    """Adds confusion matrices up; the accumulator is one int64 [N, N] array."""

    def __init__(self, key: tfma.metrics.MetricKey, num_classes: int) -> None:
        super().__init__()
        self._key = key
        self._num_classes = num_classes

    def create_accumulator(self) -> np.ndarray:
        """Returns a matrix of zeros."""
        return np.zeros((self._num_classes, self._num_classes), dtype=np.int64)

    def add_input(self, accumulator: np.ndarray, element: np.ndarray) -> np.ndarray:
        """Adds one example's matrix."""
        return accumulator + element

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        """Adds the matrices of several bundles."""
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: np.ndarray) -> MetricsDict:
        """Returns the matrix under its metric key."""
        return {self._key: accumulator}


def _key(name: str, model_name: str, output_name: str) -> tfma.metrics.MetricKey:
    # Thresholds that a MetricsSpec sets by metric name only match keys whose example_weighted is None.
    return tfma.metrics.MetricKey(name=name, model_name=model_name, output_name=output_name, example_weighted=None)


def _computations(
    derive: Derivation, class_map: ClassMap, model_name: str, output_name: str
) -> tfma.metrics.MetricComputations:
    """Returns the shared count of pixels and what one metric derives from it.

    Every metric repeats the same first computation; TFMA runs it once, since keys and names agree.
    """
    matrix_key = _key(_PRIVATE_MATRIX, model_name, output_name)
    blank = np.zeros((class_map.num_classes, class_map.num_classes), dtype=np.int64)
    keys = {name: _key(name, model_name, output_name) for name in derive(blank, class_map)}

    def result(metrics: MetricsDict) -> MetricsDict:
        return {keys[name]: value for name, value in derive(metrics[matrix_key], class_map).items()}

    return [
        tfma.metrics.MetricComputation(
            keys=[matrix_key],
            preprocessors=[_CountPixels(class_map.num_classes, model_name, output_name)],
            combiner=SumMatrices(matrix_key, class_map.num_classes),
        ),
        tfma.metrics.DerivedMetricComputation(keys=list(keys.values()), result=result),
    ]


class MaskMetric(tfma.metrics.Metric):
    """Base of the metrics: a subclass says what it derives from the confusion matrix.

    Args:
        class_map: the class map as `ClassMap.to_json` writes it.
        code: hash of the code that computes the scores. It changes nothing here; as part of the
            metric's configuration it makes a change of the code a change of the pipeline's cache key.
        name: name under which TFMA lists the metric; the class's own where None.
    """

    metric = ""

    def __init__(self, class_map: str, code: str = "", name: str | None = None) -> None:
        super().__init__(
            tfma.metrics.merge_per_key_computations(self._create), class_map=class_map, code=code, name=name
        )

    def _default_name(self) -> str:
        return self.metric

    def _create(
        self, class_map: str, code: str = "", name: str | None = None, model_name: str = "", output_name: str = ""
    ) -> tfma.metrics.MetricComputations:
        return _computations(self.derive, ClassMap.from_json(class_map), model_name, output_name)

    @classmethod
    def derive(cls, matrix: np.ndarray, class_map: ClassMap) -> dict[str, Any]:
        """Returns the metric's values by name, from a matrix, int64 [N, N]."""
        return {cls.metric: scores.METRICS[cls.metric](matrix, class_map)}


class ClassMetric(MaskMetric):
    """Base of the metrics that have one value a class, named as in `class_iou/road`."""

    @classmethod
    def derive(cls, matrix: np.ndarray, class_map: ClassMap) -> dict[str, Any]:
        """Returns the values of the scored classes."""
        values = scores.CLASS_METRICS[cls.metric](matrix, class_map)
        return {scores.metric_name(cls.metric, name): value for name, value in values.items()}


class ConfusionMatrix(MaskMetric):
    """The pixel counts themselves, int64 [N, N], rows the truth, columns the prediction."""

    metric = CONFUSION_MATRIX

    @classmethod
    def derive(cls, matrix: np.ndarray, class_map: ClassMap) -> dict[str, Any]:
        """Returns the matrix."""
        return {cls.metric: matrix}


class MeanIoU(MaskMetric):
    """Mean IoU over the scored classes."""

    metric = "mean_iou"


class MeanDice(MaskMetric):
    """Mean Dice coefficient over the scored classes."""

    metric = "mean_dice"


class PixelAccuracy(MaskMetric):
    """Share of scored pixels whose class is right."""

    metric = "pixel_accuracy"


class FrequencyWeightedIoU(MaskMetric):
    """IoU weighted by the classes' share of the true pixels."""

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


class ClassIoUOrZero(MaskMetric):
    """IoU of each scored class with 0 for an absent one: what the bound on a class's drop compares.

    The difference of two NaN is NaN, which fails every threshold in TFMA. A class absent from the
    truth has an IoU of either NaN or 0, so with 0 for NaN it never drops and never blocks a model.
    """

    metric = CLASS_IOU_OR_ZERO

    @classmethod
    def derive(cls, matrix: np.ndarray, class_map: ClassMap) -> dict[str, Any]:
        """Returns the values of the scored classes, none of them NaN."""
        values = scores.class_iou(matrix, class_map)
        return {scores.metric_name(cls.metric, name): float(np.nan_to_num(value)) for name, value in values.items()}


METRIC_CLASSES: tuple[type[MaskMetric], ...] = (
    ConfusionMatrix,
    MeanIoU,
    MeanDice,
    PixelAccuracy,
    FrequencyWeightedIoU,
    MeanIoUWithVoid,
    ClassIoU,
    ClassDice,
    ClassIoUOrZero,
)
