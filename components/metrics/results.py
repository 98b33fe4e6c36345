"""Reads back what the Evaluator wrote: confusion matrices, scores, and which bound failed by how much.

The scores are computed from the stored matrices with the same definitions that the metrics used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma

from components.class_map import ClassMap
from components.metrics.scores import Scores, metric_name, scores
from components.metrics.tfma_metrics import CLASS_IOU_OR_ZERO, CONFUSION_MATRIX
from components.metrics.threshold_check import ThresholdCheck

_WHOLE_SPLIT = ""


@dataclasses.dataclass(frozen=True)
class SliceResult:
    """Confusion matrix, int64 [N, N], rows the truth, columns the prediction, and the scores of it."""

    matrix: np.ndarray
    scores: Scores


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model scored over the whole split and in each sequence, by the sequence's name."""

    matrix: np.ndarray
    scores: Scores
    sequences: dict[str, SliceResult]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The candidate's result, the baseline's if there was one, and the gate's verdict, bound by bound."""

    candidate: ModelResult
    baseline: ModelResult | None
    checks: tuple[ThresholdCheck, ...]
    blessed: bool

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
    records = list(tfma.load_metrics(evaluation_uri))
    matrices = _matrices(records)
    # Without a baseline TFMA leaves the candidate nameless.
    name = tfma.CANDIDATE_KEY if tfma.CANDIDATE_KEY in matrices else ""
    if _WHOLE_SPLIT not in matrices.get(name, {}):
        raise ValueError(
            f"{evaluation_uri}: found no {CONFUSION_MATRIX} of a candidate over the whole split, "
            "expected what the pipeline's Evaluator writes"
        )
    baseline = matrices.get(tfma.BASELINE_KEY)
    validation = tfma.load_validation_result(evaluation_uri)
    return Evaluation(
        candidate=_model_result(matrices[name], class_map),
        baseline=_model_result(baseline, class_map) if baseline else None,
        checks=tuple(_checks(evaluation_uri, name, records, validation)),
        blessed=validation.validation_ok,
    )


def _matrices(records: list[Any]) -> dict[str, dict[str, np.ndarray]]:
    """Returns matrices, int64 [N, N], by model and sequence."""
    matrices: dict[str, dict[str, np.ndarray]] = {}
    for record in records:
        for entry in record.metric_keys_and_values:
            if entry.key.name == CONFUSION_MATRIX and not entry.key.is_diff:
                array = entry.value.array_value
                matrix = np.array(array.int64_values, dtype=np.int64).reshape(tuple(array.shape))
                matrices.setdefault(entry.key.model_name, {})[_sequence(record)] = matrix
    return matrices


def _sequence(record: Any) -> str:
    """Returns the value that names a slice, empty for the whole split."""
    return ", ".join(single.bytes_value.decode("utf-8") for single in record.slice_key.single_slice_keys)


def _model_result(matrices: dict[str, np.ndarray], class_map: ClassMap) -> ModelResult:
    slices = {name: SliceResult(matrix, scores(matrix, class_map)) for name, matrix in sorted(matrices.items())}
    whole = slices.pop(_WHOLE_SPLIT)
    return ModelResult(whole.matrix, whole.scores, slices)


def _checks(evaluation_uri: str, candidate: str, records: list[Any], validation: Any) -> Iterator[ThresholdCheck]:
    """Yields every bound that was set, with the value it was held against."""
    config = tfma.load_eval_result(evaluation_uri, model_name=candidate).config
    (whole,) = (record for record in records if not record.slice_key.single_slice_keys)
    values = {
        (entry.key.name, entry.key.is_diff): entry.value.double_value.value
        for entry in whole.metric_keys_and_values
        if entry.key.model_name == candidate
    }
    failed = {
        (failure.metric_key.name, failure.metric_key.is_diff)
        for record in validation.metric_validations_per_slice
        for failure in record.failures
    }
    for name, bounds in sorted(config.metrics_specs[0].per_slice_thresholds.items()):
        threshold = bounds.thresholds[0].threshold
        if threshold.HasField("value_threshold"):
            bound = threshold.value_threshold.lower_bound.value
            yield ThresholdCheck(name, "value", bound, values[name, False], (name, False) not in failed)
        if threshold.HasField("change_threshold"):
            bound = threshold.change_threshold.absolute.value
            yield ThresholdCheck(_shown_name(name), "change", bound, values[name, True], (name, True) not in failed)


def _shown_name(name: str) -> str:
    """Returns the name of the score that a bound is about."""
    if name.startswith(CLASS_IOU_OR_ZERO):
        return metric_name("class_iou", name.removeprefix(CLASS_IOU_OR_ZERO + "/"))
    return name
