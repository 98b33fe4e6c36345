"""Reads back what the Evaluator wrote: confusion matrices, scores with intervals, and which bound failed by how much.

The scores are computed from the stored counts with the same definitions that the metrics used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma

from components.class_map import ClassMap
from components.metrics import tfma_metrics
from components.metrics.bootstrap import Interval
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import Scores, accuracy, dice, iou, mean, metric_name, scores
from components.metrics.threshold_check import ThresholdCheck

# Values by model name, metric name and whether it is a difference of models.
_Values = dict[tuple[str, str, bool], Any]


@dataclasses.dataclass(frozen=True)
class SequenceResult:
    """What one model scored in one sequence, 0 to 1; NaN if there is nothing to score."""

    mean_iou: float
    mean_dice: float
    pixel_accuracy: float


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model scored.

    Attributes:
        matrix: confusion matrix over the whole split, int64 [N, N], rows the truth, columns the prediction.
        scores: the scores of it.
        sequences: the scores of each sequence by its name; empty if there are more than `tally.MAX_SEQUENCES`.
        intervals: 95 % interval by metric name, `class_iou/<class name>` included; scores that are NaN have none.
        selection: `mean_iou` and `class_iou/<class name>` on the split that chose the epoch, None if undefined; empty
            if the gate judged that split.
        diagnostics: the counts of the scores that do not gate; without confidence if the model returns none.
    """

    matrix: np.ndarray
    scores: Scores
    sequences: dict[str, SequenceResult]
    intervals: dict[str, Interval]
    diagnostics: Diagnostics
    selection: dict[str, float | None] = dataclasses.field(default_factory=dict)

    def flat(self, class_map: ClassMap) -> dict[str, float | None]:
        """Returns all scores by metric name, those that do not gate included; None or NaN if undefined."""
        return {**self.scores.flat(), **self.diagnostics.flat(class_map)}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The candidate's result, the baseline's if there was one, and the gate's verdict, bound by bound.

    `change_intervals` holds the 95 % interval of each score's change by metric name, paired on the same images.
    """

    candidate: ModelResult
    baseline: ModelResult | None
    checks: tuple[ThresholdCheck, ...]
    blessed: bool
    change_intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)

    @property
    def failures(self) -> tuple[ThresholdCheck, ...]:
        """The bounds that were not kept."""
        return tuple(check for check in self.checks if not check.passed)


def load_evaluation(evaluation_uri: str, class_map: ClassMap) -> Evaluation:
    """Reads an evaluation artifact.

    Args:
        evaluation_uri: directory of the Evaluator's `evaluation` output.
        class_map: the class map it was evaluated with.

    Raises:
        ValueError: the directory holds no confusion matrix over the whole split.
    """
    values = _read_values(evaluation_uri)
    # Without a baseline TFMA leaves the candidate nameless.
    matrix = (tfma_metrics.CONFUSION_MATRIX, False)
    name = tfma.CANDIDATE_KEY if (tfma.CANDIDATE_KEY, *matrix) in values else ""
    if (name, *matrix) not in values:
        raise ValueError(
            f"{evaluation_uri}: found no {tfma_metrics.CONFUSION_MATRIX} of a candidate over the whole split, "
            "expected what the pipeline's Evaluator writes"
        )
    candidate = _model_result(values, name, class_map)
    baseline = _model_result(values, tfma.BASELINE_KEY, class_map) if (tfma.BASELINE_KEY, *matrix) in values else None
    validation = tfma.load_validation_result(evaluation_uri)
    failed = {
        (failure.metric_key.name, failure.metric_key.is_diff)
        for record in validation.metric_validations_per_slice
        for failure in record.failures
    }
    thresholds = tfma.load_eval_result(evaluation_uri, model_name=name).config.metrics_specs[0].thresholds
    return Evaluation(
        candidate=candidate,
        baseline=baseline,
        checks=tuple(_checks(thresholds, values, name, failed)),
        blessed=validation.validation_ok,
        change_intervals=_intervals(values, name, tfma_metrics.CHANGE_INTERVAL, is_diff=True),
    )


def _read_values(evaluation_uri: str) -> _Values:
    """Returns the metrics over the whole split: numbers as float, arrays with their own type."""
    values: _Values = {}
    for record in tfma.load_metrics(evaluation_uri):
        for entry in record.metric_keys_and_values:
            found = entry.value
            values[entry.key.model_name, entry.key.name, entry.key.is_diff] = (
                _array(found.array_value) if found.HasField("array_value") else found.double_value.value
            )
    return values


def _array(found: Any) -> np.ndarray:
    """Returns TFMA's array message as an array."""
    for values in (found.int64_values, found.float64_values, [name.decode() for name in found.bytes_values]):
        if len(values):
            return np.array(values).reshape(tuple(found.shape))
    raise ValueError(f"evaluation: found an array of type {found.data_type}, expected int64, float64 or bytes")


def _model_result(values: _Values, model: str, class_map: ClassMap) -> ModelResult:
    matrix = values[model, tfma_metrics.CONFUSION_MATRIX, False]
    names = values.get((model, tfma_metrics.SEQUENCE_NAMES, False), ())
    counts = values.get((model, tfma_metrics.SEQUENCE_COUNTS, False), ())
    return ModelResult(
        matrix,
        scores(matrix, class_map),
        {str(name): _sequence_result(own) for name, own in zip(names, counts, strict=True)},
        _intervals(values, model, tfma_metrics.INTERVAL, is_diff=False),
        _diagnostics(values, model, class_map),
        _selection_scores(values.get((model, tfma_metrics.SELECTION_COUNTS, False)), class_map),
    )


def _diagnostics(values: _Values, model: str, class_map: ClassMap) -> Diagnostics:
    """Returns the counts of the scores that do not gate; all 0 from an evaluation of an earlier version."""
    names = [f"{tfma_metrics.DIAGNOSTICS}/{field.name}" for field in dataclasses.fields(Diagnostics)]
    if (model, names[0], False) not in values:
        return Diagnostics.empty(class_map)
    return Diagnostics(*(values[model, name, False] for name in names))


def _selection_scores(counts: np.ndarray | None, class_map: ClassMap) -> dict[str, float | None]:
    if counts is None or not counts.any():
        return {}
    by_class = iou(*counts)
    names = ("mean_iou", *(metric_name("class_iou", name) for name in class_map.scored_names))
    values = (float(mean(by_class)), *by_class.tolist())
    return {name: None if math.isnan(value) else value for name, value in zip(names, values, strict=True)}


def _sequence_result(counts: np.ndarray) -> SequenceResult:
    return SequenceResult(float(mean(iou(*counts))), float(mean(dice(*counts))), accuracy(*counts))


def _intervals(values: _Values, model: str, family: str, is_diff: bool) -> dict[str, Interval]:
    """Returns the intervals of one model that are defined, by metric name."""
    return {
        name.removeprefix(f"{family}/"): (float(low), float(high))
        for (owner, name, diff), (low, high) in (item for item in values.items() if item[0][1].startswith(f"{family}/"))
        if (owner, diff) == (model, is_diff) and not math.isnan(low)
    }


def _checks(
    thresholds: Any,
    values: _Values,
    candidate: str,
    failed: set[tuple[str, bool]],
) -> Iterator[ThresholdCheck]:
    """Yields every bound that was set, with the value it was compared with."""
    intervals = _intervals(values, candidate, tfma_metrics.JOINT_INTERVAL, is_diff=True)
    for name, threshold in sorted(thresholds.items()):
        if threshold.HasField("value_threshold"):
            bound = threshold.value_threshold.lower_bound.value
            yield ThresholdCheck(name, "value", bound, values[candidate, name, False], (name, False) not in failed)
        if threshold.HasField("change_threshold"):
            bound = threshold.change_threshold.absolute.value
            metric = name.removeprefix(f"{tfma_metrics.COUNTED_CHANGE}/")
            yield ThresholdCheck(
                metric,
                "change",
                bound,
                values[candidate, metric, True],
                (name, True) not in failed,
                intervals.get(metric),
                values[candidate, name, True],
            )
