"""Reads back what the Evaluator wrote: confusion matrices, scores with intervals, and which bound failed by how much.

The scores are computed from the stored counts with the same definitions that the metrics used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma

from components.class_map import ClassMap
from components.metrics import tfma_base, tfma_instances, tfma_metrics
from components.metrics.average_precision import SCORES
from components.metrics.bootstrap import Interval
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import (
    DEPTH,
    INSTANCE,
    LOWER_IS_BETTER,
    Scores,
    accuracy,
    dice,
    iou,
    mean,
    metric_name,
    nested,
    or_null,
    scores,
    task_scores,
)
from components.metrics.threshold_check import ThresholdCheck

# Values by model name, metric name and whether it is a difference of models.
_Values = dict[tuple[str, str, bool], Any]


@dataclasses.dataclass(frozen=True)
class SequenceResult:
    """What one model scored in one sequence, 0 to 1; NaN if there is nothing to score, None for another task."""

    mean_iou: float | None = None
    mean_dice: float | None = None
    pixel_accuracy: float | None = None
    mask_ap: float | None = None

    @property
    def main(self) -> float:
        """The task's main score."""
        found = self.mean_iou if self.mask_ap is None else self.mask_ap
        return math.nan if found is None else found


@dataclasses.dataclass(frozen=True)
class InstanceScores:
    """Average precision by metric name, `class_mask_ap/<class name>` included, 0 to 1; NaN without an instance."""

    values: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores as plain JSON types, null for NaN."""
        return nested(self.values)

    def flat(self) -> dict[str, float | None]:
        """Returns the scores by metric name, null for NaN."""
        return {name: or_null(value) for name, value in self.values.items()}


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model scored.

    Attributes:
        matrix: confusion matrix over the whole split, int64 [N, N], rows the truth, columns the prediction; [0, 0] for
            the task instance.
        scores: the scores over the whole split.
        sequences: the scores of each sequence by its name; empty if there are more than `tally.MAX_SEQUENCES`.
        intervals: 95 % interval by metric name, `class_iou/<class name>` included; scores that are NaN have none.
        selection: the main score and those of the classes on the split that chose the epoch, None if undefined; empty
            if the gate judged that split.
        diagnostics: the counts of the scores that do not gate; without confidence if the model returns none, and None
            for the task instance.
        depth: the scores of depth by metric name, NaN without a known pixel; empty without depth.
    """

    matrix: np.ndarray
    scores: Scores | InstanceScores
    sequences: dict[str, SequenceResult]
    intervals: dict[str, Interval]
    diagnostics: Diagnostics | None
    selection: dict[str, float | None] = dataclasses.field(default_factory=dict)
    depth: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the classes that have instances; none for the task semantic."""
        prefix = metric_name(INSTANCE.by_class, "")
        return tuple(name.removeprefix(prefix) for name in self.scores.flat() if name.startswith(prefix))

    def flat(self, class_map: ClassMap) -> dict[str, float | None]:
        """Returns all scores by metric name, those that do not gate included; None or NaN if undefined."""
        others = self.diagnostics.flat(class_map) if self.diagnostics else {}
        return {**self.scores.flat(), **self.depth, **others}


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
        ValueError: the directory holds no scores over the whole split.
    """
    values = _read_values(evaluation_uri)
    main = task_scores({name: None for _, name, _ in values}).main
    # Without a baseline TFMA leaves the candidate nameless.
    name = tfma.CANDIDATE_KEY if (tfma.CANDIDATE_KEY, main, False) in values else ""
    if (name, main, False) not in values:
        raise ValueError(
            f"{evaluation_uri}: found no {main} of a candidate over the whole split, "
            "expected what the pipeline's Evaluator writes"
        )
    read = _instance_result if main == INSTANCE.main else _model_result
    candidate = read(values, name, class_map)
    baseline = read(values, tfma.BASELINE_KEY, class_map) if (tfma.BASELINE_KEY, main, False) in values else None
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
        change_intervals=_intervals(values, name, tfma_base.CHANGE_INTERVAL, is_diff=True),
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
    names = values.get((model, tfma_base.SEQUENCE_NAMES, False), ())
    counts = values.get((model, tfma_metrics.SEQUENCE_COUNTS, False), ())
    return ModelResult(
        matrix,
        scores(matrix, class_map),
        {str(name): _sequence_result(own) for name, own in zip(names, counts, strict=True)},
        _intervals(values, model, tfma_base.INTERVAL, is_diff=False),
        _diagnostics(values, model, class_map),
        _selection_scores(values.get((model, tfma_metrics.SELECTION_COUNTS, False)), class_map),
        {name: float(values[model, name, False]) for name in DEPTH if (model, name, False) in values},
    )


def _instance_result(values: _Values, model: str, class_map: ClassMap) -> ModelResult:
    known = (*SCORES, *(metric_name(f"class_{score}", name) for score in SCORES for name in class_map.names))
    own = {name: value for (owner, name, is_diff), value in values.items() if (owner, is_diff) == (model, False)}
    names, found = (own.get(key, ()) for key in (tfma_base.SEQUENCE_NAMES, tfma_instances.SEQUENCE_SCORES))
    prefix = f"{tfma_instances.SELECTION}/"
    return ModelResult(
        np.zeros((0, 0), np.int64),
        InstanceScores({name: own[name] for name in known if name in own}),
        {str(name): SequenceResult(mask_ap=float(value)) for name, value in zip(names, found, strict=True)},
        _intervals(values, model, tfma_base.INTERVAL, is_diff=False),
        diagnostics=None,
        selection={name.removeprefix(prefix): or_null(value) for name, value in own.items() if name.startswith(prefix)},
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
    intervals = _intervals(values, candidate, tfma_base.JOINT_INTERVAL, is_diff=True)
    for name, threshold in sorted(thresholds.items()):
        if threshold.HasField("value_threshold"):
            is_error = name in LOWER_IS_BETTER
            limits = threshold.value_threshold
            yield ThresholdCheck(
                name,
                "value",
                (limits.upper_bound if is_error else limits.lower_bound).value,
                values[candidate, name, False],
                (name, False) not in failed,
                lower_is_better=is_error,
            )
        if threshold.HasField("change_threshold"):
            bound = threshold.change_threshold.absolute.value
            metric = name.removeprefix(f"{tfma_base.COUNTED_CHANGE}/")
            yield ThresholdCheck(
                metric,
                "change",
                bound,
                values[candidate, metric, True],
                (name, True) not in failed,
                intervals.get(metric),
                values[candidate, name, True],
                metric in LOWER_IS_BETTER,
            )
