"""Read what the Evaluator wrote: confusion matrices, scores with intervals, and which bound failed by how much.

The scores of masks are computed again from the stored counts, by the same functions.
"""

from __future__ import annotations

import collections
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
    SEMANTIC,
    Scores,
    accuracy,
    metric_name,
    nested,
    or_null,
    overlap_scores,
    scores,
    task_scores,
)
from components.metrics.threshold_check import ThresholdCheck

# Values by metric name.
_Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model scored.

    Attributes:
        matrix: confusion matrix over the whole split, int64 [N, N], rows the truth, columns the prediction; [0, 0] for
            the task instance.
        scores: the scores over the whole split.
        sequences: by sequence, its scores by metric name, NaN if undefined; empty if there are more sequences than
            `tally.MAX_SEQUENCES`.
        intervals: 95 % interval by metric name, `class_iou/<class name>` included, without undefined ones.
        selection: the main score and those of the classes on the split that selected the epoch, None if undefined;
            empty if the gate judged that split.
        diagnostics: the counts of the scores that do not gate; None for the task instance. If the model returns no
            confidence, the counts of calibration are 0.
        depth: the scores of depth by metric name, NaN without a known pixel; empty without depth.
    """

    matrix: np.ndarray
    scores: Scores
    sequences: Mapping[str, Mapping[str, float]]
    intervals: dict[str, Interval]
    diagnostics: Diagnostics | None
    selection: dict[str, float | None] = dataclasses.field(default_factory=dict)
    depth: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the classes that have instances; empty for the task semantic."""
        return tuple(nested(self.scores).get(INSTANCE.by_class, ()))

    def flat(self, class_map: ClassMap) -> Scores:
        """Returns all scores by metric name, also those that do not gate; NaN if undefined."""
        others = self.diagnostics.flat(class_map) if self.diagnostics else {}
        return {**self.scores, **self.depth, **others}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of the candidate and of the baseline, if there was one, and the gate's verdict on each bound.

    `change_intervals` holds the 95 % interval of each score's change by metric name, paired by image.
    """

    candidate: ModelResult
    baseline: ModelResult | None
    checks: tuple[ThresholdCheck, ...]
    change_intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)

    @property
    def failures(self) -> tuple[ThresholdCheck, ...]:
        """The bounds that the candidate missed."""
        return tuple(check for check in self.checks if not check.passed)


def load_evaluation(evaluation_uri: str, class_map: ClassMap) -> Evaluation:
    """Reads an evaluation artifact.

    Args:
        evaluation_uri: directory of the Evaluator's `evaluation` output.
        class_map: the class map that it was evaluated with.

    Raises:
        ValueError: the directory holds no scores over the whole split.
    """
    values = _read_values(evaluation_uri)
    main = task_scores({name for of_model in values.values() for name in of_model}).main
    # Without a baseline, TFMA gives the candidate no name.
    name = tfma.CANDIDATE_KEY if main in values[tfma.CANDIDATE_KEY, False] else ""
    if main not in values[name, False]:
        raise ValueError(
            f"{evaluation_uri}: found no {main} of a candidate over the whole split, "
            "expected what the pipeline's Evaluator writes"
        )
    failed = {
        (failure.metric_key.name, failure.metric_key.is_diff)
        for record in tfma.load_validation_result(evaluation_uri).metric_validations_per_slice
        for failure in record.failures
    }
    thresholds = tfma.load_eval_result(evaluation_uri, model_name=name).config.metrics_specs[0].thresholds
    baseline, changes = values[tfma.BASELINE_KEY, False], values[name, True]
    return Evaluation(
        candidate=_model_result(values[name, False], class_map),
        baseline=_model_result(baseline, class_map) if main in baseline else None,
        checks=tuple(_checks(thresholds, values[name, False], changes, failed)),
        change_intervals=_intervals(changes, tfma_base.CHANGE_INTERVAL),
    )


def _read_values(evaluation_uri: str) -> dict[tuple[str, bool], _Values]:
    """Returns the metrics over the whole split, by the model's name and whether they are differences of models."""
    values: dict[tuple[str, bool], _Values] = collections.defaultdict(dict)
    for record in tfma.load_metrics(evaluation_uri):
        for entry in record.metric_keys_and_values:
            key, found = entry.key, entry.value
            values[key.model_name, key.is_diff][key.name] = (
                _array(found.array_value) if found.HasField("array_value") else found.double_value.value
            )
    return values


def _array(found: Any) -> np.ndarray:
    """Returns TFMA's array message as an array."""
    for values in (found.int64_values, found.float64_values, [name.decode() for name in found.bytes_values]):
        if len(values):
            return np.array(values).reshape(tuple(found.shape))
    raise ValueError(f"evaluation: found an array of type {found.data_type}, expected int64, float64 or bytes")


def _model_result(values: _Values, class_map: ClassMap) -> ModelResult:
    intervals = _intervals(values, tfma_base.INTERVAL)
    names = [str(name) for name in values.get(tfma_base.SEQUENCE_NAMES, ())]
    if INSTANCE.main in values:
        known = (*SCORES, *(metric_name(f"class_{score}", name) for score in SCORES for name in class_map.names))
        precisions = values.get(tfma_instances.SEQUENCE_SCORES, ())
        return ModelResult(
            np.zeros((0, 0), np.int64),
            {name: values[name] for name in known if name in values},
            {name: {INSTANCE.main: float(value)} for name, value in zip(names, precisions, strict=True)},
            intervals,
            diagnostics=None,
            selection={name: or_null(value) for name, value in _family(values, tfma_instances.SELECTION).items()},
        )
    counts = values.get(tfma_metrics.SEQUENCE_COUNTS, ())
    return ModelResult(
        values[tfma_metrics.CONFUSION_MATRIX],
        scores(values[tfma_metrics.CONFUSION_MATRIX], class_map),
        {name: _sequence_scores(own) for name, own in zip(names, counts, strict=True)},
        intervals,
        _diagnostics(values, class_map),
        _selection_scores(values.get(tfma_metrics.SELECTION_COUNTS), class_map),
        {name: float(values[name]) for name in DEPTH if name in values},
    )


def _diagnostics(values: _Values, class_map: ClassMap) -> Diagnostics:
    """Returns the counts of the scores that do not gate; all 0 from an evaluation of an earlier version."""
    counts = _family(values, tfma_metrics.DIAGNOSTICS)
    return Diagnostics(**counts) if counts else Diagnostics.empty(class_map)


def _selection_scores(counts: np.ndarray | None, class_map: ClassMap) -> dict[str, float | None]:
    if counts is None or not counts.any():
        return {}
    found = overlap_scores(counts, class_map.scored_names)
    families = SEMANTIC.main, SEMANTIC.by_class
    return {name: or_null(float(value)) for name, value in found.items() if name.split("/")[0] in families}


def _sequence_scores(counts: np.ndarray) -> dict[str, float]:
    means = {name: float(value) for name, value in overlap_scores(counts, ()).items()}
    return {**means, "pixel_accuracy": accuracy(*counts)}


def _family(values: _Values, family: str) -> _Values:
    """Returns the values named `<family>/<name>` by name."""
    prefix = f"{family}/"
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _intervals(values: _Values, family: str) -> dict[str, Interval]:
    """Returns the defined intervals of a family by metric name."""
    found = _family(values, family)
    return {name: (float(low), float(high)) for name, (low, high) in found.items() if not math.isnan(low)}


def _checks(
    thresholds: Any, values: _Values, changes: _Values, failed: set[tuple[str, bool]]
) -> Iterator[ThresholdCheck]:
    """Yields every bound that was set, with the value that it was compared with."""
    intervals = _intervals(changes, tfma_base.JOINT_INTERVAL)
    for name, threshold in sorted(thresholds.items()):
        if threshold.HasField("value_threshold"):
            is_error = name in LOWER_IS_BETTER
            limits = threshold.value_threshold
            yield ThresholdCheck(
                name,
                "value",
                (limits.upper_bound if is_error else limits.lower_bound).value,
                values[name],
                (name, False) not in failed,
                lower_is_better=is_error,
            )
        if threshold.HasField("change_threshold"):
            metric = name.removeprefix(f"{tfma_base.COUNTED_CHANGE}/")
            yield ThresholdCheck(
                metric,
                "change",
                threshold.change_threshold.absolute.value,
                changes[metric],
                (name, True) not in failed,
                intervals.get(metric),
                changes[name],
                metric in LOWER_IS_BETTER,
            )
