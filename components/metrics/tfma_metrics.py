"""The scores as TensorFlow Model Analysis metrics, all derived from one tally of the images per model.

A label and a prediction are encoded masks. Each pair is decoded and counted once, and all metrics read the sums.

Sequences are counted in the tally, not by TFMA's slices: the number of slices has no limit, and a data set of 5,000
names without a sequence in them would make 5,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components import features
from components.class_map import ClassMap
from components.metrics import bootstrap, scores
from components.metrics.confusion import confusion_matrix, decode_confidence, decode_mask
from components.metrics.diagnostics import Diagnostics
from components.metrics.tally import Tally

CONFUSION_MATRIX = "confusion_matrix"
SEQUENCE_NAMES = "sequence_names"
SEQUENCE_COUNTS = "sequence_counts"
SELECTION_COUNTS = "selection_counts"
INTERVAL = "interval"
CHANGE_INTERVAL = "change_interval"
JOINT_INTERVAL = "joint_change_interval"
COUNTED_CHANGE = "counted_change"
DIAGNOSTICS = "diagnostics"

# A leading underscore keeps a metric out of the results.
_TALLY = "_tally"

MetricsDict = dict[tfma.metrics.MetricKey, Any]


def _one_bytes(value: Any, what: str) -> bytes:
    """Returns the one byte string in a value, which arrives as bytes or as an array of one element."""
    array = np.asarray(value, dtype=object)
    if array.size != 1 or not isinstance(array.item(), bytes):
        raise ValueError(f"evaluation: the {what} of an example is {value!r:.200}, expected one byte string")
    return array.item()


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
        label = decode_mask(_one_bytes(truth, "label"))
        prediction = decode_mask(_one_bytes(features.mask_png(outputs), "prediction"))
        matrix = confusion_matrix(label, prediction, self._class_map.num_classes)
        image, sequence = (self._feature(extracts, name) for name in (features.IMAGE, features.SEQUENCE))
        selects = bool(self._selection_split) and (
            self._feature(extracts, features.SPLIT).decode() == self._selection_split
        )
        confidence = outputs.get(features.CONFIDENCE_PNG)
        levels = None if confidence is None else decode_confidence(_one_bytes(confidence, "confidence"))
        diagnostics = None if selects else Diagnostics.of_image(label, prediction, self._class_map, levels)
        yield matrix, image, sequence.decode(), diagnostics

    @staticmethod
    def _feature(extracts: dict[str, Any], name: str) -> bytes:
        return _one_bytes(extracts[tfma.FEATURES_KEY][name], name)


class SumImages(beam.CombineFn):
    """Adds examples up; the accumulator is a `Tally`."""

    def __init__(self, key: tfma.metrics.MetricKey, class_map: ClassMap) -> None:
        super().__init__()
        self._key = key
        self._class_map = class_map

    def create_accumulator(self) -> Tally:
        """Returns the tally of no image."""
        return Tally.empty(self._class_map)

    def add_input(self, accumulator: Tally, element: _Counted) -> Tally:
        """Adds one example."""
        matrix, image, sequence, diagnostics = element
        if diagnostics is None:
            accumulator.add_selection(matrix)
        else:
            accumulator.add(matrix, image, sequence, diagnostics)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        """Adds the tallies of several bundles."""
        total = self.create_accumulator()
        for accumulator in accumulators:
            total.merge(accumulator)
        return total

    def extract_output(self, accumulator: Tally) -> MetricsDict:
        """Returns the tally under its metric key."""
        return {self._key: accumulator}


def _key(name: str, model_name: str, output_name: str) -> tfma.metrics.MetricKey:
    # Thresholds that a MetricsSpec sets by metric name only match keys whose example_weighted is None.
    return tfma.metrics.MetricKey(name=name, model_name=model_name, output_name=output_name, example_weighted=None)


class MaskMetric(tfma.metrics.Metric):
    """Base of the metrics: a subclass says what it derives from the tally of the images.

    Args:
        class_map: the class map as `ClassMap.to_json` writes it.
        significant_drops: see `GateSettings`; only `PairedChange` reads it.
        selection_split: the split that chose the epoch, of which only `SelectionCounts` tells; empty if the gate
            judges it.
        code: hash of the code that computes the scores. It changes nothing here; as part of the
            metric's configuration it makes a change of the code a change of the pipeline's cache key.
        name: name under which TFMA lists the metric; the class's own if None.
    """

    metric = ""

    def __init__(
        self,
        class_map: str,
        significant_drops: bool = True,
        selection_split: str = "",
        code: str = "",
        name: str | None = None,
    ) -> None:
        self._significant_drops = significant_drops
        super().__init__(
            tfma.metrics.merge_per_key_computations(self._create),
            class_map=class_map,
            significant_drops=significant_drops,
            selection_split=selection_split,
            code=code,
            name=name,
        )

    def _default_name(self) -> str:
        return self.metric

    def _create(
        self,
        class_map: str,
        significant_drops: bool = True,
        selection_split: str = "",
        code: str = "",
        name: str | None = None,
        model_name: str = "",
        output_name: str = "",
    ) -> tfma.metrics.MetricComputations:
        """Returns the shared tally and what this metric derives from it.

        Every metric repeats the same first computation; TFMA runs it once, because keys and names agree.
        """
        classes = ClassMap.from_json(class_map)
        tally_key = _key(_TALLY, model_name, output_name)
        baseline_key = _key(_TALLY, tfma.BASELINE_KEY, output_name)

        def result(metrics: MetricsDict) -> MetricsDict:
            tally = metrics[tally_key]
            values = {_key(key, model_name, output_name): value for key, value in self.derive(tally).items()}
            if model_name != tfma.BASELINE_KEY and baseline_key in metrics:
                for key, value in self.derive_change(tally, metrics[baseline_key]).items():
                    values[_key(key, model_name, output_name).make_diff_key()] = value
            return values

        return [
            tfma.metrics.MetricComputation(
                keys=[tally_key],
                preprocessors=[_CountPixels(classes, selection_split, model_name, output_name)],
                combiner=SumImages(tally_key, classes),
            ),
            # The name tells the computations of different metrics apart.
            tfma.metrics.DerivedMetricComputation(keys=[_key(self.metric, model_name, output_name)], result=result),
        ]

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the metric's values by name."""
        return {self.metric: scores.METRICS[self.metric](tally.matrix, tally.class_map)}

    def derive_change(self, tally: Tally, baseline: Tally) -> dict[str, Any]:
        """Returns values of the comparison with a baseline by name; TFMA adds the plain differences itself."""
        return {}


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


class ScoreInterval(MaskMetric):
    """Bounds of each score's 95 % interval, float64 [2], named as in `interval/class_iou/road`."""

    metric = INTERVAL

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the intervals."""
        found = bootstrap.score_intervals(tally.resamples, tally.class_map)
        return {f"{self.metric}/{name}": np.array(bounds) for name, bounds in found.items()}


class PairedChange(MaskMetric):
    """Each score's change against the baseline: the 95 % interval, float64 [2], and what the gate counts of it."""

    metric = COUNTED_CHANGE

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns nothing: without a baseline no score changes."""
        return {}

    def derive_change(self, tally: Tally, baseline: Tally) -> dict[str, Any]:
        """Returns the intervals and the counted changes."""
        after, before = (scores.scores(side.matrix, side.class_map).flat() for side in (tally, baseline))
        values: dict[str, Any] = {}
        sides = tally.resamples, baseline.resamples, tally.class_map
        for name, bounds in bootstrap.change_intervals(*sides).items():
            values[f"{CHANGE_INTERVAL}/{name}"] = np.array(bounds)
        for name, bounds in bootstrap.change_intervals(*sides, jointly=True).items():
            change = scores.difference(after[name], before[name])
            values[f"{JOINT_INTERVAL}/{name}"] = np.array(bounds)
            values[f"{self.metric}/{name}"] = bootstrap.counted_change(change, bounds, self._significant_drops)
        return values


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
    ScoreInterval,
    PairedChange,
)
